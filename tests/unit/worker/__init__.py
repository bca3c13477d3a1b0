"""Unit tests: worker."""
