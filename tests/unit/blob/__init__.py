"""Unit tests of the object store."""
