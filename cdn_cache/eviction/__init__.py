"""Eviction policies. Pure: they hold no clock, no file and no socket."""
