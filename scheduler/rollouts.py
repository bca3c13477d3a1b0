"""Rollouts: versions of models are tried, watched, promoted or rolled back, and operators are told of it.

What is due `decide.rollout` says; here it is looked at every second by each scheduler, and done by the first: a change
is made only from the state that was looked at. Each scheduler counts what it heard itself, since it began to listen;
one that is started in mid-rollout needs as much again to be convinced, and is no less careful.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.moment import store_now_ns
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, Conflict, InvalidRequest
from adaptivegen.models.card import ModelCard
from adaptivegen.models.lines import Line, Lines, why_no_successor
from adaptivegen.models.pushed import PushedModels
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.placement import Outcome
from adaptivegen.rpc.admin_rows import GateInfo, LineChangeInfo, LineInfo, LineNodeInfo
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import first_fault
from scheduler.decide.evidence import Evidence
from scheduler.decide.lines import started, steered, stepped
from scheduler.decide.rollout import (
    ALLOWED,
    Gate,
    Member,
    RolloutPlan,
    Step,
    card_gate,
    gates,
    next_step,
    told,
    waits_for,
)
from scheduler.decide.rollout import Clock as Lasted
from scheduler.decide.view import View
from scheduler.lines import LineChange, ServedLines
from scheduler.numbered import MAX_TEXT_CHARS
from scheduler.ratings import RatingsSince
from scheduler.steady import SteadyTime

LOOK_EVERY_S = 1.0
LOOK_FOR_EVERY_S = 5.0  # into the folders of models
RATINGS_EVERY_S = 30.0  # listing a store may cost money


@dataclass(slots=True)
class _Watched:
    """A rollout as this scheduler has followed it, in seconds of its own clock; time in which it is paused does not
    count."""

    line: Line
    evidence: Evidence
    began_s: float
    phase_s: float
    node_seen_s: float
    paused_s: float | None = None
    canary_s: float = 0.0  # when people began to see it
    ratings: RatingsSince | None = None

    def follow(self, line: Line, *, now_s: float) -> None:
        """Take over what has changed."""
        if line.paused and self.paused_s is None:
            self.paused_s = now_s
        elif not line.paused and self.paused_s is not None:
            self.began_s, self.phase_s = self.began_s + now_s - self.paused_s, self.phase_s + now_s - self.paused_s
            self.paused_s = None
        if (self.line.phase, self.line.percent) != (line.phase, line.percent):
            self.phase_s = now_s
            if self.line.phase != "canary":  # from now on both versions serve at the same time
                self.canary_s = now_s
                self.evidence = Evidence(self.evidence.line, line.stable, line.candidate or "")
            self.evidence.begin_stage()
        self.line = line

    def lasted(self, *, now_s: float) -> Lasted:
        """How long what goes on has lasted."""
        until_s = self.paused_s if self.paused_s is not None else now_s
        return Lasted(until_s - self.phase_s, until_s - self.began_s, now_s - self.node_seen_s)


class Rollouts:
    """Watches the rollouts under way; `run` must be running for them to go on."""

    def __init__(
        self,
        view: View,
        lines: ServedLines,
        library: ModelLibrary,
        blob: BlobStore,
        *,
        clock: Clock,
        time: SteadyTime,
        pushed: PushedModels | None = None,
    ) -> None:
        self._view = view
        self._lines = lines
        self._library = library
        self._blob = blob
        self._pushed = pushed
        self._clock = clock
        self._time = time
        self._watched: dict[str, _Watched] = {}
        self._in_force = Lines()
        self._looked_for_s = -math.inf

    # ---- what happens -----------------------------------------------------------------------------------------

    def heard(self, outcome: Outcome) -> None:
        """How a job went: its final, and its draft."""
        for line in dict.fromkeys((outcome.line, outcome.draft_line)):
            watched = self._watched.get(line)
            if watched is not None:
                watched.evidence.outcome(outcome)

    def look_for(self, model: str) -> None:
        """A model without a card is asked for: it may have been installed since the cards were read."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_for_s >= LOOK_FOR_EVERY_S:
            self._looked_for_s = now_s
            self._read_cards()

    def _read_cards(self) -> None:
        self._view.cards = {**self._view.cards, **self._library.cards()}

    async def run(self) -> None:
        """Look every second, until cancelled; what cannot be done now is looked at again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_rated())
            if self._pushed is not None:
                group.create_task(self._pushed.keep_cards(self._versions, self._clock))
            while True:
                await self.look()
                await self._clock.sleep(LOOK_EVERY_S)

    def _versions(self) -> list[str]:
        """All that serve or are tried."""
        return [version for line in self._lines.in_force.lines.values() for version in line.versions]

    async def _keep_rated(self) -> None:
        """Read what people rated; beside the looking, since a store may be slow."""
        while True:
            for name, watched in list(self._watched.items()):
                try:
                    await self.read_ratings(watched)
                except AdaptiveGenError as exc:
                    get_logger().warning("ratings_not_read", line=name, code=exc.code, error=exc.message)
            await self._clock.sleep(RATINGS_EVERY_S)

    async def read_ratings(self, watched: _Watched) -> None:
        """Of a rollout that people see; raises a storage error."""
        if watched.line.phase == "canary":
            if watched.ratings is None:
                now_ns = await store_now_ns(self._blob)  # which stamped the ratings, by a clock of its own
                lasted_s = self._clock.monotonic_s() - watched.canary_s
                watched.ratings = RatingsSince(self._blob, now_ns - round(lasted_s * 1e9))
            watched.evidence.rated(await watched.ratings.read())

    async def look(self) -> None:
        """Do what is due now."""
        self.follow(self._lines.in_force)
        for name, watched in list(self._watched.items()):
            try:
                await self._look(name, watched)
            except Conflict:
                continue  # another scheduler was first, or an operator
            except AdaptiveGenError as exc:
                get_logger().warning("rollout_waits", line=name, code=exc.code, error=exc.message)
        self.follow(self._lines.in_force)

    def follow(self, lines: Lines) -> None:
        """Take over what is in force: which rollouts there are, and when each phase began."""
        if lines is self._in_force:
            return
        self._in_force = lines
        if any(not set(line.versions) <= self._view.cards.keys() for line in lines.lines.values()):
            self._read_cards()
        now_s = self._clock.monotonic_s()
        for name, line in lines.lines.items():
            watched = self._watched.get(name)
            if line.candidate is None:
                self._watched.pop(name, None)
            elif watched is None or watched.line.rollout != line.rollout:
                evidence = Evidence(name, line.stable, line.candidate)
                paused_s = now_s if line.paused else None
                self._watched[name] = _Watched(line, evidence, now_s, now_s, now_s, paused_s, canary_s=now_s)
            else:
                watched.follow(line, now_s=now_s)

    async def _look(self, name: str, watched: _Watched) -> None:
        line, now_s = watched.line, self._clock.monotonic_s()
        members = self.members(name)
        if line.trial_node in members:
            watched.node_seen_s = now_s
        if not set(line.versions) <= self._view.cards.keys():
            self.look_for(line.stable)  # a card may have come since
        plan = self._lines.plan(name)
        step = next_step(line, plan, watched.evidence, members, watched.lasted(now_s=now_s), self._measured(line, plan))
        if step is not None:
            await self._take(name, line, step)

    def _measured(self, line: Line, plan: RolloutPlan) -> Gate:
        cards = self._view.cards
        return card_gate(cards.get(line.stable), cards.get(line.candidate or ""), plan)

    async def _take(self, name: str, seen: Line, step: Step) -> None:
        def make(line: Line, number: int) -> Line:
            if line != seen:
                raise Conflict(f"{name} was changed meanwhile")
            return stepped(line, step, self._lines.plan(name))

        by = f"{self._view.decider} by itself"
        made = await self._lines.change(name, step.action, make, by=by, reason=step.reason[:MAX_TEXT_CHARS])
        get_logger().info("rollout", line=name, action=step.action, reason=step.reason, number=made.number)

    def members(self, name: str) -> dict[str, Member]:
        """The healthy nodes that were started with this line."""
        now_ns = self._time.now_ns()
        return {
            node.report.node_id: Member(node.report.models, node.report.refused)
            for node in self._view.nodes
            if node.report.line == name and node.condition(now_ns) == "healthy"
        }

    # ---- what operators order ---------------------------------------------------------------------------------

    async def start(
        self, name: str, version: str, values: Mapping[str, object], *, by: str, reason: str
    ) -> LineChangeInfo:
        """Begin to try a version. Raises InvalidRequest, ModelNotFound, Conflict, a storage error."""
        plan = _plan(values)
        before = self._lines.in_force.lines.get(name) or Line(stable=self._library.card(name).name)
        if self._pushed is not None:
            await self._pushed.ensure_card(version)
        cards = self._library.cards()
        stable, candidate = self._library.card(before.stable), self._library.card(version)
        if (obstacle := why_no_successor(stable, candidate, self._in_service(cards))) is not None:
            raise InvalidRequest(f"{version} cannot take the place of {stable.name}: {obstacle}", param="version")
        gate = card_gate(stable, candidate, plan)
        if gate.verdict == "harm":
            raise InvalidRequest(f"{version} was measured to be too much worse: {told(gate)}", param="version")
        members = self.members(name)
        if not members:
            raise Conflict(f"no healthy node serves {name}, so nobody could try {version}", param="line")
        self._view.cards = {**self._view.cards, **cards}

        def make(line: Line, number: int) -> Line:
            if line.stable != stable.name:
                raise Conflict(f"{name} is served by {line.stable} since a moment; look at it and ask again")
            return started(name, line, version, node=min(members), number=number)

        made = await self._lines.change(name, "start", make, by=by, reason=reason, plan=plan)
        self.follow(self._lines.in_force)
        return change_info(made)

    def _in_service(self, cards: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
        """What serves or is tried now: all that nodes have loaded or are to load. What is only installed is checked
        when its turn comes; but as long as nothing is known of finals, everything that is installed counts."""
        lines = [self._lines.in_force.lines.get(node.report.line) for node in self._view.nodes]
        names = {version for line in lines if line is not None for version in line.versions}
        names |= {model for node in self._view.nodes for model in node.report.models}
        found = {name: cards[name] for name in names if name in cards}
        return found if any(card.role == "cloud" for card in found.values()) else dict(cards)

    async def steer(self, name: str, order: str, *, by: str, reason: str) -> LineChangeInfo:
        """Promote, roll back, pause, resume or revert. Raises InvalidRequest, Conflict, a storage error."""
        made = await self._lines.change(
            name, order, lambda line, number: steered(name, line, order), by=by, reason=reason
        )
        self.follow(self._lines.in_force)
        return change_info(made)

    # ---- what operators are told ------------------------------------------------------------------------------

    def known(self) -> list[LineInfo]:
        """Every line that was changed or that a node serves, by name."""
        served = {node.report.line for node in self._view.nodes if node.report.line}
        return [self._info(name) for name in sorted({*served, *self._lines.in_force.lines})]

    async def history(self, limit: int) -> list[LineChangeInfo]:
        """The last changes, newest first. Raises a storage error."""
        return [change_info(change) for change in await self._lines.history(limit)]

    def _info(self, name: str) -> LineInfo:
        line, plan, watched = self._lines.in_force.lines.get(name), self._lines.plan(name), self._watched.get(name)
        line = line or Line.model_construct(stable=name)
        members, now_s = self.members(name), self._clock.monotonic_s()
        found: tuple[Gate, ...] = ()
        waits: tuple[str, ...] = ()
        if watched is not None and line.candidate is not None:
            measured = self._measured(line, plan)
            found = gates(plan, watched.evidence, measured)
            waits = waits_for(line, plan, watched.evidence, members, watched.lasted(now_s=now_s), measured)
        return LineInfo(
            line=name,
            stable=line.stable,
            previous=line.previous or "",
            candidate=line.candidate or "",
            phase=line.phase,
            paused=line.paused,
            percent=line.percent,
            stages=plan.stages if line.candidate is not None else (),
            sessions=watched.evidence.candidate.failures.count if watched is not None else 0,
            phase_s=now_s - watched.phase_s if watched is not None else 0.0,
            gates=tuple(_gate_info(gate) for gate in found),
            nodes=tuple(
                LineNodeInfo(node_id, member.loaded, dict(member.refused))
                for node_id, member in sorted(members.items())
            ),
            waits_for=waits,
        )


def _plan(values: Mapping[str, object]) -> RolloutPlan:
    """A plan of what is said, and else the defaults; raises InvalidRequest naming the value."""
    try:
        return RolloutPlan.model_validate(dict(values))
    except ValidationError as exc:
        field, _, _ = first_fault(exc, whole="stages")
        name = field.partition(".")[0]  # of a list the whole is said
        said = values.get(name, ())
        shown = ",".join(f"{one:g}" for one in said) if isinstance(said, tuple) else said
        raise InvalidRequest.field(name, shown, ALLOWED.get(name, ", ".join(ALLOWED))) from exc


def _gate_info(gate: Gate) -> GateInfo:
    return GateInfo(
        name=gate.name,
        stable=gate.stable,
        candidate=gate.candidate,
        worse_low=gate.worse.low if math.isfinite(gate.worse.low) else None,
        worse_high=gate.worse.high if math.isfinite(gate.worse.high) else None,
        limit=gate.limit,
        verdict=gate.verdict,
        needed=gate.needed,
    )


def change_info(change: LineChange) -> LineChangeInfo:
    """A change, with the line that it was about as it is after it."""
    line = change.lines.get(change.line)
    return LineChangeInfo(
        number=change.number,
        line=change.line,
        action=change.action,
        stable=line.stable if line else "",
        candidate=(line.candidate or "") if line else "",
        phase=line.phase if line else "",
        percent=line.percent if line else 0.0,
        by=change.by,
        reason=change.reason,
        at_ns=change.at_ns,
    )
