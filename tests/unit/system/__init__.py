"""Unit tests: system."""
