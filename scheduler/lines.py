"""Which version of each model is in force, and every change of that, who made it and why (`numbered`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import InvalidRequest
from adaptivegen.models.card import ModelName
from adaptivegen.models.lines import KEY, MAX_LINES, Line, Lines
from scheduler.decide.rollout import RolloutPlan
from scheduler.numbered import MAX_TEXT_CHARS, Change, Numbered, check_reason
from scheduler.steady import SteadyTime

PREFIX = "models/"


class LineChange(Change):
    """One change. line: that was changed, and how (action); lines: all, as they are after it; plans: of the rollouts
    under way. The broker's copy of it is what nodes read (`adaptivegen.desired`)."""

    line: Annotated[str, Field(max_length=63)] = ""
    action: Annotated[str, Field(max_length=40)] = ""
    lines: Annotated[dict[ModelName, Line], Field(max_length=MAX_LINES, default_factory=dict)]
    plans: Annotated[dict[ModelName, RolloutPlan], Field(max_length=MAX_LINES, default_factory=dict)]


class ServedLines(Numbered[LineChange]):
    """Keeps the lines in force, and changes them."""

    def __init__(self, bus: Bus, blob: BlobStore, *, clock: Clock, time: SteadyTime) -> None:
        self._time = time
        self.in_force = Lines()
        super().__init__(
            LineChange, "models", prefix=PREFIX, key=KEY, bus=bus, blob=blob, clock=clock, follow=self._put_in_force
        )

    def plan(self, name: str) -> RolloutPlan:
        """By which a rollout goes."""
        return (self.newest.plans.get(name) if self.newest is not None else None) or RolloutPlan()

    def _put_in_force(self, change: LineChange) -> None:
        self.in_force = Lines(lines=change.lines)

    async def change(
        self,
        name: str,
        action: str,
        make: Callable[[Line, int], Line],
        *,
        by: str,
        reason: str,
        plan: RolloutPlan | None = None,
    ) -> LineChange:
        """Change a line; make: the line after, from what it is and the number of the change.

        Raises what `make` raises, InvalidRequest, and what `append` raises.
        """
        check_reason(reason)

        def build(before: LineChange | None, number: int) -> LineChange:
            lines, plans = (dict(before.lines), dict(before.plans)) if before else ({}, {})
            after = make(lines.get(name) or Line(stable=name), number)
            lines[name] = after
            if len(lines) > MAX_LINES:
                raise InvalidRequest.field("line", name, f"at most {MAX_LINES} lines")
            if plan is not None:
                plans[name] = plan
            if after.candidate is None:
                plans.pop(name, None)
            return LineChange(
                number=number,
                by=by[:MAX_TEXT_CHARS],
                reason=reason,
                at_ns=self._time.now_ns(),
                line=name,
                action=action,
                lines=lines,
                plans=plans,
            )

        return await self.append(build)
