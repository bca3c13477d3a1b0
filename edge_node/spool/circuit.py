"""Whether an edge counts as cut off: a circuit breaker with hysteresis. Pure: times are given, in seconds.

Opens after `FAILURES` failures in a row. Closes when all has worked for `settle_s` without a failure in between; when
it opens again soon after it had closed, that time doubles: a connection that comes and goes is not believed.
"""

from __future__ import annotations

FAILURES = 2
SETTLE_S = 1.0
LONGEST_SETTLE_S = 30.0
CALM_S = 60.0  # closed for so long, the next cut is a new one


class Circuit:
    """Open: cut off. `why`: the failure that it was opened by, or the latest since."""

    def __init__(self) -> None:
        self.open = False
        self.why = ""
        self.since_s = 0.0
        self.settle_s = SETTLE_S
        self._failures = 0
        self._good_since_s: float | None = None
        self._closed_s: float | None = None

    def failed(self, why: str, *, now_s: float) -> bool:
        """A call of the centre failed; whether this has opened the circuit."""
        self._failures += 1
        self._good_since_s = None
        if self.open or self._failures >= FAILURES:
            self.why = why
        if self.open or self._failures < FAILURES:
            return False
        self.trip(why, now_s=now_s)
        return True

    def trip(self, why: str, *, now_s: float) -> None:
        """Open it, whatever was counted."""
        flaps = self._closed_s is not None and now_s - self._closed_s < CALM_S
        self.settle_s = min(LONGEST_SETTLE_S, self.settle_s * 2) if flaps else SETTLE_S
        self.open, self.why, self.since_s = True, why, now_s
        self._good_since_s = None

    def worked(self, *, now_s: float) -> bool:
        """All that was asked of the centre worked; whether this has closed the circuit."""
        self._failures = 0
        if not self.open:
            return False
        if self._good_since_s is None:
            self._good_since_s = now_s
        if now_s - self._good_since_s < self.settle_s:
            return False
        self.open, self.why, self._closed_s = False, "", now_s
        return True
