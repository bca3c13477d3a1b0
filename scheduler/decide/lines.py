"""How a line changes: by what is due in a rollout, and by what operators order. Pure."""

from __future__ import annotations

from typing import Literal, get_args

from adaptivegen.errors import Conflict, InvalidRequest
from adaptivegen.models.lines import Line
from scheduler.decide.rollout import RolloutPlan, Step

Order = Literal["promote", "rollback", "pause", "resume", "revert"]
ORDERS: tuple[Order, ...] = get_args(Order)


def started(name: str, line: Line, version: str, *, node: str, number: int) -> Line:
    """A version begins to be tried, at one node; raises Conflict."""
    if line.candidate is not None:
        raise Conflict(f"{line.candidate} is being tried for {name}; promote it or roll it back first", param="line")
    if version == line.stable:
        raise Conflict(f"{version} serves {name} already", param="version")
    begun = {"candidate": version, "phase": "trial", "trial_node": node, "rollout": number, "percent": 0.0}
    return line.model_copy(update={**begun, "paused": False})


def stepped(line: Line, step: Step, plan: RolloutPlan) -> Line:
    """After what was due."""
    if step.action == "retry":
        return line.model_copy(update={"trial_node": step.node})
    if step.action == "load":
        return line.model_copy(update={"phase": "loading"})
    if step.action == "widen":
        return line.model_copy(update={"phase": "canary", "percent": step.percent or plan.stages[0]})
    return _promoted(line) if step.action == "promote" else _rolled_back(line)


def steered(name: str, line: Line, order: str) -> Line:
    """After what an operator ordered; raises InvalidRequest, Conflict."""
    if order not in ORDERS:
        raise InvalidRequest.field("action", order[:40], ", ".join(ORDERS))
    if order == "revert":
        if line.candidate is not None:
            raise Conflict(f"{line.candidate} is being tried for {name}; roll it back first", param="action")
        if line.previous is None:
            raise Conflict(f"no version before {line.stable} is known of {name}", param="action")
        return line.model_copy(update={"stable": line.previous, "previous": None})  # twice is not back and forth
    if line.candidate is None:
        raise Conflict(f"no version is being tried for {name}", param="action")
    if order == "promote":
        if line.phase != "canary":
            raise Conflict(f"{line.candidate} is not loaded at all nodes of {name} yet", param="action")
        return _promoted(line)
    if order == "rollback":
        return _rolled_back(line)
    if line.paused == (order == "pause"):
        state = "is paused already" if line.paused else "is not paused"
        raise Conflict(f"the rollout of {line.candidate} {state}; nothing was changed", param="action")
    return line.model_copy(update={"paused": order == "pause"})


_ENDED: dict[str, object] = {"candidate": None, "phase": "steady", "percent": 0.0, "trial_node": "", "paused": False}


def _promoted(line: Line) -> Line:
    return line.model_copy(update={**_ENDED, "stable": line.candidate, "previous": line.stable})


def _rolled_back(line: Line) -> Line:
    return line.model_copy(update=_ENDED)
