"""Operators' questions answered over gRPC: from plain data to the wire. What asks them is `admin_client`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import grpc

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Rated
from adaptivegen.roles import Role, Roles, called
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
from adaptivegen.rpc.admin_wire import read_row
from adaptivegen.rpc.pb import admin_pb2 as pb
from adaptivegen.rpc.pb import admin_pb2_grpc as stubs
from adaptivegen.rpc.peer import names_of
from adaptivegen.rpc.placement import decision_to_pb
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.AdminService"


def predictions_to_pb(found: Predictions) -> pb.ListPredictionsResponse:
    """What was learned, for the wire."""
    return pb.ListPredictionsResponse(
        paces=[pb.Pace(**asdict(pace)) for pace in found.paces],
        accuracies=[pb.Accuracy(**asdict(accuracy)) for accuracy in found.accuracies],
        sizes=[pb.ClipSize(**asdict(size)) for size in found.sizes],
        ways=[pb.NodeWay(**asdict(way)) for way in found.ways],
        loads=[pb.ModelLoad(**asdict(load)) for load in found.loads],
        chances=[pb.Chance(**asdict(chance)) for chance in found.chances],
    )


class AdminBackend(Protocol):
    """What answers the admin service. Everything raises typed errors."""

    async def nodes(self) -> list[NodeInfo]:
        """All known nodes."""
        ...

    async def jobs(self, wanted: JobFilter) -> list[JobInfo]:
        """Jobs, newest first."""
        ...

    async def explain(self, job_id: str, tenant: str) -> Explanation:
        """Why a job was placed as it was."""
        ...

    async def decisions(self, tenant: str, limit: int) -> list[DecisionInfo]:
        """The last decisions of this scheduler, newest first."""
        ...

    async def dead_letters(self, limit: int) -> list[DeadLetterInfo]:
        """Messages that were given up, newest first."""
        ...

    async def predictions(self) -> Predictions:
        """What was learned."""
        ...

    async def drain(self, node_id: str, undo: bool, *, by: str) -> str:
        """Take a node out of rotation, or put it back; returns its state."""
        ...

    async def pools(self) -> list[PoolInfo]:
        """The pools of workers."""
        ...

    async def scale(self, pool: str, workers: int, *, by: str) -> Scaled:
        """Have so many workers of a pool in rotation."""
        ...

    async def audit(self, limit: int) -> list[AuditInfo]:
        """What operators ordered, newest first."""
        ...

    async def policy(self) -> list[PolicyValueInfo]:
        """By what plans are weighed."""
        ...

    async def set_policy(
        self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> PolicyChangeInfo:
        """Change it."""
        ...

    async def policy_changes(self, limit: int) -> list[PolicyChangeInfo]:
        """Its changes, newest first."""
        ...

    async def tenants(self) -> list[TenantInfo]:
        """Tenants with their quotas and what they use."""
        ...

    async def set_quota(
        self, tenant: str, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> QuotaChangeInfo:
        """Change a tenant's quota."""
        ...

    async def quota_changes(self, limit: int) -> list[QuotaChangeInfo]:
        """The quotas' changes, newest first."""
        ...

    async def ratings(self, limit: int) -> Ratings:
        """What people said of videos, newest first."""
        ...

    async def lines(self) -> list[LineInfo]:
        """The models that are served, and how rollouts go."""
        ...

    async def start_rollout(self, order: RolloutOrder, *, by: str) -> LineChangeInfo:
        """Begin to try a version."""
        ...

    async def steer_rollout(self, line: str, action: str, *, by: str, reason: str) -> LineChangeInfo:
        """Promote, roll back, pause or go on."""
        ...

    async def line_changes(self, limit: int) -> list[LineChangeInfo]:
        """Changes of lines, newest first."""
        ...

    async def purge_caches(self, order: PurgeOrder, *, by: str) -> Purged:
        """Have caches let go of a batch of videos."""
        ...

    async def purge_videos(self, order: PurgeOrder, *, by: str) -> Purged:
        """Delete a batch of videos."""
        ...


class AdminServicer(stubs.AdminServiceServicer):
    """Serves the admin service to those who have the role for it."""

    def __init__(self, backend: AdminBackend, roles: Roles) -> None:
        self._backend = backend
        self._roles = roles

    def add_to(self, server: RpcServer) -> None:
        """Register with the process's server."""
        server.register(stubs.add_AdminServiceServicer_to_server, self, SERVICE)

    async def ListNodes(
        self, request: pb.ListNodesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListNodesResponse:
        self._view(context)
        return pb.ListNodesResponse(nodes=[pb.Node(**asdict(node)) for node in await self._backend.nodes()])

    async def ListJobs(
        self, request: pb.ListJobsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListJobsResponse:
        self._view(context)
        wanted = JobFilter(tenant=request.tenant, status=request.status, limit=request.limit)
        return pb.ListJobsResponse(jobs=[pb.Job(**asdict(job)) for job in await self._backend.jobs(wanted)])

    async def ExplainJob(
        self, request: pb.ExplainJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainJobResponse:
        self._view(context)
        found = await self._backend.explain(request.job_id, request.tenant)
        return pb.ExplainJobResponse(
            job=pb.Job(**asdict(found.job)), decision=decision_to_pb(found.decision), notes=found.notes
        )

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListDecisionsResponse:
        self._view(context)
        found = await self._backend.decisions(request.tenant, request.limit)
        return pb.ListDecisionsResponse(decisions=[pb.DecisionRow(**asdict(one)) for one in found])

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListDeadLettersResponse:
        self._view(context)
        found = await self._backend.dead_letters(request.limit)
        return pb.ListDeadLettersResponse(letters=[pb.DeadLetter(**asdict(letter)) for letter in found])

    async def ListPredictions(
        self, request: pb.ListPredictionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListPredictionsResponse:
        self._view(context)
        return predictions_to_pb(await self._backend.predictions())

    async def DrainNode(
        self, request: pb.DrainNodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DrainNodeResponse:
        by = self._operator(context)
        return pb.DrainNodeResponse(state=await self._backend.drain(request.node_id, request.undo, by=by))

    async def ListPools(
        self, request: pb.ListPoolsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListPoolsResponse:
        self._view(context)
        return pb.ListPoolsResponse(pools=[pb.Pool(**asdict(pool)) for pool in await self._backend.pools()])

    async def ScalePool(
        self, request: pb.ScalePoolRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ScalePoolResponse:
        by = self._operator(context)
        if not request.HasField("workers"):
            raise InvalidRequest.field("workers", "nothing", "a number, also where it is 0")
        return pb.ScalePoolResponse(**asdict(await self._backend.scale(request.pool, request.workers, by=by)))

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetPolicyResponse:
        self._view(context)
        return pb.GetPolicyResponse(values=[pb.PolicyValue(**asdict(value)) for value in await self._backend.policy()])

    async def SetPolicy(
        self, request: pb.SetPolicyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SetPolicyResponse:
        by = self._operator(context, role="admin")
        made = await self._backend.set_policy(dict(request.values), tuple(request.unset), by=by, reason=request.reason)
        return pb.SetPolicyResponse(change=pb.PolicyChange(**asdict(made)))

    async def ListPolicyChanges(
        self, request: pb.ListPolicyChangesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListPolicyChangesResponse:
        self._view(context)
        changes = await self._backend.policy_changes(request.limit)
        return pb.ListPolicyChangesResponse(changes=[pb.PolicyChange(**asdict(change)) for change in changes])

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListTenantsResponse:
        self._view(context)
        return pb.ListTenantsResponse(tenants=[pb.Tenant(**asdict(one)) for one in await self._backend.tenants()])

    async def SetQuota(
        self, request: pb.SetQuotaRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SetQuotaResponse:
        by = self._operator(context, role="admin")
        values, unset = dict(request.values), tuple(request.unset)
        made = await self._backend.set_quota(request.tenant, values, unset, by=by, reason=request.reason)
        return pb.SetQuotaResponse(change=pb.QuotaChange(**asdict(made)))

    async def ListQuotaChanges(
        self, request: pb.ListQuotaChangesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListQuotaChangesResponse:
        self._view(context)
        changes = await self._backend.quota_changes(request.limit)
        return pb.ListQuotaChangesResponse(changes=[pb.QuotaChange(**asdict(change)) for change in changes])

    async def ListRatings(
        self, request: pb.ListRatingsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListRatingsResponse:
        self._view(context)
        found = await self._backend.ratings(request.limit)
        return pb.ListRatingsResponse(ratings=[_rating_to_pb(one) for one in found.ratings], left_out=found.left_out)

    async def ListLines(
        self, request: pb.ListLinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListLinesResponse:
        self._view(context)
        return pb.ListLinesResponse(lines=[pb.Line(**asdict(line)) for line in await self._backend.lines()])

    async def StartRollout(
        self, request: pb.StartRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.StartRolloutResponse:
        by = self._operator(context, role="admin")
        made = await self._backend.start_rollout(read_row(RolloutOrder, request), by=by)
        return pb.StartRolloutResponse(change=pb.LineChange(**asdict(made)))

    async def SteerRollout(
        self, request: pb.SteerRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SteerRolloutResponse:
        by = self._operator(context)
        made = await self._backend.steer_rollout(request.line, request.action, by=by, reason=request.reason)
        return pb.SteerRolloutResponse(change=pb.LineChange(**asdict(made)))

    async def ListLineChanges(
        self, request: pb.ListLineChangesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListLineChangesResponse:
        self._view(context)
        changes = await self._backend.line_changes(request.limit)
        return pb.ListLineChangesResponse(changes=[pb.LineChange(**asdict(change)) for change in changes])

    async def PurgeCaches(
        self, request: pb.PurgeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PurgeResponse:
        by = self._operator(context)
        return pb.PurgeResponse(**asdict(await self._backend.purge_caches(read_row(PurgeOrder, request), by=by)))

    async def PurgeVideos(
        self, request: pb.PurgeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PurgeResponse:
        by = self._operator(context, role="admin")
        return pb.PurgeResponse(**asdict(await self._backend.purge_videos(read_row(PurgeOrder, request), by=by)))

    async def ListAudit(
        self, request: pb.ListAuditRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListAuditResponse:
        self._view(context)
        found = await self._backend.audit(request.limit)
        return pb.ListAuditResponse(entries=[pb.AuditEntry(**asdict(entry)) for entry in found])

    def _view(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Raises PermissionDenied for somebody who may not even look."""
        self._roles.require(names_of(context), "viewer")

    def _operator(self, context: grpc.aio.ServicerContext[Any, Any], role: Role = "operator") -> str:
        """Who orders, where they may; raises PermissionDenied."""
        names = names_of(context)
        self._roles.require(names, role)
        return called(names)


def _rating_to_pb(rating: Rated) -> pb.Rating:
    """By hand: there may be thousands, and placements wait while they are made."""
    return pb.Rating(
        rater=rating.rater,
        iterating=rating.iterating,
        stars=rating.stars,
        draft_s=rating.draft_s,
        draft_quality=rating.draft_quality,
        final_s=rating.final_s,
        final_quality=rating.final_quality,
    )
