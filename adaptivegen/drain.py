"""How long the end of a process may take: its grace, which is a setting, and the two limits derived from it.

    SIGTERM ---- grace: open work ends or is given back ----|-- margin: connections close --| watchdog --| kill

Only numbers; who waits for what is said by each service.
"""

from __future__ import annotations

from adaptivegen.clock import Clock

DEFAULT_GRACE_S = 10.0
LONGEST_GRACE_S = 600.0
MARGIN_S = 5.0  # what ending tasks, the model child and connections may take after the grace
KILL_MARGIN_S = 2.0  # the process ends itself before it is killed


def watchdog_s(grace_s: float) -> float:
    """Seconds after which a process that was asked to end, and has not, ends itself."""
    return grace_s + MARGIN_S


def kill_after_s(grace_s: float) -> float:
    """Seconds a supervisor waits for a process of this grace before it kills it."""
    return watchdog_s(grace_s) + KILL_MARGIN_S


class Grace:
    """One deadline, begun when it is made, that all steps of a drain share."""

    def __init__(self, clock: Clock, grace_s: float) -> None:
        self._clock = clock
        self._until_s = clock.monotonic_s() + grace_s

    @property
    def left_s(self) -> float:
        """What is left of it in seconds, never below zero."""
        return max(0.0, self._until_s - self._clock.monotonic_s())
