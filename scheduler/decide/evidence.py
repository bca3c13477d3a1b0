"""What the two versions of a rollout did since its canary began: failures, times, stars. Pure.

Sessions are what is divided between versions, so sessions are what is counted: of each the first final, since those of
one session are alike and prove no more. A request without a session is one of its own.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from adaptivegen.jobs.rating import Rating
from adaptivegen.placement import Outcome
from scheduler.decide.sequential import Mean, Share

MAX_REMEMBERED = 65_536  # jobs and sessions that were counted, so that none counts twice


@dataclass(slots=True)
class Arm:
    """One version. failures: sessions whose first final failed at the first attempt; all_failures: the same of all
    finals; log_s: logarithm of a node's seconds for each million pixels."""

    failures: Share = field(default_factory=Share)
    all_failures: Share = field(default_factory=Share)
    log_s: Mean = field(default_factory=Mean)
    stars: Mean = field(default_factory=Mean)


class _Seen:
    """Names that were met, of the last ones."""

    def __init__(self) -> None:
        self._names: OrderedDict[Hashable, None] = OrderedDict()

    def met(self, name: Hashable) -> bool:
        """Whether it was met before; it is now."""
        if name in self._names:
            self._names.move_to_end(name)
            return True
        self._names[name] = None
        if len(self._names) > MAX_REMEMBERED:
            self._names.popitem(last=False)
        return False


class Evidence:
    """Of one rollout. at_stage: sessions of the candidate that there were when its stage began."""

    def __init__(self, line: str, stable: str, candidate: str) -> None:
        self.line = line
        self.versions = {stable: Arm(), candidate: Arm()}
        self.stable, self.candidate = self.versions[stable], self.versions[candidate]
        self.at_stage = 0
        self._jobs, self._sessions = _Seen(), _Seen()

    def __repr__(self) -> str:
        return f"Evidence({self.line}, {self.versions})"

    def begin_stage(self) -> None:
        """From now on the candidate serves another share."""
        self.at_stage = self.candidate.failures.count

    def outcome(self, outcome: Outcome) -> None:
        """How a job went. What counts, for either version, is whether its first attempt gave the final: a job that was
        made by another version, or whose worker was lost, tells nothing."""
        arm = self.versions.get(outcome.cloud_model)
        if arm is None or outcome.line != self.line or self._jobs.met(outcome.job_id):
            return
        made = outcome.status == "completed" and outcome.gpu_s > 0
        failed = outcome.failed_with == outcome.cloud_model and (made or outcome.status == "failed")
        if not failed and not (made and not outcome.failed_with and outcome.made_with in ("", outcome.cloud_model)):
            return
        arm.all_failures.add(failed)
        if outcome.session and self._sessions.met((outcome.tenant, outcome.session)):
            return
        arm.failures.add(failed)
        if not failed and outcome.pixels > 0:
            arm.log_s.add(math.log(outcome.gpu_s / (outcome.pixels / 1e6)))

    def rated(self, ratings: Iterable[Rating]) -> None:
        """All ratings since it began: what was said of a final by who made it."""
        stars = {version: Mean() for version in self.versions}
        for rating in ratings:
            if rating.final_size and rating.made_with in stars and rating.plan != "hit":
                stars[rating.made_with].add(float(rating.stars))
        for version, mean in stars.items():
            self.versions[version].stars = mean
