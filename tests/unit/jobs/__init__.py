"""Unit tests: jobs."""
