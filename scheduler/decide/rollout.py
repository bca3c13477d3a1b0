"""What becomes of a rollout next: load, wait, widen, promote, roll back. Pure.

A version is tried in steps: at one node, loaded at all, then for a share of the sessions that grows by stages. What
both versions did since is compared by intervals that may be looked at all the time (`sequential`). Harm ends a rollout
at any moment; to be promoted, the new version must be shown not to be worse by more than the plan allows: its quality
by the models' cards, or where these leave it open by the stars of those who saw it; else it waits for an operator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptivegen.models.card import ModelCard
from adaptivegen.models.lines import Line
from scheduler.decide.evidence import Evidence
from scheduler.decide.sequential import Interval

QUALITY = "measured quality"
LOAD_WITHIN_S = 300.0  # a candidate, at the node that tries it or at all
NODE_BACK_WITHIN_S = 30.0  # the node that tries it; then another does
LEAST_SPREAD = 0.02  # of the logarithm of times
LEAST_STARS = 0.5  # spread of stars
ANYTHING = Interval(-math.inf, math.inf)
INTOLERABLE = 0.5  # share of failures of all clips, also of one session, at which nothing need be compared
Verdict = Literal["harm", "passed", "open", "unmeasured"]
Action = Literal["retry", "load", "widen", "promote", "rollback"]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86400, allow_inf_nan=False)]


ALLOWED: Mapping[str, str] = {  # of a plan's values, in words
    "stages": "1 to 16 percentages above 0, to 100, each above the one before",
    "stage_s": "0 to 2592000 (30 days)",
    "min_outcomes": "1 to 1000000",
    "max_s": "above 0, to 2592000 (30 days)",
    "risk": "above 0, below 0.5",
    "max_more_failures": "above 0, to 1",
    "max_slower": "above 0, to 10",
    "max_fewer_stars": "above 0, to 4",
}


class RolloutPlan(BaseModel):
    """How a version is tried. stages: percent of sessions, growing; stage_s: seconds that each lasts at least;
    min_outcomes: sessions of the candidate before the next stage; max_s: by when it must be promoted; risk: of judging
    wrong, at each gate.

    By how much the candidate may be worse: max_more_failures (share of clips), max_slower (share of the seconds that a
    clip takes its node), max_fewer_stars (of 5, by the models' cards and by people who rated).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=1, max_length=16)] = (
        5.0,
        25.0,
        50.0,
    )
    stage_s: Seconds = 300.0
    min_outcomes: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    max_s: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] = 86400.0
    risk: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    max_more_failures: Share = 0.05
    max_slower: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.1
    max_fewer_stars: Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)] = 0.5

    @model_validator(mode="after")
    def _growing(self) -> Self:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {', '.join(f'{stage:g}' for stage in self.stages)} do not grow")
        return self


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison. worse: by how much the candidate is worse, at all moments at once; limit: that it may be.

    stable, candidate: what was seen of each; None before anything was. needed: whether it must be passed for a
    promotion, else only harm counts; comparable: whether there is something to compare with at all.
    """

    name: str
    stable: float | None
    candidate: float | None
    worse: Interval
    limit: float
    needed: bool = True
    intolerable: bool = False
    comparable: bool = True

    @property
    def verdict(self) -> Verdict:
        """What it says by now."""
        if not self.comparable:
            return "unmeasured"
        if self.worse.low > self.limit or self.intolerable:
            return "harm"
        return "passed" if self.worse.high <= self.limit else "open"


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the line in rotation: the versions it has loaded, and those that it could not load, with why."""

    loaded: tuple[str, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Clock:
    """How long things last, in seconds as this scheduler saw them begin. node_away_s: since the node that tries the
    candidate was heard of last."""

    phase_s: float
    rollout_s: float
    node_away_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done and why. percent: of the stage, where it widens; node: who tries it, where another is to."""

    action: Action
    reason: str
    percent: float = 0.0
    node: str = ""


def card_gate(stable: ModelCard | None, candidate: ModelCard | None, plan: RolloutPlan) -> Gate:
    """Quality as it was measured of the two models. Where the stable one was not measured, nothing can ever be compared
    and nothing is asked for; a card that is not known here may say anything."""
    known = stable is not None and candidate is not None
    old = stable.quality.get("mos") if stable is not None else None
    new = candidate.quality.get("mos") if candidate is not None else None
    comparable = old is not None or not known
    return Gate(
        QUALITY,
        old.value if old is not None else None,
        new.value if new is not None else None,
        Interval(old.low - new.high, old.high - new.low) if old is not None and new is not None else ANYTHING,
        plan.max_fewer_stars,
        needed=comparable,
        comparable=comparable,
    )


def gates(plan: RolloutPlan, evidence: Evidence, measured: Gate) -> tuple[Gate, ...]:
    """What was seen of both versions, compared, each interval with half of the plan's risk; and what was measured of
    them (`card_gate`), which need not show what stars have shown."""
    stable, candidate, risk = evidence.stable, evidence.candidate, plan.risk / 2
    failures = candidate.failures.interval(risk)
    stars = Gate(
        "stars",
        stable.stars.value if stable.stars.count else None,
        candidate.stars.value if candidate.stars.count else None,
        stable.stars.interval(risk, least_spread=LEAST_STARS).minus(
            candidate.stars.interval(risk, least_spread=LEAST_STARS)
        ),
        plan.max_fewer_stars,
        needed=False,
    )
    return (
        replace(measured, needed=measured.needed and stars.verdict != "passed"),
        Gate(
            "failures",
            stable.failures.value,
            candidate.failures.value,
            failures.minus(stable.failures.interval(risk)),
            plan.max_more_failures,
            intolerable=candidate.all_failures.interval(risk).low > INTOLERABLE,
        ),
        Gate(
            "seconds of a node",
            math.exp(stable.log_s.value) if stable.log_s.count else None,
            math.exp(candidate.log_s.value) if candidate.log_s.count else None,
            candidate.log_s.interval(risk, least_spread=LEAST_SPREAD).minus(
                stable.log_s.interval(risk, least_spread=LEAST_SPREAD)
            ),
            math.log1p(plan.max_slower),
        ),
        stars,
    )


def next_step(
    line: Line, plan: RolloutPlan, evidence: Evidence, members: Mapping[str, Member], clock: Clock, measured: Gate
) -> Step | None:
    """What is due now; None while there is nothing but to wait (`waits_for`). A paused rollout still ends at harm.
    measured: by the two models' cards."""
    candidate = line.candidate
    if candidate is None:
        return None
    refused = {node_id: member.refused[candidate] for node_id, member in members.items() if candidate in member.refused}
    if line.phase == "trial":
        return _trial(line, candidate, members, refused, clock)
    if line.phase == "loading":
        return _loading(line, candidate, members, refused, clock)
    return _canary(line, plan, evidence, members, clock, measured)


def waits_for(
    line: Line, plan: RolloutPlan, evidence: Evidence, members: Mapping[str, Member], clock: Clock, measured: Gate
) -> tuple[str, ...]:
    """What must come before the next step of a rollout, in words; nothing where it is due or none is under way."""
    if line.candidate is None:
        return ()
    paused = ("being resumed",) if line.paused else ()
    if line.phase == "trial":
        return (*paused, f"{line.trial_node or 'a node'} to load {line.candidate}")
    if line.phase == "loading":
        return (*paused, *_to_load(line.candidate, members))
    return (*paused, *_lacking(line, plan, evidence, members, clock, gates(plan, evidence, measured)))


def _trial(
    line: Line, candidate: str, members: Mapping[str, Member], refused: Mapping[str, str], clock: Clock
) -> Step | None:
    node = line.trial_node
    if node in refused:
        return Step("rollback", f"{candidate} does not load at {node}: {refused[node]}")
    if node in members and candidate in members[node].loaded:
        return None if line.paused else Step("load", f"{candidate} is loaded at {node} and has made a clip")
    if clock.rollout_s >= LOAD_WITHIN_S:
        return Step("rollback", f"{candidate} was not loaded within {LOAD_WITHIN_S:g} s")
    if node not in members and clock.node_away_s >= NODE_BACK_WITHIN_S and members:
        other = min(members)
        return Step("retry", f"{node or 'nobody'} is away, {other} tries {candidate}", node=other)
    return None


def _loading(
    line: Line, candidate: str, members: Mapping[str, Member], refused: Mapping[str, str], clock: Clock
) -> Step | None:
    if refused:
        node, reason = min(refused.items())
        return Step(
            "rollback", f"{candidate} does not load at {len(refused)} of {len(members)} nodes; {node}: {reason}"
        )
    if members and all(candidate in member.loaded for member in members.values()):
        return None if line.paused else Step("widen", f"{candidate} is loaded at all {len(members)} nodes")
    if clock.phase_s >= LOAD_WITHIN_S:
        lacking = sorted(node_id for node_id, member in members.items() if candidate not in member.loaded)
        return Step("rollback", f"{candidate} was not loaded within {LOAD_WITHIN_S:g} s by {', '.join(lacking)}")
    return None


def _canary(
    line: Line, plan: RolloutPlan, evidence: Evidence, members: Mapping[str, Member], clock: Clock, measured: Gate
) -> Step | None:
    found = gates(plan, evidence, measured)
    harm = [gate for gate in found if gate.verdict == "harm"]
    if harm:
        return Step("rollback", "; ".join(told(gate) for gate in harm))
    if line.paused:
        return None
    lacking = _lacking(line, plan, evidence, members, clock, found)
    if lacking and clock.rollout_s < plan.max_s:
        return None
    if lacking:
        return Step("rollback", f"not proven within {plan.max_s:g} s, for want of: {'; '.join(lacking)}")
    wider = _wider(line, plan)
    if wider is None:
        return Step("promote", "; ".join(told(gate) for gate in found if gate.verdict != "open"))
    count = evidence.candidate.failures.count
    return Step("widen", f"{count} sessions at up to {line.percent:g} % and no harm seen", percent=wider)


def _wider(line: Line, plan: RolloutPlan) -> float | None:
    """The next stage; None at the last."""
    return next((stage for stage in plan.stages if stage > line.percent), None)


def _lacking(
    line: Line,
    plan: RolloutPlan,
    evidence: Evidence,
    members: Mapping[str, Member],
    clock: Clock,
    found: tuple[Gate, ...],
) -> tuple[str, ...]:
    """What a canary has not yet of what its next stage needs, or at its last a promotion."""
    last = _wider(line, plan) is None
    sessions = evidence.candidate.failures.count - (0 if last else evidence.at_stage)
    lacking = []
    if clock.phase_s < plan.stage_s:
        lacking.append(f"this stage to last {plan.stage_s:g} s")
    if sessions < plan.min_outcomes:
        lacking.append(f"{plan.min_outcomes - sessions} more sessions of {line.candidate}")
    if last:
        lacking += _to_load(line.candidate or "", members)
        lacking += [_to_show(gate) for gate in found if gate.needed and gate.verdict == "open"]
    return tuple(lacking)


def _to_load(candidate: str, members: Mapping[str, Member]) -> tuple[str, ...]:
    missing = sorted(node_id for node_id, member in members.items() if candidate not in member.loaded)
    return (f"{', '.join(missing)} to load {candidate}",) if missing else ()


def _to_show(gate: Gate) -> str:
    if gate.name != QUALITY:
        return told(gate)
    return f"stars that show it to be good enough, or an operator to promote it ({told(gate)})"


def told(gate: Gate) -> str:
    """A gate in words."""
    seen = [f"{value:.4g}" if value is not None else "nothing" for value in (gate.candidate, gate.stable)]
    if gate.verdict == "unmeasured":
        return f"{gate.name}: {seen[0]} against {seen[1]}, cannot be compared"
    words = {"harm": "is worse", "passed": "is not worse", "open": "may be worse"}
    return f"{gate.name}: {seen[0]} against {seen[1]}, {words[gate.verdict]} by more than {gate.limit:.3g}"
