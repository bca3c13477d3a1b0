"""Killable child processes that own a model or decode untrusted media: framing, the parent's and the child's side."""
