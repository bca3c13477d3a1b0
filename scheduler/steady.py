"""Wall time that never jumps: the wall clock at the start plus what has passed since.

The age of heartbeats and the times of decisions are measured with it, so that a wall clock set forward or back while
the scheduler runs neither buries living nodes nor keeps dead ones.
"""

from __future__ import annotations

from adaptivegen.clock import Clock


class SteadyTime:
    """Nanoseconds since 1970 as of the start, never going back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_ns = clock.now_ns()
        self._start_s = clock.monotonic_s()

    def now_ns(self) -> int:
        """The time now."""
        return self._start_ns + round((self._clock.monotonic_s() - self._start_s) * 1e9)
