"""What the spool decides: which errors are a cut, what has room, who owns an id, what is asked on return. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    DeadlineExceeded,
    ResourceExhausted,
    StorageFailure,
    StorageFull,
    StorageReadOnly,
    StoreUnsafe,
    Unavailable,
)
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.placement import FINAL_PLANS, Decision
from edge_node.spool.own_store import SpoolFailure

RETRY_S = 5.0  # when to ask again for what is not known, or has no room, while cut off
ALLOWANCE_BYTES = 1024 * 1024  # what a job may take before its draft is made
State = Literal["absent", "spooled", "begun"]
Side = Literal["centre", "spool"]


def is_cut(error: AdaptiveGenError) -> bool:
    """Whether the error says that broker or store cannot be reached. A store that is full or read-only was reached."""
    if isinstance(error, (StorageFull, StorageReadOnly, SpoolFailure)):  # the last is this edge's own disk
        return False
    return isinstance(error, (BrokerUnavailable, StorageFailure, StoreUnsafe, DeadlineExceeded))


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """What the spool may hold."""

    max_jobs: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class CutOff:
    """What an edge says of itself while it is cut off: why, for how many seconds, how many jobs wait, whether one more
    has room."""

    why: str
    for_s: float
    jobs: int
    has_room: bool


@dataclass(frozen=True, slots=True)
class Later:
    """A scheduler's answer that a final has no room now: when to ask again, and whether that is about its tenant alone;
    code: of the refusal."""

    retry_after_s: float
    of_tenant: bool
    code: str


class PutOff(ResourceExhausted):
    """A spooled job waits at its edge for so long, since the schedulers have no room."""


def check_room(limits: SpoolLimits, *, jobs: int, used_bytes: int, needed_bytes: int) -> None:
    """Raise ResourceExhausted unless one more job that brings `needed_bytes` has room. Drafts that are not made yet
    count with what they may take."""
    held_bytes = max(used_bytes, jobs * ALLOWANCE_BYTES)
    if jobs >= limits.max_jobs:
        why = f"it holds {jobs} jobs"
    elif held_bytes + needed_bytes + ALLOWANCE_BYTES > limits.max_bytes:
        why = f"its jobs may take {held_bytes} of {limits.max_bytes} bytes"
    else:
        return
    raise ResourceExhausted(f"this edge is cut off and its spool is full: {why}", retry_after_s=RETRY_S)


def sides_to_read(state: State, *, cut_off: bool) -> tuple[Side, ...]:
    """Where a video is looked for, in this order: the next where the one before does not know it or cannot say."""
    if state == "absent":
        return ("centre",)
    return ("spool",) if state == "spooled" or cut_off else ("centre", "spool")


def side_to_change(state: State, *, cut_off: bool) -> Side:
    """Which side's record a cancel or an upgrade changes. Raises Unavailable for a job that the centre may have begun
    while nobody can ask it: what is promised here could be too late there."""
    if state == "spooled":
        return "spool"
    if state == "begun" and cut_off:
        raise Unavailable("this video is on its way from this edge, which is cut off now", retry_after_s=RETRY_S)
    return "centre"


def not_known_here(video_id: str, why: str) -> Unavailable:
    """The answer about a video that only the centre knows."""
    return Unavailable(f"this edge is cut off and does not know {video_id!r} ({why})", retry_after_s=RETRY_S)


def spooled_note(edge_id: str, why: str) -> str:
    """What a spooled video says of itself."""
    return f"kept at {edge_id}, which is cut off ({why}); its final begins when the edge is back"


def sheltered_note(edge_id: str) -> str:
    """What a video says whose draft was made when its edge had just been cut off."""
    return f"its draft is kept at {edge_id}, which is cut off; how its final is, only the centre knows"


def handed_note(edge_id: str, *, after_s: float) -> str:
    """What it says once it was handed over."""
    return f"accepted by {edge_id} while it was cut off, handed over after {max(0.0, after_s):.0f} s"


def on_return(spec: JobSpec, decided: Decision | None, *, held_by: str) -> Decision:
    """The decision that is handed over: the new one where it makes a final here, else the edge's own. held_by: the job
    that the idempotency key belongs to, empty where it is this one's."""
    taken = decided is not None and decided.plan in FINAL_PLANS and decided.edge_id == spec.decision.edge_id
    decision = decided if taken and decided is not None else spec.decision
    reasons = decision.reasons
    if taken:
        reasons = (*reasons, *(f"before, while cut off: {reason}" for reason in spec.decision.reasons[:1]))
    if held_by:
        reasons = (*reasons, f"its idempotency key belongs to {held_by}, accepted elsewhere: both stand")
    # the draft was made here, or will not be: nobody else is to draft
    return decision.model_copy(update={"reasons": reasons, "draft_edge_id": "", "backup_edge_id": ""})


def deadline_left_s(deadline_s: float | None, *, age_s: float) -> float | None:
    """What is left of a deadline; None where there was none, or it is over: then soon is all that can be asked for."""
    if deadline_s is None or deadline_s <= age_s:
        return None
    return deadline_s - age_s
