"""How long bytes take from one place to another: a delay and a rate, learned from transfers that happen anyway. Pure.

Nothing is sent to measure: a worker notes its uploads and the drafts it fetches, an edge what is brought into its
cache. What was not used lately is told no more, since it may have become another way.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from adaptivegen.nodes import FASTEST_BYTES_PER_S, WAYS_TOLD, Way

GAIN = 0.2  # share of a new transfer in the means
LONGEST_S = 600.0  # of one transfer
FORGET_AFTER_S = 600.0
TOLD_APART = 0.3  # of their mean, by which sizes must differ before delay and rate are told apart
EVEN_BYTES = 128 * 1024  # of which the delay is taken to be half of a transfer, as long as all are of one size


@dataclass(slots=True)
class _Seen:
    """Moving means of bytes and seconds and of how they vary together; seen: how many; at_s: of the last."""

    mean_bytes: float
    mean_s: float
    at_s: float
    seen: int = 1
    variance: float = 0.0
    covariance: float = 0.0

    def observe(self, size: float, seconds: float, *, now_s: float) -> None:
        """One more. The second takes the place of the first, which had to connect as well."""
        self.at_s, self.seen = now_s, self.seen + 1
        if self.seen == 2:
            self.mean_bytes, self.mean_s = size, seconds
            return
        gain = max(GAIN, 1.0 / (self.seen - 1))
        off_bytes, off_s = size - self.mean_bytes, seconds - self.mean_s
        self.mean_bytes += gain * off_bytes
        self.mean_s += gain * off_s
        self.variance = (1.0 - gain) * (self.variance + gain * off_bytes * off_bytes)
        self.covariance = (1.0 - gain) * (self.covariance + gain * off_bytes * off_s)

    def way(self) -> Way:
        """The line through what was seen, with no part below nothing."""
        if self.variance > (TOLD_APART * self.mean_bytes) ** 2:
            per_byte_s = max(0.0, self.covariance / self.variance)
        else:
            per_byte_s = self.mean_s / (self.mean_bytes + EVEN_BYTES)
        delay_s = self.mean_s - per_byte_s * self.mean_bytes
        if delay_s < 0.0:
            delay_s, per_byte_s = 0.0, self.mean_s / self.mean_bytes
        rate = 1.0 / max(per_byte_s, 1.0 / FASTEST_BYTES_PER_S)
        return Way(delay_s=delay_s, bytes_per_s=min(FASTEST_BYTES_PER_S, max(1.0, rate)))


class Transfers:
    """The ways of one node, by where they lead; at most WAYS_TOLD, the one used last at the end. Times of one steady
    clock."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __repr__(self) -> str:
        return f"Transfers({sorted(self._seen)})"

    def observe(self, way: str, size_bytes: int, seconds: float, *, now_s: float) -> None:
        """So many bytes took so long. What cannot be one is passed over."""
        if size_bytes <= 0 or not math.isfinite(seconds):
            return
        took_s = min(LONGEST_S, max(0.0, seconds))
        seen = self._seen.get(way)
        if seen is None or now_s - seen.at_s > FORGET_AFTER_S:
            self._seen[way] = _Seen(float(size_bytes), took_s, now_s)
        else:
            seen.observe(float(size_bytes), took_s, now_s=now_s)
        self._seen.move_to_end(way)
        while len(self._seen) > WAYS_TOLD:
            self._seen.popitem(last=False)

    def told(self, *, now_s: float) -> dict[str, Way]:
        """The ways that were used lately, for the heartbeat."""
        return {name: seen.way() for name, seen in self._seen.items() if now_s - seen.at_s <= FORGET_AFTER_S}
