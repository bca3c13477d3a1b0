"""Drafts at the edge: the model child and the desk that runs and hands out drafts."""
