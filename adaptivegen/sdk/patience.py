"""How long a client waits: pauses between attempts, and the deadlines of a wait. Pure: `now_s` comes in, decisions out.

Decides when to try again and when to give up; sleeps nowhere.
"""

from __future__ import annotations

import random

from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, QuotaExceeded, ResourceExhausted, Unavailable
from adaptivegen.experience import Experience
from adaptivegen.sdk.models import Video

STEADY_S = 5.0  # a stream that has lived so long counts as a success, even if nothing new came
_TRY_AGAIN = (Unavailable, ResourceExhausted)


class Backoff:
    """Growing, jittered pauses within a budget that begins with the first failure after the last success.

    The jitter takes between half and all of the pause, so that clients cut off together do not come back together.
    """

    def __init__(self, *, budget_s: float, rng: random.Random, first_s: float = 0.1, longest_s: float = 5.0) -> None:
        self._budget_s = budget_s
        self._rng = rng
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._since_s = 0.0

    def succeeded(self) -> None:
        """Something came through: the next failure has the whole budget."""
        self._failures = 0

    def pause_s(self, error: AdaptiveGenError, *, now_s: float) -> float:
        """Seconds to wait before the next attempt. Raises `error` when it will not pass or the budget is spent."""
        if not isinstance(error, _TRY_AGAIN) or (isinstance(error, QuotaExceeded) and error.retry_after_s is None):
            raise error
        if self._failures == 0:
            self._since_s = now_s
        pause_s = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 16)) * self._rng.uniform(0.5, 1.0)
        pause_s = max(pause_s, error.retry_after_s or 0.0)
        if now_s - self._since_s + pause_s > self._budget_s:
            raise error
        self._failures += 1
        return pause_s


class Waiting:
    """The deadlines of one wait for a video: until work has begun on it, and until the end."""

    def __init__(self, *, now_s: float, start_timeout_s: float | None, timeout_s: float | None) -> None:
        self._start_timeout_s = start_timeout_s
        self._timeout_s = timeout_s
        self._start_at_s = None if start_timeout_s is None else now_s + start_timeout_s
        self._end_at_s = None if timeout_s is None else now_s + timeout_s
        self._begun = False

    def observe(self, video: Video, *, event_type: str = "") -> None:
        """Note what is known now. A video that is only a draft has begun when its draft has."""
        drafting = video.plan == "draft" and (event_type.startswith("draft.") or video.draft is not None)
        if video.status != "queued" or drafting:
            self._begun = True

    def remaining_s(self, *, now_s: float) -> float | None:
        """Seconds until the nearer deadline, None without one. Raises DeadlineExceeded naming the one that is over."""
        left: list[float] = []
        if self._end_at_s is not None:
            if now_s >= self._end_at_s:
                raise DeadlineExceeded(f"whole: the video did not end within {self._timeout_s:.4g} s")
            left.append(self._end_at_s - now_s)
        if self._start_at_s is not None and not self._begun:
            if now_s >= self._start_at_s:
                raise DeadlineExceeded(f"start: no work on the video began within {self._start_timeout_s:.4g} s")
            left.append(self._start_at_s - now_s)
        return min(left) if left else None


class Stopwatch:
    """When this client saw the draft and the final of a video it submitted, for ratings. All in seconds."""

    def __init__(self, *, submitted_at_s: float | None) -> None:
        self._submitted_at_s = submitted_at_s
        self.draft_wait_s: float | None = None
        self.final_wait_s: float | None = None

    def observe(self, video: Video, *, now_s: float) -> None:
        """Keep the first instant of each; a handle from another life of the process measures nothing."""
        if self._submitted_at_s is None:
            return
        if video.draft is not None and self.draft_wait_s is None:
            self.draft_wait_s = now_s - self._submitted_at_s
        if video.final is not None and self.final_wait_s is None:
            self.final_wait_s = now_s - self._submitted_at_s

    def experience(
        self, stars: int, stalls: int, stalled_s: float, draft_wait_s: float | None, final_wait_s: float | None
    ) -> Experience:
        """What a person says, with the waits that are given, else with those that were seen here."""
        return Experience(
            stars=stars,
            draft_wait_s=self.draft_wait_s if draft_wait_s is None else draft_wait_s,
            final_wait_s=self.final_wait_s if final_wait_s is None else final_wait_s,
            stalls=stalls,
            stalled_s=stalled_s,
        )
