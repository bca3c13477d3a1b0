"""How a person found a video, and what their client saw of it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptivegen.errors import InvalidRequest

LONGEST_WAIT_S = 7 * 86400.0
MOST_STALLS = 10_000


@dataclass(frozen=True, slots=True)
class Experience:
    """What a client says: 1 (bad) to 5 (excellent) stars, and what it measured.

    draft_wait_s, final_wait_s: seconds from submission until each was there, None where that was not seen; stalls: how
    often playback stopped to wait, for `stalled_s` in all.
    """

    stars: int
    draft_wait_s: float | None = None
    final_wait_s: float | None = None
    stalls: int = 0
    stalled_s: float = 0.0

    def check(self) -> None:
        """Raise InvalidRequest naming what is out of range."""
        if isinstance(self.stars, bool) or not isinstance(self.stars, int) or not 1 <= self.stars <= 5:
            raise InvalidRequest.field("stars", self.stars, "a whole number from 1 to 5")
        if isinstance(self.stalls, bool) or not isinstance(self.stalls, int) or not 0 <= self.stalls <= MOST_STALLS:
            raise InvalidRequest.field("stalls", self.stalls, f"a whole number from 0 to {MOST_STALLS}")
        for name in ("draft_wait_s", "final_wait_s", "stalled_s"):
            seconds = getattr(self, name)
            if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_WAIT_S):
                raise InvalidRequest.field(name, seconds, f"0 to {LONGEST_WAIT_S:.0f} seconds")


@dataclass(frozen=True, slots=True)
class Rated:
    """One rating with what it was about. Seconds are None where the part never came; qualities are of the QoE scale."""

    rater: str
    iterating: bool
    stars: int
    draft_s: float | None
    draft_quality: float
    final_s: float | None
    final_quality: float
