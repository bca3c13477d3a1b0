"""What the two versions of a rollout did since it began: failures, times, stars. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from adaptivegen.jobs.rating import Rating
from adaptivegen.placement import Outcome
from scheduler.decide.sequential import Mean, Share

MAX_REMEMBERED = 16_384  # jobs whose outcome was counted, so that none counts twice


@dataclass(slots=True)
class Arm:
    """One version. log_s: logarithm of a node's seconds for each step of each million pixels."""

    failures: Share = field(default_factory=Share)
    log_s: Mean = field(default_factory=Mean)
    stars: Mean = field(default_factory=Mean)


class Evidence:
    """Of one rollout. at_stage: finals of the candidate that were there when its stage began."""

    def __init__(self, line: str, stable: str, candidate: str) -> None:
        self.line = line
        self.versions = {stable: Arm(), candidate: Arm()}
        self.stable, self.candidate = self.versions[stable], self.versions[candidate]
        self.at_stage = 0
        self._counted: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"Evidence({self.line}, {self.versions})"

    def begin_stage(self) -> None:
        """From now on the candidate serves another share."""
        self.at_stage = self.candidate.failures.count

    def outcome(self, outcome: Outcome) -> None:
        """How a job went: its decided version failed, was given up for the stable one, or made the final."""
        arm = self.versions.get(outcome.cloud_model)
        ended = outcome.status == "failed" or (outcome.status == "completed" and outcome.gpu_s > 0)
        if arm is None or outcome.line != self.line or not ended or outcome.job_id in self._counted:
            return
        self._counted[outcome.job_id] = None
        if len(self._counted) > MAX_REMEMBERED:
            self._counted.popitem(last=False)
        if outcome.given_up == outcome.cloud_model or outcome.status == "failed":
            arm.failures.add(True)
        elif outcome.made_with == outcome.cloud_model:
            arm.failures.add(False)
            if outcome.work > 0:
                arm.log_s.add(math.log(outcome.gpu_s / (outcome.work / 1e6)))

    def rated(self, ratings: Iterable[Rating]) -> None:
        """All ratings since it began: what was said of a final by who made it."""
        stars = {version: Mean() for version in self.versions}
        for rating in ratings:
            if rating.final_size and rating.made_with in stars and rating.plan != "hit":
                stars[rating.made_with].add(float(rating.stars))
        for version, mean in stars.items():
            self.versions[version].stars = mean
