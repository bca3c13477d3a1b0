"""What a policy decides: which objects to give up for a new one. Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol


class EvictionPolicy(Protocol):
    """The residents of a cache, by key and size in bytes."""

    def admit(self, key: str, size_bytes: int, *, pinned: Container[str]) -> list[str] | None:
        """Make room for `key` and take it in; returns the keys given up, or None if it is not to be cached.

        Pinned keys (being read) are never given up.
        """
        ...

    def touch(self, key: str) -> None:
        """A resident was read."""
        ...

    def remove(self, key: str) -> None:
        """A resident is gone for another reason."""
        ...
