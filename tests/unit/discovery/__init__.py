"""Unit tests: discovery."""
