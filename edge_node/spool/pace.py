"""How fast an edge hands over what it has spooled, so that many that were cut off together do not come back together.
Pure: times are given, in seconds, and chance comes in.

After a cut an edge waits for a random while, up to a tenth of what the cut took: whoever waited for a minute waits for
some seconds more at most, and a thousand edges are spread over them. Then it hands over at a pace that differs a bit
from job to job. Where a scheduler says that it has no room now and when to ask again, that is kept to, for one tenant
or for all; but only for so long, since what was accepted is never refused.
"""

from __future__ import annotations

import random

PER_S = 10.0  # jobs handed over, at most
SPREAD_SHARE = 0.1  # of the cut
LONGEST_SPREAD_S = 30.0
JITTER = 0.5  # by which gaps and pauses are longer at most, as a share
HINT_JITTER = 0.25  # the same of what a scheduler said: asking sooner is of no use
LONGEST_PUT_OFF_S = 60.0  # by hints, one after another
CALM_S = 2 * LONGEST_PUT_OFF_S  # not put off for so long, the next hint is the first of a new row
EVERYBODY = ""  # whose jobs a hint is about that is about no tenant


class Pace:
    """One edge's way back."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._held: dict[str, tuple[float, float]] = {}  # by tenant: since when, and until when

    def back(self, *, cut_s: float) -> float:
        """The centre is back after so long: how long to wait before the first job. Earlier hints are forgotten."""
        self._held.clear()
        return self._rng.uniform(0.0, min(LONGEST_SPREAD_S, max(0.0, cut_s) * SPREAD_SHARE))

    def gap_s(self) -> float:
        """Between two jobs."""
        return self.longer(1 / PER_S)

    def longer(self, pause_s: float) -> float:
        """A pause, or up to half as much again."""
        return pause_s * self._rng.uniform(1.0, 1.0 + JITTER)

    def held_s(self, tenant: str, *, now_s: float) -> float:
        """How long this tenant's jobs are not to be asked for; 0 where they may be."""
        return max(0.0, *(self._held.get(name, (0.0, now_s))[1] - now_s for name in (tenant, EVERYBODY)))

    def refused(self, tenant: str, retry_after_s: float, *, now_s: float, left_s: float | None) -> float:
        """A scheduler has no room for the tenant's jobs, or for nobody's (EVERYBODY), and said when to ask again: how
        long to wait now; 0 where that was done for long enough, and the job goes as the edge has decided. left_s: of
        the job's deadline, None where it has none."""
        since_s, until_s = self._held.get(tenant, (now_s, now_s))
        since_s = since_s if now_s - until_s <= CALM_S else now_s
        wait_s = max(0.0, retry_after_s) * self._rng.uniform(1.0, 1.0 + HINT_JITTER)
        wait_s = max(0.0, min(wait_s, since_s + LONGEST_PUT_OFF_S - now_s))
        self._held[tenant] = since_s, now_s + wait_s
        if left_s is not None and wait_s > left_s:  # it is for the others to wait
            return 0.0
        return wait_s

    def taken(self, tenant: str) -> None:
        """A scheduler had room for a job of this tenant: what it says next counts anew."""
        self._held.pop(tenant, None)
        self._held.pop(EVERYBODY, None)
