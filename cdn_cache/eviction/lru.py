"""Least recently used, bounded by bytes (the baseline; Mattson et al., 1970). Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container


class Lru:
    """Gives up what was not read for longest. An object larger than the capacity is not cached."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self.used_bytes = 0

    def admit(self, key: str, size_bytes: int, *, pinned: Container[str]) -> list[str] | None:
        """See `EvictionPolicy`."""
        if key in self._sizes:
            self.touch(key)
            return []
        need_bytes = self.used_bytes + size_bytes - self._capacity_bytes
        victims: list[str] = []
        for candidate, candidate_bytes in self._sizes.items():
            if need_bytes <= 0:
                break
            if candidate not in pinned:
                victims.append(candidate)
                need_bytes -= candidate_bytes
        if need_bytes > 0:
            return None
        for victim in victims:
            self.remove(victim)
        self._sizes[key] = size_bytes
        self.used_bytes += size_bytes
        return victims

    def touch(self, key: str) -> None:
        """See `EvictionPolicy`."""
        if key in self._sizes:
            self._sizes.move_to_end(key)

    def remove(self, key: str) -> None:
        """See `EvictionPolicy`."""
        self.used_bytes -= self._sizes.pop(key, 0)
