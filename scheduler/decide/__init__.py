"""Placement as pure code: what the scheduler knows, what it predicts, how it scores, what it chooses."""
