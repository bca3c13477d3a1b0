"""Operators' questions asked over gRPC: from the wire to plain data. What answers them is `admin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adaptivegen.experience import Rated
from adaptivegen.rpc.admin_rows import (
    AccuracyInfo,
    AuditInfo,
    ChanceInfo,
    DeadLetterInfo,
    DecisionInfo,
    Explanation,
    JobFilter,
    JobInfo,
    LineChangeInfo,
    LineInfo,
    LoadInfo,
    NodeInfo,
    PaceInfo,
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
    SizeInfo,
    TenantInfo,
    WayInfo,
)
from adaptivegen.rpc.admin_wire import read_row
from adaptivegen.rpc.channel import ClientTls, call, open_channel
from adaptivegen.rpc.pb import admin_pb2 as pb
from adaptivegen.rpc.pb import admin_pb2_grpc as stubs
from adaptivegen.rpc.placement import decision_from_pb

DEADLINE_S, LONG_DEADLINE_S = 10.0, 120.0


def predictions_from_pb(message: pb.ListPredictionsResponse) -> Predictions:
    """What was learned, from the wire."""
    return Predictions(
        paces=tuple(read_row(PaceInfo, pace) for pace in message.paces),
        accuracies=tuple(read_row(AccuracyInfo, part) for part in message.accuracies),
        sizes=tuple(read_row(SizeInfo, size) for size in message.sizes),
        ways=tuple(read_row(WayInfo, way) for way in message.ways),
        loads=tuple(read_row(LoadInfo, load) for load in message.loads),
        chances=tuple(read_row(ChanceInfo, chance) for chance in message.chances),
    )


class AdminClient:
    """Asks one scheduler. Every call raises the typed error it sent, or Unavailable and kin."""

    def __init__(self, address: str, *, tls: ClientTls | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._peer = f"scheduler {address}"
        self._deadline_s = deadline_s
        self._channel = open_channel(address, tls=tls)
        self._stub = stubs.AdminServiceStub(self._channel)

    async def nodes(self) -> list[NodeInfo]:
        """The node table, sorted by kind and id."""
        reply = await self._call(self._stub.ListNodes, pb.ListNodesRequest())
        return [read_row(NodeInfo, node) for node in reply.nodes]

    async def jobs(self, wanted: JobFilter) -> list[JobInfo]:
        """Jobs, newest first."""
        request = pb.ListJobsRequest(tenant=wanted.tenant, status=wanted.status, limit=wanted.limit)
        reply = await self._call(self._stub.ListJobs, request)
        return [read_row(JobInfo, job) for job in reply.jobs]

    async def explain(self, job_id: str, tenant: str = "") -> Explanation:
        """Why a job was placed as it was; raises NotFound."""
        reply = await self._call(self._stub.ExplainJob, pb.ExplainJobRequest(job_id=job_id, tenant=tenant))
        return Explanation(
            job=read_row(JobInfo, reply.job), decision=decision_from_pb(reply.decision), notes=tuple(reply.notes)
        )

    async def decisions(self, tenant: str = "", limit: int = 0) -> list[DecisionInfo]:
        """The last decisions of that scheduler, refusals with them, newest first. Raises InvalidRequest."""
        request = pb.ListDecisionsRequest(tenant=tenant, limit=limit)
        reply = await self._call(self._stub.ListDecisions, request)
        return [read_row(DecisionInfo, one) for one in reply.decisions]

    async def dead_letters(self, limit: int = 0) -> list[DeadLetterInfo]:
        """Messages that were given up, newest first."""
        reply = await self._call(self._stub.ListDeadLetters, pb.ListDeadLettersRequest(limit=limit))
        return [read_row(DeadLetterInfo, letter) for letter in reply.letters]

    async def predictions(self) -> Predictions:
        """How fast nodes are, and how good predictions were."""
        return predictions_from_pb(await self._call(self._stub.ListPredictions, pb.ListPredictionsRequest()))

    async def drain(self, node_id: str, *, undo: bool = False) -> str:
        """Take a node out of rotation, or put it back; returns its state. Raises NotFound."""
        reply = await self._call(self._stub.DrainNode, pb.DrainNodeRequest(node_id=node_id, undo=undo))
        return str(reply.state)

    async def pools(self) -> list[PoolInfo]:
        """The pools of workers, by name."""
        reply = await self._call(self._stub.ListPools, pb.ListPoolsRequest())
        return [read_row(PoolInfo, pool) for pool in reply.pools]

    async def scale(self, pool: str, workers: int) -> Scaled:
        """Have so many workers of a pool in rotation. Raises InvalidRequest, NotFound, BrokerUnavailable."""
        reply = await self._call(self._stub.ScalePool, pb.ScalePoolRequest(pool=pool, workers=workers))
        return read_row(Scaled, reply)

    async def policy(self) -> list[PolicyValueInfo]:
        """By what plans are weighed."""
        reply = await self._call(self._stub.GetPolicy, pb.GetPolicyRequest())
        return [read_row(PolicyValueInfo, value) for value in reply.values]

    async def set_policy(
        self, values: Mapping[str, float], *, unset: Sequence[str] = (), reason: str = ""
    ) -> PolicyChangeInfo:
        """Change it for all schedulers. Raises InvalidRequest, Conflict."""
        request = pb.SetPolicyRequest(values=values, unset=unset, reason=reason)
        return read_row(PolicyChangeInfo, (await self._call(self._stub.SetPolicy, request)).change)

    async def policy_changes(self, limit: int = 0) -> list[PolicyChangeInfo]:
        """Its changes, newest first."""
        reply = await self._call(self._stub.ListPolicyChanges, pb.ListPolicyChangesRequest(limit=limit))
        return [read_row(PolicyChangeInfo, change) for change in reply.changes]

    async def audit(self, limit: int = 0) -> list[AuditInfo]:
        """What operators ordered, newest first."""
        reply = await self._call(self._stub.ListAudit, pb.ListAuditRequest(limit=limit))
        return [read_row(AuditInfo, entry) for entry in reply.entries]

    async def tenants(self) -> list[TenantInfo]:
        """Tenants with their quotas and what they use, by name."""
        reply = await self._call(self._stub.ListTenants, pb.ListTenantsRequest())
        return [read_row(TenantInfo, one) for one in reply.tenants]

    async def set_quota(
        self, tenant: str, values: Mapping[str, float], *, unset: Sequence[str] = (), reason: str = ""
    ) -> QuotaChangeInfo:
        """Change a tenant's quota, or everybody's, for all schedulers. Raises InvalidRequest, Conflict."""
        request = pb.SetQuotaRequest(tenant=tenant, values=values, unset=unset, reason=reason)
        return read_row(QuotaChangeInfo, (await self._call(self._stub.SetQuota, request)).change)

    async def quota_changes(self, limit: int = 0) -> list[QuotaChangeInfo]:
        """Their changes, newest first."""
        reply = await self._call(self._stub.ListQuotaChanges, pb.ListQuotaChangesRequest(limit=limit))
        return [read_row(QuotaChangeInfo, change) for change in reply.changes]

    async def ratings(self, limit: int = 0) -> Ratings:
        """What people said of videos, newest first. Each is an object of its own, so this may take a while."""
        request = pb.ListRatingsRequest(limit=limit)
        reply = await call(self._stub.ListRatings, request, deadline_s=LONG_DEADLINE_S, peer=self._peer)
        return Ratings(tuple(read_row(Rated, rating) for rating in reply.ratings), reply.left_out)

    async def lines(self) -> list[LineInfo]:
        """The models that are served, and how rollouts go, by name."""
        reply = await self._call(self._stub.ListLines, pb.ListLinesRequest())
        return [read_row(LineInfo, line) for line in reply.lines]

    async def start_rollout(self, order: RolloutOrder) -> LineChangeInfo:
        """Begin to try a version. Raises InvalidRequest, ModelNotFound, Conflict."""
        request = pb.StartRolloutRequest(**asdict(order))
        return read_row(LineChangeInfo, (await self._call(self._stub.StartRollout, request)).change)

    async def steer_rollout(self, line: str, action: str, *, reason: str = "") -> LineChangeInfo:
        """Promote, roll back, pause or resume. Raises InvalidRequest, Conflict."""
        request = pb.SteerRolloutRequest(line=line, action=action, reason=reason)
        return read_row(LineChangeInfo, (await self._call(self._stub.SteerRollout, request)).change)

    async def line_changes(self, limit: int = 0) -> list[LineChangeInfo]:
        """Changes of lines, newest first."""
        reply = await self._call(self._stub.ListLineChanges, pb.ListLineChangesRequest(limit=limit))
        return [read_row(LineChangeInfo, change) for change in reply.changes]

    async def purge_caches(self, order: PurgeOrder) -> Purged:
        """Have caches let go of a batch of videos. Raises InvalidRequest."""
        return await self._purge(self._stub.PurgeCaches, order)

    async def purge_videos(self, order: PurgeOrder) -> Purged:
        """Delete a batch of videos. Raises InvalidRequest."""
        return await self._purge(self._stub.PurgeVideos, order)

    async def _purge(self, method: Callable[..., Any], order: PurgeOrder) -> Purged:
        request = pb.PurgeRequest(**asdict(order))
        return read_row(Purged, await call(method, request, deadline_s=LONG_DEADLINE_S, peer=self._peer))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _call(self, method: Callable[..., Any], request: object) -> Any:
        return await call(method, request, deadline_s=self._deadline_s, peer=self._peer)
