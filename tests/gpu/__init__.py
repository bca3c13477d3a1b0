"""gpu tests."""
