"""Unit tests of the media cache."""
