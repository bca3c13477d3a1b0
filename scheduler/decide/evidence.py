"""What the two versions of a rollout did since its canary began: failures, times, stars. Pure.

Sessions are what is divided between versions, so sessions are what is counted: of each the first clip, since those of
one session are alike and prove no more. A request without a session is one of its own. The clips of a line of draft
models are the drafts, those of another the finals.
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
    """One version. failures: sessions whose first clip failed at the first attempt; all_failures: the same of all
    clips; log_s: logarithm of a node's seconds for each million pixels."""

    failures: Share = field(default_factory=Share)
    all_failures: Share = field(default_factory=Share)
    log_s: Mean = field(default_factory=Mean)
    stars: Mean = field(default_factory=Mean)


@dataclass(frozen=True, slots=True)
class Clip:
    """What an outcome says of one of its clips. asked: the version that was to make it, made_with: the one that did;
    failed_with: the one with which the first attempt that failed was made; ended: whether there will be no other."""

    asked: str
    made_with: str
    failed_with: str
    made: bool
    ended: bool
    seconds: float
    pixels: float

    def failed(self) -> bool | None:
        """Whether its first attempt did; None where it tells nothing: it was made by another version, or what was to
        make it was lost."""
        if self.failed_with == self.asked and (self.made or self.ended):
            return True
        return False if self.made and not self.failed_with and self.made_with in ("", self.asked) else None


def final_of(outcome: Outcome) -> Clip:
    """The final."""
    return Clip(
        asked=outcome.cloud_model,
        made_with=outcome.made_with,
        failed_with=outcome.failed_with,
        made=outcome.status == "completed" and outcome.gpu_s > 0,
        ended=outcome.status == "failed",
        seconds=outcome.gpu_s,
        pixels=outcome.pixels,
    )


def draft_of(outcome: Outcome) -> Clip:
    """The draft; its job may go on without one."""
    return Clip(
        asked=outcome.draft_model,
        made_with=outcome.drafted_with,
        failed_with=outcome.draft_failed_with,
        made=bool(outcome.drafted_with) and outcome.draft_node_s > 0,
        ended=outcome.status in ("completed", "failed"),
        seconds=outcome.draft_node_s,
        pixels=outcome.draft_pixels,
    )


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
        """How a job went. What counts, for either version, is whether its first attempt gave the clip."""
        if self.line not in (outcome.line, outcome.draft_line):
            return
        clip = final_of(outcome) if outcome.line == self.line else draft_of(outcome)
        arm, failed = self.versions.get(clip.asked), clip.failed()
        if arm is None or failed is None or self._jobs.met(outcome.job_id):
            return
        arm.all_failures.add(failed)
        if outcome.session and self._sessions.met((outcome.tenant, outcome.session)):
            return
        arm.failures.add(failed)
        if not failed and clip.pixels > 0:
            arm.log_s.add(math.log(clip.seconds / (clip.pixels / 1e6)))

    def rated(self, ratings: Iterable[Rating]) -> None:
        """All ratings since it began: what was said of a clip by who made it. Where there is a final, it is that which
        was rated, else the draft. Of a session the first counts, as of its clips."""
        stars = {version: Mean() for version in self.versions}
        counted: set[tuple[str, str]] = set()
        for rating in ratings:
            made_with = rating.made_with if rating.final_size else rating.drafted_with
            session = (rating.tenant, rating.session)
            if made_with not in stars or rating.plan == "hit" or (rating.session and session in counted):
                continue
            counted.add(session)
            stars[made_with].add(float(rating.stars))
        for version, mean in stars.items():
            self.versions[version].stars = mean
