"""Cached objects on disk."""
