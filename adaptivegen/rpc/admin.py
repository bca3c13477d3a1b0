"""Operators' questions over gRPC: conversions between plain data and the wire, the client and the servicer.

The only place that knows both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Protocol, TypeVar

import grpc

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Rated
from adaptivegen.roles import Role, Roles
from adaptivegen.rpc.admin_rows import (
    AccuracyInfo,
    AuditInfo,
    DeadLetterInfo,
    Explanation,
    JobFilter,
    JobInfo,
    NodeInfo,
    PaceInfo,
    PolicyChangeInfo,
    PolicyValueInfo,
    PoolInfo,
    Predictions,
    Ratings,
    Scaled,
)
from adaptivegen.rpc.channel import ClientTls, call, open_channel
from adaptivegen.rpc.pb import admin_pb2 as pb
from adaptivegen.rpc.pb import admin_pb2_grpc as stubs
from adaptivegen.rpc.placement import decision_from_pb, decision_to_pb
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.AdminService"
DEADLINE_S, LONG_DEADLINE_S = 10.0, 120.0


Row = TypeVar(
    "Row",
    NodeInfo,
    JobInfo,
    DeadLetterInfo,
    PaceInfo,
    AccuracyInfo,
    PoolInfo,
    Scaled,
    PolicyValueInfo,
    PolicyChangeInfo,
    AuditInfo,
    Rated,
)


def read_row(kind: type[Row], message: object) -> Row:
    """A row from the wire, field by field: what is repeated is a tuple here, a map a dict, and what is absent None."""
    values = {item.name: _read(message, item.name) for item in fields(kind)}
    return kind(**{name: _plain(value) for name, value in values.items()})


def _read(message: Any, name: str) -> Any:
    field = message.DESCRIPTOR.fields_by_name[name]
    return getattr(message, name) if not field.has_presence or message.HasField(name) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return dict(value) if isinstance(value, Mapping) else tuple(value)


def predictions_to_pb(found: Predictions) -> pb.ListPredictionsResponse:
    """What was learned, for the wire."""
    return pb.ListPredictionsResponse(
        paces=[pb.Pace(**asdict(pace)) for pace in found.paces],
        accuracies=[pb.Accuracy(**asdict(accuracy)) for accuracy in found.accuracies],
    )


def predictions_from_pb(message: pb.ListPredictionsResponse) -> Predictions:
    """What was learned, from the wire."""
    return Predictions(
        paces=tuple(read_row(PaceInfo, pace) for pace in message.paces),
        accuracies=tuple(read_row(AccuracyInfo, part) for part in message.accuracies),
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

    async def ratings(self, limit: int) -> Ratings:
        """What people said of videos, newest first."""
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

    async def ListRatings(
        self, request: pb.ListRatingsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListRatingsResponse:
        self._view(context)
        found = await self._backend.ratings(request.limit)
        return pb.ListRatingsResponse(ratings=[_rating_to_pb(one) for one in found.ratings], left_out=found.left_out)

    async def ListAudit(
        self, request: pb.ListAuditRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListAuditResponse:
        self._view(context)
        found = await self._backend.audit(request.limit)
        return pb.ListAuditResponse(entries=[pb.AuditEntry(**asdict(entry)) for entry in found])

    def _view(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Raises PermissionDenied for somebody who may not even look."""
        self._roles.require(_names(context), "viewer")

    def _operator(self, context: grpc.aio.ServicerContext[Any, Any], role: Role = "operator") -> str:
        """Who orders, where they may; raises PermissionDenied."""
        names = _names(context)
        self._roles.require(names, role)
        return ", ".join(names) or "somebody without a certificate"


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


def _names(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, ...]:
    """Who asks: all names in the certificate that was shown, the alternative ones and the common one."""
    shown = context.auth_context()
    names = [*shown.get("x509_subject_alternative_name", ()), *shown.get("x509_common_name", ())]
    return tuple(dict.fromkeys(name.decode(errors="replace") for name in names if name))


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

    async def ratings(self, limit: int = 0) -> Ratings:
        """What people said of videos, newest first. Each is an object of its own, so this may take a while."""
        request = pb.ListRatingsRequest(limit=limit)
        reply = await call(self._stub.ListRatings, request, deadline_s=LONG_DEADLINE_S, peer=self._peer)
        return Ratings(tuple(read_row(Rated, rating) for rating in reply.ratings), reply.left_out)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _call(self, method: Callable[..., Any], request: object) -> Any:
        return await call(method, request, deadline_s=self._deadline_s, peer=self._peer)
