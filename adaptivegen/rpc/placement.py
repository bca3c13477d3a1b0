"""Placement over gRPC: conversions between adaptivegen.placement and the wire, the client and the servicer.

The only place that knows both. An absent time is None here and negative on the wire.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from pydantic import ValidationError

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import is_address
from adaptivegen.errors import AdaptiveGenError, InternalError, InvalidRequest, ModelNotFound, NodeUnavailable
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.placement import (
    TIERS,
    Attempt,
    Candidate,
    Decision,
    DraftPlace,
    Outcome,
    PlacementQuery,
    Plan,
    Ticket,
    Turn,
    on_query,
)
from adaptivegen.rpc.channel import ClientTls, call, open_channel
from adaptivegen.rpc.pb import placement_pb2 as pb
from adaptivegen.rpc.pb import placement_pb2_grpc as stubs
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.PlacementService"
REPORT_DEADLINE_S = 2.0
LONGEST_REST_S = 60.0
_TIMES = ("first_look_s", "draft_s", "final_s", "draft_upper_s", "final_upper_s")  # of a candidate
_NUMBERS = (*_TIMES, "qoe", "gpu_s", "score")


def _seconds(value: float | None) -> float:
    return -1.0 if value is None else value


def _optional(value: float) -> float | None:
    return None if value < 0 else value


def decision_to_pb(decision: Decision) -> pb.Decision:
    """A decision for the wire."""
    return pb.Decision(
        job_id=decision.job_id,
        plan=decision.plan,
        edge_id=decision.edge_id,
        pool=decision.pool,
        final_steps=decision.final_steps,
        refine_t0=_seconds(decision.refine_t0),
        decided_by=decision.decided_by,
        decided_at_ns=decision.decided_at_ns,
        reasons=decision.reasons,
        view_digest=decision.view_digest,
        propensity=decision.propensity,
        draft_edge_id=decision.draft_edge_id,
        backup_edge_id=decision.backup_edge_id,
        backup_after_s=decision.backup_after_s,
        draft_gain=decision.draft_gain,
        draft_places=[pb.DraftPlace(**place.model_dump()) for place in decision.draft_places],
        refused=decision.refused,
        refused_param=decision.refused_param,
        retry_after_s=decision.retry_after_s,
        candidates=[
            pb.Candidate(
                plan=candidate.plan,
                feasible=candidate.feasible,
                reason=candidate.reason,
                first_look_s=_seconds(candidate.first_look_s),
                draft_s=_seconds(candidate.draft_s),
                final_s=_seconds(candidate.final_s),
                draft_upper_s=_seconds(candidate.draft_upper_s),
                final_upper_s=_seconds(candidate.final_upper_s),
                qoe=candidate.qoe,
                gpu_s=candidate.gpu_s,
                score=candidate.score,
            )
            for candidate in decision.candidates
        ],
    )


def decision_from_pb(message: pb.Decision) -> Decision:
    """A decision from the wire; raises InternalError for one that is none, such as an unknown plan, or that could not
    be stored with a job."""
    try:
        decision = _decision(message)
        check_name(decision.pool, field="pool")
        decision = _with_callable_places(decision)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in error["loc"])
        raise InternalError(f"not a decision: {where} is {error['input']!r}") from exc
    except InvalidRequest as exc:  # not the client's, who asked for none
        raise InternalError(f"not a decision: {exc.message}") from exc
    numbers = [
        decision.refine_t0,
        decision.propensity,
        decision.retry_after_s,
        *(getattr(one, name) for one in decision.candidates for name in _NUMBERS),
    ]
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise InternalError("not a decision: a time or a score is not finite")
    return decision


def _with_callable_places(decision: Decision) -> Decision:
    """Without places that cannot be called or have impossible numbers: what one edge says of itself must not keep all
    others from being served. A draft that was to be made there is made at home."""
    places = tuple(place for place in decision.draft_places if _is_callable(place, home=decision.edge_id))
    ids = {place.edge_id for place in places}
    after_s = decision.backup_after_s
    backup = decision.backup_edge_id if math.isfinite(after_s) and after_s > 0 else ""
    return decision.model_copy(
        update={
            "draft_places": places,
            "draft_edge_id": decision.draft_edge_id if decision.draft_edge_id in ids else "",
            "backup_edge_id": backup if backup in ids else "",
            "backup_after_s": after_s if backup in ids else 0.0,
            "draft_gain": decision.draft_gain if math.isfinite(decision.draft_gain) else 0.0,
        }
    )


def _is_callable(place: DraftPlace, *, home: str) -> bool:
    try:
        check_name(place.edge_id, field="edge_id")
    except InvalidRequest:
        return False
    finite = all(map(math.isfinite, (place.draft_s, place.load_s, place.weight, place.chance)))
    return finite and (place.edge_id == home or is_address(place.address))


def _decision(message: pb.Decision) -> Decision:
    return Decision(
        job_id=message.job_id,
        plan=cast(Plan, message.plan),
        edge_id=message.edge_id,
        pool=message.pool,
        final_steps=message.final_steps,
        refine_t0=_optional(message.refine_t0),
        decided_by=message.decided_by,
        decided_at_ns=message.decided_at_ns,
        reasons=tuple(message.reasons),
        view_digest=message.view_digest,
        propensity=message.propensity or 1.0,
        draft_edge_id=message.draft_edge_id,
        backup_edge_id=message.backup_edge_id,
        backup_after_s=message.backup_after_s,
        draft_gain=message.draft_gain,
        refused=message.refused,
        refused_param=message.refused_param,
        retry_after_s=message.retry_after_s if message.HasField("retry_after_s") else None,
        draft_places=tuple(
            DraftPlace(
                edge_id=place.edge_id,
                address=place.address,
                draft_s=place.draft_s,
                load_s=place.load_s,
                weight=place.weight,
                chance=place.chance,
            )
            for place in message.draft_places
        ),
        candidates=tuple(
            Candidate(
                plan=cast(Plan, candidate.plan),
                feasible=candidate.feasible,
                reason=candidate.reason,
                first_look_s=_optional(candidate.first_look_s),
                draft_s=_optional(candidate.draft_s),
                final_s=_optional(candidate.final_s),
                draft_upper_s=_optional(candidate.draft_upper_s),
                final_upper_s=_optional(candidate.final_upper_s),
                qoe=candidate.qoe,
                gpu_s=candidate.gpu_s,
                score=candidate.score,
            )
            for candidate in message.candidates
        ),
    )


def query_from_pb(message: pb.PlaceRequest) -> PlacementQuery:
    """A query from the wire; raises InvalidRequest for an unknown intent or tier."""
    tier = next((tier for tier in TIERS if tier == (message.tier or "default")), None)
    if tier is None:
        raise InvalidRequest.field("tier", message.tier, ", ".join(TIERS))
    if message.intent not in ("iterate", "render"):
        raise InvalidRequest.field("intent", message.intent, "iterate, render")
    return PlacementQuery(
        job_id=message.job_id,
        tenant=message.tenant,
        edge_id=message.edge_id,
        intent="iterate" if message.intent == "iterate" else "render",
        draft_model=message.draft_model,
        cloud_model=message.cloud_model,
        width=message.width,
        height=message.height,
        frames=message.frames,
        final_steps=message.final_steps,
        content_known=message.content_known,
        has_reference=message.has_reference,
        draft_known=message.draft_known,
        requested_plan=message.requested_plan or None,
        session=message.session,
        draft_digest=message.draft_digest,
        tier=tier,
        deadline_s=message.deadline_s if message.HasField("deadline_s") else None,
        allow_reduced=message.allow_reduced,
        keeps_id=message.keeps_id,
    )


class PlacementServicer(stubs.PlacementServiceServicer):
    """Serves the placement service by plain callables."""

    def __init__(
        self,
        place: Callable[[PlacementQuery], Awaitable[Decision]],
        observe: Callable[[Outcome], Awaitable[None]],
        attempted: Callable[[Attempt], Awaitable[None]],
        next_job: Callable[[Ticket], Awaitable[Turn]],
    ) -> None:
        self._place = place
        self._next_job = next_job
        self._observe = observe
        self._attempted = attempted

    def add_to(self, server: RpcServer) -> None:
        """Serve on `server`."""
        server.register(stubs.add_PlacementServiceServicer_to_server, self, SERVICE)

    async def Place(self, request: pb.PlaceRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.Decision:
        return decision_to_pb(await self._place(query_from_pb(request)))

    async def ReportOutcome(
        self, request: pb.ReportOutcomeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReportOutcomeResponse:
        await self._observe(
            Outcome(
                job_id=request.job_id,
                edge_id=request.edge_id,
                worker_id=request.worker_id,
                plan=request.plan,
                status=request.status,
                decided_by=request.decided_by,
                decided_at_ns=request.decided_at_ns,
                first_look_s=_optional(request.first_look_s),
                draft_s=_optional(request.draft_s),
                final_s=_optional(request.final_s),
                drafted_by=request.drafted_by,
                draft_late=request.draft_late,
                tenant=request.tenant,
                gpu_s=request.gpu_s,
            )
        )
        return pb.ReportOutcomeResponse()

    async def ReportAttempt(
        self, request: pb.ReportAttemptRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReportAttemptResponse:
        await self._attempted(
            Attempt(node_id=request.node_id, reporter=request.reporter, ok=request.ok, code=request.code)
        )
        return pb.ReportAttemptResponse()

    async def NextJob(
        self, request: pb.NextJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.NextJobResponse:
        ticket = Ticket(
            worker_id=request.worker_id,
            pool=request.pool,
            model=request.model,
            tenant=request.tenant,
            job_id=request.job_id,
        )
        return pb.NextJobResponse(**(await self._next_job(ticket)).model_dump())


class PlacementClient:
    """Asks schedulers in order within one budget; one that fails goes to the end of the order."""

    def __init__(
        self, addresses: list[str], *, clock: Clock, budget_s: float = 0.05, tls: ClientTls | None = None
    ) -> None:
        self._clock = clock
        self._budget_s = budget_s
        self._tls = tls
        self._channels = {address: open_channel(address, tls=tls) for address in addresses}
        self._order = list(addresses)

    async def place(self, query: PlacementQuery) -> Decision:
        """Decide. InvalidRequest and ModelNotFound are about the query and go up at once; after any other failure the
        next scheduler is asked while the budget lasts, and the last failure is raised when none decided."""
        request = pb.PlaceRequest(**query.model_dump(exclude_none=True))
        until_s = self._clock.monotonic_s() + self._budget_s
        last: AdaptiveGenError = NodeUnavailable("no scheduler is configured")
        for address in list(self._order):
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            channel = self._channels.get(address)
            if channel is None:
                continue  # dropped by an update meanwhile
            stub = stubs.PlacementServiceStub(channel)
            try:
                reply = await call(stub.Place, request, deadline_s=left_s, peer=f"scheduler {address}")
                return on_query(decision_from_pb(reply), query)
            except (InvalidRequest, ModelNotFound):
                raise
            except AdaptiveGenError as exc:
                last = exc
                self._put_last(address)
        raise last

    async def next_job(self, ticket: Ticket) -> Turn:
        """Whose turn it is, of the first scheduler that says so within the budget; raises the last failure."""
        request = pb.NextJobRequest(**ticket.model_dump())
        until_s = self._clock.monotonic_s() + self._budget_s
        last: AdaptiveGenError = NodeUnavailable("no scheduler is configured")
        for address, channel in [(address, self._channels[address]) for address in self._order]:
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            stub = stubs.PlacementServiceStub(channel)
            try:
                reply = await call(stub.NextJob, request, deadline_s=left_s, peer=f"scheduler {address}")
                return _turn(reply)
            except AdaptiveGenError as exc:
                last = exc
                self._put_last(address)
        raise last

    def _put_last(self, address: str) -> None:
        if address in self._order:
            self._order.remove(address)
            self._order.append(address)

    async def report(self, outcome: Outcome) -> None:
        """Tell every scheduler what happened: only the one that decided knows what it had predicted, and any may have.

        Raises the last failure where none took it.
        """
        request = pb.ReportOutcomeRequest(
            **outcome.model_dump(exclude={"first_look_s", "draft_s", "final_s"}),
            first_look_s=_seconds(outcome.first_look_s),
            draft_s=_seconds(outcome.draft_s),
            final_s=_seconds(outcome.final_s),
        )
        await self._tell_all("ReportOutcome", request)

    async def report_attempt(self, attempt: Attempt) -> None:
        """Tell every scheduler how it went at another node. Raises the last failure where none took it."""
        await self._tell_all("ReportAttempt", pb.ReportAttemptRequest(**attempt.model_dump()))

    async def _tell_all(self, method: str, request: object) -> None:
        if not self._order:
            raise NodeUnavailable("no scheduler is configured")
        async with asyncio.TaskGroup() as group:
            channels = {address: self._channels[address] for address in self._order}
            told = [
                group.create_task(_tell(address, channel, method, request)) for address, channel in channels.items()
            ]
        failures = [failure for task in told if (failure := task.result()) is not None]
        if len(failures) == len(told):
            raise failures[-1]

    async def update(self, addresses: list[str]) -> None:
        """Ask these schedulers from now on; the order among those already known stays."""
        for address in addresses:
            if address not in self._channels:
                self._channels[address] = open_channel(address, tls=self._tls)
                self._order.append(address)
        for address in [known for known in self._order if known not in addresses]:
            self._order.remove(address)
            await self._channels.pop(address).close(None)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()


def _turn(message: pb.NextJobResponse) -> Turn:
    """A turn from the wire; raises InternalError for one that could not be taken."""
    try:
        check_name(message.tenant, field="tenant")
        check_video_id(message.job_id, field="job_id")
    except InvalidRequest as exc:
        raise InternalError(f"not a turn: {exc.message}") from exc
    if not 0.0 <= message.rest_s <= LONGEST_REST_S:  # nor if it is no number
        raise InternalError(f"not a turn: rest_s is {message.rest_s}; allowed: 0 to {LONGEST_REST_S:g}")
    return Turn(tenant=message.tenant, job_id=message.job_id, rest_s=message.rest_s)


async def _tell(address: str, channel: grpc.aio.Channel, method: str, request: object) -> AdaptiveGenError | None:
    stub = stubs.PlacementServiceStub(channel)
    try:
        await call(getattr(stub, method), request, deadline_s=REPORT_DEADLINE_S, peer=f"scheduler {address}")
    except AdaptiveGenError as exc:
        return exc
    return None
