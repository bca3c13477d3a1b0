"""Unit tests of media."""
