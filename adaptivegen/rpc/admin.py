"""Operators' questions over gRPC: conversions between plain data and the wire, the client and the servicer.

The only place that knows both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import grpc

from adaptivegen.placement import Decision
from adaptivegen.rpc.channel import ClientTls, call, open_channel
from adaptivegen.rpc.pb import admin_pb2 as pb
from adaptivegen.rpc.pb import admin_pb2_grpc as stubs
from adaptivegen.rpc.placement import decision_from_pb, decision_to_pb
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.AdminService"
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node as a scheduler sees it; `state` is healthy, stale, draining or loading."""

    node_id: str
    kind: str
    address: str
    http_url: str
    state: str
    models: tuple[str, ...]
    in_flight: int
    queued: int
    remaining_s: float
    report_age_s: float
    cpu_percent: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job, as far as an operator needs it. Times are wall nanoseconds, 0 where not yet."""

    id: str
    tenant: str
    status: str
    plan: str
    edge_id: str
    worker_id: str
    progress_percent: int
    attempts: int
    created_at_ns: int
    completed_at_ns: int
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """A message that was given up; tenant and job are empty where it named none. `at_ns` is wall nanoseconds."""

    pool: str
    tenant: str
    job_id: str
    reason: str
    at_ns: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PaceInfo:
    """How fast a node is for a model: the factor of the card's times, after so many observations."""

    node_id: str
    model: str
    factor: float
    observations: int


@dataclass(frozen=True, slots=True)
class AccuracyInfo:
    """How good predictions of one part were: "draft", or "final" and its plan.

    covered: outcomes within the upper prediction they were told with; error: mean absolute share by which the last ones
    were off; upper: the upper prediction now, as a multiple of the middle one.
    """

    part: str
    outcomes: int
    covered: int
    error: float
    upper: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a scheduler has learned."""

    paces: tuple[PaceInfo, ...]
    accuracies: tuple[AccuracyInfo, ...]


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """One pool of workers. desired: workers that there should be; waiting_s and at_hand_s: predicted seconds of jobs
    that wait and of what is left of those at hand; arriving: seconds of work per second."""

    pool: str
    workers: int
    desired: int
    waiting: int
    waiting_s: float
    at_hand_s: float
    arriving: float
    panic: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was done to have so many workers in rotation: ids drained and put back, and how many must be started."""

    drained: tuple[str, ...]
    put_back: tuple[str, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job was placed as it was; `notes` say what was done otherwise than decided."""

    job: JobInfo
    decision: Decision
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; empty means all, limit 0 the default."""

    tenant: str = ""
    status: str = ""
    limit: int = 0


Row = TypeVar("Row", NodeInfo, JobInfo, DeadLetterInfo, PaceInfo, AccuracyInfo, PoolInfo, Scaled)


def read_row(kind: type[Row], message: object) -> Row:
    """A row from the wire, field by field; what is repeated there is a tuple here."""
    values = {item.name: getattr(message, item.name) for item in fields(kind)}
    return kind(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else tuple(value)


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


class AdminServicer(stubs.AdminServiceServicer):
    """Serves the admin service by plain callables."""

    def __init__(
        self,
        *,
        nodes: Callable[[], Awaitable[list[NodeInfo]]],
        jobs: Callable[[JobFilter], Awaitable[list[JobInfo]]],
        explain: Callable[[str, str], Awaitable[Explanation]],
        dead_letters: Callable[[int], Awaitable[list[DeadLetterInfo]]],
        predictions: Callable[[], Awaitable[Predictions]],
        drain: Callable[[str, bool], Awaitable[str]],
        pools: Callable[[], Awaitable[list[PoolInfo]]],
        scale: Callable[[str, int], Awaitable[Scaled]],
    ) -> None:
        self._nodes = nodes
        self._jobs = jobs
        self._explain = explain
        self._dead_letters = dead_letters
        self._predictions = predictions
        self._drain = drain
        self._pools = pools
        self._scale = scale

    def add_to(self, server: RpcServer) -> None:
        """Register with the process's server."""
        server.register(stubs.add_AdminServiceServicer_to_server, self, SERVICE)

    async def ListNodes(
        self, request: pb.ListNodesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListNodesResponse:
        return pb.ListNodesResponse(nodes=[pb.Node(**asdict(node)) for node in await self._nodes()])

    async def ListJobs(
        self, request: pb.ListJobsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListJobsResponse:
        wanted = JobFilter(tenant=request.tenant, status=request.status, limit=request.limit)
        return pb.ListJobsResponse(jobs=[pb.Job(**asdict(job)) for job in await self._jobs(wanted)])

    async def ExplainJob(
        self, request: pb.ExplainJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainJobResponse:
        found = await self._explain(request.job_id, request.tenant)
        return pb.ExplainJobResponse(
            job=pb.Job(**asdict(found.job)), decision=decision_to_pb(found.decision), notes=found.notes
        )

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListDeadLettersResponse:
        found = await self._dead_letters(request.limit)
        return pb.ListDeadLettersResponse(letters=[pb.DeadLetter(**asdict(letter)) for letter in found])

    async def ListPredictions(
        self, request: pb.ListPredictionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListPredictionsResponse:
        return predictions_to_pb(await self._predictions())

    async def DrainNode(
        self, request: pb.DrainNodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DrainNodeResponse:
        return pb.DrainNodeResponse(state=await self._drain(request.node_id, request.undo))

    async def ListPools(
        self, request: pb.ListPoolsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListPoolsResponse:
        return pb.ListPoolsResponse(pools=[pb.Pool(**asdict(pool)) for pool in await self._pools()])

    async def ScalePool(
        self, request: pb.ScalePoolRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ScalePoolResponse:
        return pb.ScalePoolResponse(**asdict(await self._scale(request.pool, request.workers)))


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

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _call(self, method: Callable[..., Any], request: object) -> Any:
        return await call(method, request, deadline_s=self._deadline_s, peer=self._peer)
