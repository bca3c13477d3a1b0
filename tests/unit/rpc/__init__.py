"""Unit tests: rpc."""
