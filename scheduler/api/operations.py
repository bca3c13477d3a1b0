"""The one table of what can be asked of the admin service over HTTP: routes and OpenAPI document are made from it.

An operation is a small function: the type of what it takes says the parameters, the type of what it returns the
answer, its docstring what it does. A test holds the table against the gRPC service.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from adaptivegen.roles import Role
from adaptivegen.rpc.admin import AdminBackend
from adaptivegen.rpc.admin_rows import (
    Explanation,
    JobFilter,
    Predictions,
    Purged,
    PurgeOrder,
    Ratings,
    RolloutOrder,
    Scaled,
)
from scheduler.api.messages import (
    Asked,
    AuditEntries,
    DeadLetters,
    Decisions,
    DecisionsAsked,
    Drain,
    Drained,
    ExplainAsked,
    Jobs,
    JobsAsked,
    LettersAsked,
    Limited,
    LineChanged,
    LineChanges,
    Lines,
    Nodes,
    PolicyChanged,
    PolicyChanges,
    PolicyOrder,
    PolicyValues,
    Pools,
    PurgeAsked,
    QuotaChanged,
    QuotaChanges,
    QuotaOrder,
    RatingsAsked,
    RolloutAsked,
    Scale,
    Steer,
    Tenants,
)

ROOT = "/v1/admin"
_IN_PATH = re.compile(r"\{([a-z_]+)\}")
Run = Callable[[AdminBackend, Any, str], Awaitable[Any]]  # the backend, what is asked, and by whom


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of AdminService over HTTP. rpc: its name there; path: below ROOT; role: that is needed for it."""

    rpc: str
    method: Literal["GET", "POST"]
    path: str
    role: Role
    run: Run

    @property
    def asked(self) -> type[Asked]:
        """What it takes."""
        found: type[Asked] = get_type_hints(self.run)["asked"]
        return found

    @property
    def answer(self) -> type[Any]:
        """What it returns."""
        found: type[Any] = get_type_hints(self.run)["return"]
        return found

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of the fields that are in the path; the others are in the query of a GET, in the body of a POST."""
        return tuple(_IN_PATH.findall(self.path))

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The names of those others."""
        return tuple(name for name in self.asked.model_fields if name not in self.in_path)

    @property
    def summary(self) -> str:
        """What it does."""
        return " ".join((self.run.__doc__ or "").split())


async def _nodes(admin: AdminBackend, asked: Asked, by: str) -> Nodes:
    """The node table as this scheduler sees it now."""
    return Nodes(tuple(await admin.nodes()))


async def _jobs(admin: AdminBackend, asked: JobsAsked, by: str) -> Jobs:
    """Jobs, newest first."""
    return Jobs(tuple(await admin.jobs(JobFilter(asked.tenant, asked.status, asked.limit))))


async def _explain(admin: AdminBackend, asked: ExplainAsked, by: str) -> Explanation:
    """Why a job was placed as it was, and what became of it."""
    return await admin.explain(asked.job_id, asked.tenant)


async def _decisions(admin: AdminBackend, asked: DecisionsAsked, by: str) -> Decisions:
    """The last decisions of this scheduler, refusals with them, newest first."""
    return Decisions(tuple(await admin.decisions(asked.tenant, asked.limit)))


async def _dead_letters(admin: AdminBackend, asked: LettersAsked, by: str) -> DeadLetters:
    """Messages that were given up, newest first."""
    return DeadLetters(tuple(await admin.dead_letters(asked.limit)))


async def _predictions(admin: AdminBackend, asked: Asked, by: str) -> Predictions:
    """What this scheduler has learned: how fast nodes are, and how good its predictions were."""
    return await admin.predictions()


async def _drain(admin: AdminBackend, asked: Drain, by: str) -> Drained:
    """Takes a node out of (or back into) rotation; running work finishes."""
    return Drained(await admin.drain(asked.node_id, asked.undo, by=by))


async def _pools(admin: AdminBackend, asked: Asked, by: str) -> Pools:
    """The pools of workers: their load, and how many workers each should have."""
    return Pools(tuple(await admin.pools()))


async def _scale(admin: AdminBackend, asked: Scale, by: str) -> Scaled:
    """Brings the number of a pool's workers in rotation to a number; machines are started and ended by others."""
    return await admin.scale(asked.pool, asked.workers, by=by)


async def _policy(admin: AdminBackend, asked: Asked, by: str) -> PolicyValues:
    """By what plans are weighed now, and by what the scheduler was started with."""
    return PolicyValues(tuple(await admin.policy()))


async def _set_policy(admin: AdminBackend, asked: PolicyOrder, by: str) -> PolicyChanged:
    """Changes the policy of all schedulers."""
    return PolicyChanged(await admin.set_policy(asked.values, asked.unset, by=by, reason=asked.reason))


async def _ratings(admin: AdminBackend, asked: RatingsAsked, by: str) -> Ratings:
    """What people said of videos, with what their clients saw; newest first."""
    return await admin.ratings(asked.limit)


async def _policy_changes(admin: AdminBackend, asked: Limited, by: str) -> PolicyChanges:
    """The policy's changes, newest first."""
    return PolicyChanges(tuple(await admin.policy_changes(asked.limit)))


async def _audit(admin: AdminBackend, asked: Limited, by: str) -> AuditEntries:
    """All that operators ordered, newest first."""
    return AuditEntries(tuple(await admin.audit(asked.limit)))


async def _tenants(admin: AdminBackend, asked: Asked, by: str) -> Tenants:
    """Tenants with their quotas and what they use of them."""
    return Tenants(tuple(await admin.tenants()))


async def _set_quota(admin: AdminBackend, asked: QuotaOrder, by: str) -> QuotaChanged:
    """Changes a tenant's quota, or everybody's (tenant *), for all schedulers."""
    made = await admin.set_quota(asked.tenant, asked.values, asked.unset, by=by, reason=asked.reason)
    return QuotaChanged(made)


async def _quota_changes(admin: AdminBackend, asked: Limited, by: str) -> QuotaChanges:
    """The quotas' changes, newest first."""
    return QuotaChanges(tuple(await admin.quota_changes(asked.limit)))


async def _lines(admin: AdminBackend, asked: Asked, by: str) -> Lines:
    """The models that are served: by which version each, and what is known of a new one that is tried."""
    return Lines(tuple(await admin.lines()))


async def _start_rollout(admin: AdminBackend, asked: RolloutAsked, by: str) -> LineChanged:
    """Begins to try a version: at one node, loaded at all, then for a growing share of the sessions."""
    said = asked.model_dump(exclude={"stages"})
    return LineChanged(await admin.start_rollout(RolloutOrder(**said, stages=tuple(asked.stages)), by=by))


async def _steer_rollout(admin: AdminBackend, asked: Steer, by: str) -> LineChanged:
    """Promotes, rolls back, pauses or resumes a rollout; revert goes back to the version before."""
    return LineChanged(await admin.steer_rollout(asked.line, asked.action, by=by, reason=asked.reason))


async def _line_changes(admin: AdminBackend, asked: Limited, by: str) -> LineChanges:
    """What was done with lines, by people and by itself, newest first."""
    return LineChanges(tuple(await admin.line_changes(asked.limit)))


async def _purge_caches(admin: AdminBackend, asked: PurgeAsked, by: str) -> Purged:
    """Has all caches let go of videos, so that they are fetched anew; a batch of them."""
    return await admin.purge_caches(_order(asked), by=by)


async def _purge_videos(admin: AdminBackend, asked: PurgeAsked, by: str) -> Purged:
    """Deletes videos, whoever they belong to; a batch of them."""
    return await admin.purge_videos(_order(asked), by=by)


def _order(asked: PurgeAsked) -> PurgeOrder:
    return PurgeOrder(**asked.model_dump(exclude={"ids"}), ids=tuple(asked.ids))


OPERATIONS: tuple[Operation, ...] = (
    Operation("ListNodes", "GET", "/nodes", "viewer", _nodes),
    Operation("ListJobs", "GET", "/jobs", "viewer", _jobs),
    Operation("ExplainJob", "GET", "/jobs/{job_id}/explain", "viewer", _explain),
    Operation("ListDecisions", "GET", "/decisions", "viewer", _decisions),
    Operation("ListDeadLetters", "GET", "/dead-letters", "viewer", _dead_letters),
    Operation("ListPredictions", "GET", "/predictions", "viewer", _predictions),
    Operation("DrainNode", "POST", "/nodes/{node_id}/drain", "operator", _drain),
    Operation("ListPools", "GET", "/pools", "viewer", _pools),
    Operation("ScalePool", "POST", "/pools/{pool}/scale", "operator", _scale),
    Operation("GetPolicy", "GET", "/policy", "viewer", _policy),
    Operation("SetPolicy", "POST", "/policy", "admin", _set_policy),
    Operation("ListRatings", "GET", "/ratings", "viewer", _ratings),
    Operation("ListPolicyChanges", "GET", "/policy/changes", "viewer", _policy_changes),
    Operation("ListAudit", "GET", "/audit", "viewer", _audit),
    Operation("ListTenants", "GET", "/tenants", "viewer", _tenants),
    Operation("SetQuota", "POST", "/tenants/{tenant}/quota", "admin", _set_quota),
    Operation("ListQuotaChanges", "GET", "/quotas/changes", "viewer", _quota_changes),
    Operation("ListLines", "GET", "/lines", "viewer", _lines),
    Operation("StartRollout", "POST", "/lines/{line}/rollout", "admin", _start_rollout),
    Operation("SteerRollout", "POST", "/lines/{line}/steer", "operator", _steer_rollout),
    Operation("ListLineChanges", "GET", "/lines/changes", "viewer", _line_changes),
    Operation("PurgeCaches", "POST", "/purge/caches", "operator", _purge_caches),
    Operation("PurgeVideos", "POST", "/purge/videos", "admin", _purge_videos),
)
