"""What could not be done for some of many things: when each is tried again, and whether its error is news. Pure.

For whoever goes over many in passes: one that fails for ever must neither keep the others waiting nor fill the log.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0
MOST = 4096  # that are remembered; of more the first are tried, and said, as if they were new


@dataclass(slots=True)
class _Trouble:
    said: str
    times: int
    again_at_s: float


class Troubles:
    """By name, over the passes of one process. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._found: dict[str, _Trouble] = {}

    def due(self, name: str, *, now_s: float) -> bool:
        """Whether it may be tried: it has not failed, or its pause is over."""
        known = self._found.get(name)
        return known is None or now_s >= known.again_at_s

    def times(self, name: str) -> int:
        """How often it has failed in a row."""
        known = self._found.get(name)
        return known.times if known is not None else 0

    def failed(self, name: str, said: str, *, now_s: float) -> bool:
        """It failed, once more or for the first time; True where that is not what was said of it last."""
        known = self._found.pop(name, None)
        times = known.times + 1 if known is not None else 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(times - 1, 10))
        self._found[name] = _Trouble(said, times, now_s + pause_s)
        while len(self._found) > MOST:
            del self._found[next(iter(self._found))]
        return known is None or known.said != said

    def over(self, name: str) -> None:
        """It was done, or is no longer to be."""
        self._found.pop(name, None)
