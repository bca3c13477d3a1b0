"""Unit tests: generation."""
