"""What operators may ask and order: nodes, jobs, why a job was placed so, drains.

Reads the node table and the jobs' store; what is changed, `Drains`, `Scaling` and `Policies` change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import get_args

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.bus.base import DeadLetter
from adaptivegen.errors import BrokerUnavailable, InternalError, InvalidRequest, NotFound
from adaptivegen.ids import check_name
from adaptivegen.jobs.record import JobRecord, Status
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.rpc.admin_rows import (
    AuditInfo,
    DeadLetterInfo,
    DecisionInfo,
    Explanation,
    JobFilter,
    JobInfo,
    LineChangeInfo,
    LineInfo,
    NodeInfo,
    PolicyChangeInfo,
    PolicyValueInfo,
    PoolInfo,
    Predictions,
    Purged,
    PurgeOrder,
    QuotaChangeInfo,
    Ratings,
    RolloutOrder,
    Scaled,
    TenantInfo,
)
from scheduler.audit import Audit
from scheduler.decide.elastic import Advice, ScaleOrder
from scheduler.decide.node import Node
from scheduler.decide.recent import Recent
from scheduler.decide.view import View
from scheduler.drains import Drains
from scheduler.explain import Explainer, job_info
from scheduler.policies import Policies
from scheduler.predictions import predictions
from scheduler.purge import Kind, Purger, target, told
from scheduler.quotas import TenantQuotas
from scheduler.ratings import gather
from scheduler.rollouts import Rollouts
from scheduler.scaling import Scaling
from scheduler.steady import SteadyTime
from scheduler.tenants import change_info, tenants

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_DEAD_LETTERS = 200  # each is a request to the broker
DEFAULT_RATINGS, MAX_RATINGS = 2000, 5000
MAX_EXAMINED = 5000  # jobs read to fill one filtered list
STATUSES: tuple[str, ...] = get_args(Status)


class Admin:
    """Answers the admin service."""

    def __init__(
        self,
        view: View,
        jobs: JobStore,
        *,
        recent: Recent,
        drains: Drains,
        scaling: Scaling,
        policies: Policies,
        quotas: TenantQuotas,
        rollouts: Rollouts,
        purger: Purger,
        audit: Audit,
        time: SteadyTime,
    ) -> None:
        self._explainer = Explainer(jobs, recent, view.cards)
        self._audit = audit
        self._view = view
        self._nodes = view.nodes
        self._learned = view.learned
        self._jobs = jobs
        self._scaling = scaling
        self._policies = policies
        self._quotas = quotas
        self._rollouts = rollouts
        self._purger = purger
        self._drains = drains
        self._time = time

    async def nodes(self) -> list[NodeInfo]:
        """All known nodes, by kind and id."""
        now_ns = self._time.now_ns()
        found = [_node_info(node, now_ns, self._factor(node), self._view.state(node, now_ns)) for node in self._nodes]
        return sorted(found, key=lambda node: (node.kind, node.node_id))

    def _factor(self, node: Node) -> float:
        """Of what the node reports by its card: edges do."""
        report = node.report
        edge = report.kind == "edge" and report.models
        return self._learned.edge_factor(report.node_id, report.models[0]) if edge else 1.0

    async def predictions(self) -> Predictions:
        """How fast nodes are, how good predictions were, and what else they rest on."""
        return predictions(self._view, now_ns=self._time.now_ns())

    async def jobs(self, wanted: JobFilter) -> list[JobInfo]:
        """Jobs newest first; raises InvalidRequest for a filter that can match nothing."""
        if wanted.tenant:
            check_name(wanted.tenant, field="tenant")
        if wanted.status and wanted.status not in STATUSES:
            raise InvalidRequest.field("status", wanted.status, ", ".join(STATUSES))
        limit = _limited(wanted.limit)
        self._require_broker()
        newest = [pair for pair in reversed(await self._jobs.index.tenants_and_ids()) if wanted.tenant in ("", pair[0])]
        found: list[JobInfo] = []
        for start in range(0, min(len(newest), MAX_EXAMINED), AT_ONCE):
            records = await read_all(newest[start : start + AT_ONCE], self._find)
            found += [job_info(record) for record in records if record and wanted.status in ("", record.status)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _find(self, pair: tuple[str, str]) -> JobRecord | None:
        try:
            return await self._jobs.find(*pair)
        except NotFound:
            return None  # deleted between the listing and the reading

    async def dead_letters(self, limit: int) -> list[DeadLetterInfo]:
        """Messages that were given up, newest first; raises InvalidRequest, BrokerUnavailable."""
        if not 0 <= limit <= MAX_DEAD_LETTERS:
            raise InvalidRequest.field("limit", limit, f"0 (the default, {DEFAULT_LIMIT}) to {MAX_DEAD_LETTERS}")
        self._require_broker()
        found = await self._jobs.bus.dead_letters(limit=limit or DEFAULT_LIMIT)
        return [_dead_letter_info(letter) for letter in found]

    async def explain(self, job_id: str, tenant: str) -> Explanation:
        """The job, its stored decision and what became of it. Raises NotFound."""
        return await self._explainer.explain(job_id, tenant)

    async def decisions(self, tenant: str, limit: int) -> list[DecisionInfo]:
        """The last decisions of this scheduler, refusals with them, newest first. Raises InvalidRequest."""
        return self._explainer.decisions(tenant, _limited(limit))

    def _require_broker(self) -> None:
        """Fail at once while the broker is away: an operator should not wait for a deadline to learn that."""
        if not self._jobs.bus.connected:
            raise BrokerUnavailable("the broker cannot be reached; the jobs' index is kept there")

    async def drain(self, node_id: str, undo: bool, *, by: str) -> str:
        """Take a node out of rotation or put it back; returns its state. Raises NotFound, BrokerUnavailable."""
        check_name(node_id, field="node_id")
        node = self._nodes.get(node_id)
        if node is None and node_id not in self._nodes.drained:
            raise NotFound(f"no node {node_id!r} has been heard of", param="node_id")
        self._require_broker()
        change = self._drains.put_back if undo else self._drains.drain
        action = "put-back" if undo else "drain"
        await self._audit.carry_out(action, node_id, lambda: change(node_id), by=by, details={})
        return node.condition(self._time.now_ns()) if node is not None else "stale"

    async def pools(self) -> list[PoolInfo]:
        """Every pool with its load and the workers it should have."""
        return [_pool_info(pool, advice) for pool, advice in sorted(self._scaling.advice.items())]

    async def scale(self, pool: str, workers: int, *, by: str) -> Scaled:
        """Have so many workers of a pool in rotation. Raises InvalidRequest, NotFound, BrokerUnavailable."""
        check_name(pool, field="pool")
        order = await self._audit.carry_out(
            "scale",
            pool,
            lambda: self._scaling.order(pool, workers),
            by=by,
            details={"workers": workers},
            told=_scaled,
        )
        return Scaled(order.drain, order.put_back, order.missing)

    async def policy(self) -> list[PolicyValueInfo]:
        """By what plans are weighed here now, and by what this scheduler was started with."""
        configured = self._policies.configured.values()
        return [
            PolicyValueInfo(name, value, configured[name]) for name, value in self._policies.in_force.values().items()
        ]

    async def set_policy(
        self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> PolicyChangeInfo:
        """Change it for all schedulers. Raises InvalidRequest, Conflict, a storage error."""
        made = await self._audit.carry_out(
            "set-policy",
            "policy",
            lambda: self._policies.change(values, unset, by=by, reason=reason),
            by=by,
            details={**values, **dict.fromkeys(unset, "as started")},
        )
        return PolicyChangeInfo(**made.model_dump())

    async def policy_changes(self, limit: int) -> list[PolicyChangeInfo]:
        """Its changes, newest first. Raises InvalidRequest, a storage error."""
        changes = await self._policies.history(_limited(limit))
        return [PolicyChangeInfo(**change.model_dump()) for change in changes]

    async def tenants(self) -> list[TenantInfo]:
        """Tenants with their quotas and what they use, by name."""
        return tenants(self._view, now_ns=self._time.now_ns())

    async def set_quota(
        self, tenant: str, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> QuotaChangeInfo:
        """Change a tenant's for all schedulers. Raises InvalidRequest, Conflict, a storage error."""
        made = await self._audit.carry_out(
            "set-quota",
            tenant,
            lambda: self._quotas.change(tenant, values, unset, by=by, reason=reason),
            by=by,
            details={**values, **dict.fromkeys(unset, "everybody's")},
        )
        return change_info(made)

    async def quota_changes(self, limit: int) -> list[QuotaChangeInfo]:
        """Their changes, newest first. Raises InvalidRequest, a storage error."""
        changes = await self._quotas.history(_limited(limit))
        return [change_info(change) for change in changes]

    async def lines(self) -> list[LineInfo]:
        """The models that are served, and how rollouts go, by name."""
        return self._rollouts.known()

    async def start_rollout(self, order: RolloutOrder, *, by: str) -> LineChangeInfo:
        """Begin to try a version. Raises InvalidRequest, ModelNotFound, Conflict, a storage error."""
        check_name(order.line, field="line")
        check_name(order.version, field="version")
        plan = order.plan()
        return await self._audit.carry_out(
            "start-rollout",
            order.line,
            lambda: self._rollouts.start(order.line, order.version, plan, by=by, reason=order.reason),
            by=by,
            details={"version": order.version, **plan},
        )

    async def steer_rollout(self, line: str, action: str, *, by: str, reason: str) -> LineChangeInfo:
        """Promote, roll back, pause or go on. Raises InvalidRequest, Conflict, a storage error."""
        check_name(line, field="line")
        return await self._audit.carry_out(
            f"rollout-{action}"[:40],
            line,
            lambda: self._rollouts.steer(line, action, by=by, reason=reason),
            by=by,
            details={},
        )

    async def line_changes(self, limit: int) -> list[LineChangeInfo]:
        """Changes of lines, newest first. Raises InvalidRequest, a storage error."""
        return await self._rollouts.history(_limited(limit))

    async def purge_caches(self, order: PurgeOrder, *, by: str) -> Purged:
        """Have caches let go of a batch of videos. Raises InvalidRequest, BrokerUnavailable, a storage error."""
        return await self._purge("caches", order, by=by)

    async def purge_videos(self, order: PurgeOrder, *, by: str) -> Purged:
        """Delete a batch of videos. Raises InvalidRequest, BrokerUnavailable, a storage error."""
        return await self._purge("videos", order, by=by)

    async def _purge(self, kind: Kind, order: PurgeOrder, *, by: str) -> Purged:
        self._purger.check(order)
        self._require_broker()
        if order.dry_run:
            return await self._purger.run(order, kind, by=by)
        said = {"reason": order.reason, "after": order.after, "ids": " ".join(order.ids)}
        details = {name: value for name, value in said.items() if value}
        act = partial(self._purger.run, order, kind, by=by)
        return await self._audit.carry_out(f"purge-{kind}", target(order), act, by=by, details=details, told=told)

    async def audit(self, limit: int) -> list[AuditInfo]:
        """What operators ordered, newest first. Raises InvalidRequest, a storage error."""
        return [AuditInfo(**entry.told()) for entry in await self._audit.entries(_limited(limit))]

    async def ratings(self, limit: int) -> Ratings:
        """What people said of videos, newest first. Raises InvalidRequest, a storage error."""
        if not 0 <= limit <= MAX_RATINGS:
            raise InvalidRequest.field("limit", limit, f"0 (the default, {DEFAULT_RATINGS}) to {MAX_RATINGS}")
        qoe = self._policies.in_force.qoe
        return await gather(self._jobs.blob, self._view.cards, qoe, limit=limit or DEFAULT_RATINGS)


def _limited(limit: int) -> int:
    """How many are asked for; raises InvalidRequest."""
    if not 0 <= limit <= MAX_LIMIT:
        raise InvalidRequest.field("limit", limit, f"0 (the default, {DEFAULT_LIMIT}) to {MAX_LIMIT}")
    return limit or DEFAULT_LIMIT


def _scaled(order: ScaleOrder) -> str:
    """What an order to scale has done."""
    parts = (("drained", order.drain), ("put back", order.put_back))
    return "; ".join(["done", *(f"{what} {', '.join(ids)}" for what, ids in parts if ids)])


def _pool_info(pool: str, advice: Advice) -> PoolInfo:
    load = advice.load
    return PoolInfo(
        pool=pool,
        workers=load.workers,
        desired=advice.workers,
        waiting=load.waiting,
        waiting_s=load.waiting_s,
        at_hand_s=load.at_hand_s,
        arriving=advice.arriving,
        panic=advice.panic,
        reason=advice.reason,
    )


def _dead_letter_info(letter: DeadLetter) -> DeadLetterInfo:
    try:
        message = JobMessage.decode(letter.data)
        tenant, job_id = message.tenant, message.id
    except InternalError:  # that may be why it was given up
        tenant = job_id = ""
    return DeadLetterInfo(
        pool=letter.pool,
        tenant=tenant,
        job_id=job_id,
        reason=letter.reason,
        at_ns=letter.at_ns,
        size_bytes=len(letter.data),
    )


def _node_info(node: Node, now_ns: int, factor: float, state: str) -> NodeInfo:
    report = node.report
    return NodeInfo(
        node_id=report.node_id,
        kind=report.kind,
        address=report.grpc_address,
        http_url=report.http_url,
        state=state,
        models=report.models,
        in_flight=min(report.in_flight, 2**32 - 1),
        queued=min(report.queued, 2**32 - 1),
        remaining_s=node.remaining_s(now_ns, factor=factor),
        report_age_s=node.age_s(now_ns),
        cpu_percent=report.cpu_percent,
        memory_bytes=min(report.memory_bytes, 2**64 - 1),
    )
