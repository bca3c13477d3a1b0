"""What is asked and what is answered over HTTP: the messages of the admin service, field by field, as JSON.

What is asked is a strict model: its fields are path, query or body, and its limits are in the OpenAPI document. What
is answered holds the same rows as over gRPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from adaptivegen.rpc.admin_rows import (
    AuditInfo,
    DeadLetterInfo,
    DecisionInfo,
    JobInfo,
    LineChangeInfo,
    LineInfo,
    NodeInfo,
    PolicyChangeInfo,
    PolicyValueInfo,
    PoolInfo,
    QuotaChangeInfo,
    TenantInfo,
)
from scheduler.admin import DEFAULT_LIMIT, DEFAULT_RATINGS, MAX_DEAD_LETTERS, MAX_LIMIT, MAX_RATINGS, STATUSES
from scheduler.decide.elastic import MOST_WORKERS
from scheduler.decide.lines import ORDERS
from scheduler.decide.recent import MAX_DECISIONS
from scheduler.purge import DEFAULT_BATCH, MAX_BATCH, MAX_IDS

MAX_DIGITS = 18


def _digits(value: object) -> object:
    """Of a query nothing but digits is a number: not ` 1`, not `1.0`."""
    if not isinstance(value, str):
        return value
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
        raise ValueError("a whole number")
    return int(value)


Count = Annotated[int, BeforeValidator(_digits)]
Values = Annotated[dict[str, float], Field(description="New values, by name.")]
Reason = Annotated[str, Field(description="Why, for those who read the history.")]


class Asked(BaseModel):
    """Nothing is asked beyond the path."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class JobsAsked(Asked):
    """Which jobs to list."""

    tenant: str = Field("", description="Only this tenant's; empty: all.")
    status: str = Field("", description=f"Only jobs of this status: {', '.join(STATUSES)}; empty: all.")
    limit: Count = Field(0, ge=0, le=MAX_LIMIT, description=f"0: {DEFAULT_LIMIT}.")


class ExplainAsked(Asked):
    """Which job to explain."""

    job_id: str = Field(description="The job.")
    tenant: str = Field("", description="Whose it is; empty: searched for.")


class DecisionsAsked(Asked):
    """Which decisions to list."""

    tenant: str = Field("", description="Only of this tenant's requests; empty: of all.")
    limit: Count = Field(
        0, ge=0, le=MAX_LIMIT, description=f"0: {DEFAULT_LIMIT}. Only the last {MAX_DECISIONS} are kept."
    )


class LettersAsked(Asked):
    """How many dead letters to list."""

    limit: Count = Field(0, ge=0, le=MAX_DEAD_LETTERS, description=f"0: {DEFAULT_LIMIT}.")


class Limited(Asked):
    """How many to list."""

    limit: Count = Field(0, ge=0, le=MAX_LIMIT, description=f"0: {DEFAULT_LIMIT}.")


class RatingsAsked(Asked):
    """How many ratings to list."""

    limit: Count = Field(0, ge=0, le=MAX_RATINGS, description=f"0: {DEFAULT_RATINGS}.")


class Drain(Asked):
    """An order to take a node out of rotation, or to put it back."""

    node_id: str = Field(description="The node.")
    undo: bool = Field(False, description="Put it back.")


class Scale(Asked):
    """An order to have so many workers in rotation."""

    pool: str = Field(description="The pool.")
    workers: int = Field(ge=0, le=MOST_WORKERS, description="How many; must be said, also where it is 0.")


class PolicyOrder(Asked):
    """A change of the policy."""

    values: Values = {}
    unset: list[str] = Field([], description="Names that go back to the settings.")
    reason: Reason = ""


class QuotaOrder(Asked):
    """A change of a tenant's quota."""

    tenant: str = Field(description="The tenant; *: everybody who has no own values.")
    values: Values = {}
    unset: list[str] = Field([], description="Names that go back to everybody's.")
    reason: Reason = ""


class RolloutAsked(Asked):
    """Which version is to be tried, and how; what is null is as by default."""

    line: str = Field(description="The model as clients ask for it.")
    version: str = Field(description="The model that is to serve it.")
    reason: Reason = ""
    stages: list[float] = Field([], description="Percent of the sessions, growing.")
    stage_s: float | None = Field(None, description="Seconds that each stage lasts at least.")
    min_outcomes: int | None = Field(None, description="Sessions of the version at each stage.")
    max_s: float | None = Field(None, description="By when it must be promoted, else it is rolled back.")
    risk: float | None = Field(None, description="Of judging wrong, at each gate.")
    max_more_failures: float | None = Field(None, description="Share of clips by which more may fail.")
    max_slower: float | None = Field(None, description="Share by which it may be slower.")
    max_fewer_stars: float | None = Field(None, description="Of 5, by which it may be worse.")


class Steer(Asked):
    """An order on a rollout."""

    line: str = Field(description="The model as clients ask for it.")
    action: str = Field(description=", ".join(ORDERS))
    reason: Reason = ""


class PurgeAsked(Asked):
    """Which videos are to be purged: those of which all that is said holds; something must be said."""

    ids: list[str] = Field([], max_length=MAX_IDS, description="Ids of videos.")
    tenant: str = Field("", description="Of this tenant; empty: of all.")
    content_key: str = Field("", description="What repeats of one request share.")
    model: str = Field("", description="The version that made draft or final, by its name or its digest.")
    older_than_s: float | None = Field(None, ge=0, description="Accepted at least so many seconds ago.")
    dry_run: bool = Field(False, description="Only say how many there are, and how large.")
    after: str = Field("", description="Where the batch before ended (its `next`); empty: from the oldest.")
    limit: int = Field(0, ge=0, le=MAX_BATCH, description=f"Videos of this batch; 0: {DEFAULT_BATCH}.")
    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class Nodes:
    """All known nodes, by kind and id."""

    nodes: tuple[NodeInfo, ...]


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs, newest first."""

    jobs: tuple[JobInfo, ...]


@dataclass(frozen=True, slots=True)
class Decisions:
    """The last decisions, newest first."""

    decisions: tuple[DecisionInfo, ...]


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Messages that were given up, newest first."""

    letters: tuple[DeadLetterInfo, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """The state of a node after an order."""

    state: str


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of workers, by name."""

    pools: tuple[PoolInfo, ...]


@dataclass(frozen=True, slots=True)
class PolicyValues:
    """By what plans are weighed."""

    values: tuple[PolicyValueInfo, ...]


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The change that was made."""

    change: PolicyChangeInfo


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """The policy's changes, newest first."""

    changes: tuple[PolicyChangeInfo, ...]


@dataclass(frozen=True, slots=True)
class AuditEntries:
    """What operators ordered, newest first."""

    entries: tuple[AuditInfo, ...]


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants with their quotas and what they use, by name."""

    tenants: tuple[TenantInfo, ...]


@dataclass(frozen=True, slots=True)
class QuotaChanged:
    """The change that was made."""

    change: QuotaChangeInfo


@dataclass(frozen=True, slots=True)
class QuotaChanges:
    """The quotas' changes, newest first."""

    changes: tuple[QuotaChangeInfo, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """The models that are served, by name."""

    lines: tuple[LineInfo, ...]


@dataclass(frozen=True, slots=True)
class LineChanged:
    """The change that was made."""

    change: LineChangeInfo


@dataclass(frozen=True, slots=True)
class LineChanges:
    """Changes of lines, newest first."""

    changes: tuple[LineChangeInfo, ...]
