"""Placement over gRPC: conversions between adaptivegen.placement and the wire, and the servicer. The client that asks
is `placement_client`.

An absent time is None here and negative on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from pydantic import ValidationError

from adaptivegen.discovery.base import is_address
from adaptivegen.errors import InternalError, InvalidRequest
from adaptivegen.ids import check_name
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
    Tier,
    Turn,
)
from adaptivegen.rpc.pb import placement_pb2 as pb
from adaptivegen.rpc.pb import placement_pb2_grpc as stubs
from adaptivegen.rpc.peer import names_of
from adaptivegen.rpc.server import RpcServer
from adaptivegen.speakers import Speakers

SERVICE = "adaptivegen.v1.PlacementService"
PLACE = f"/{SERVICE}/Place"
MOST_NEAR_BYTES = 2.0**40  # of a video's file
_TIMES = ("first_look_s", "draft_s", "final_s", "first_look_upper_s", "draft_upper_s", "final_upper_s")  # a candidate's
_TIERS: dict[str, Tier] = {tier: tier for tier in TIERS}
_NUMBERS = (*_TIMES, "qoe", "gpu_s", "score", "moved_bytes", "transfer_s", "load_s")


def seconds(value: float | None) -> float:
    """A time for the wire."""
    return -1.0 if value is None else value


def _optional(value: float) -> float | None:
    return None if value < 0 else value


def decision_to_pb(decision: Decision) -> pb.Decision:
    """A decision for the wire."""
    message = pb.Decision(
        job_id=decision.job_id,
        plan=decision.plan,
        edge_id=decision.edge_id,
        pool=decision.pool,
        final_steps=decision.final_steps,
        refine_t0=seconds(decision.refine_t0),
        decided_by=decision.decided_by,
        decided_at_ns=decision.decided_at_ns,
        reasons=decision.reasons,
        view_digest=decision.view_digest,
        propensity=decision.propensity,
        draft_edge_id=decision.draft_edge_id,
        backup_edge_id=decision.backup_edge_id,
        backup_after_s=decision.backup_after_s,
        tied_after_s=decision.tied_after_s,
        draft_gain=decision.draft_gain,
        draft_yields_s=decision.draft_yields_s,
        settles=decision.settles,
        refused=decision.refused,
        refused_param=decision.refused_param,
        retry_after_s=decision.retry_after_s,
    )
    for place in decision.draft_places:  # added in place: a message that is made before is copied into this one
        message.draft_places.add(
            edge_id=place.edge_id,
            address=place.address,
            draft_s=place.draft_s,
            load_s=place.load_s,
            weight=place.weight,
            chance=place.chance,
        )
    for candidate in decision.candidates:
        message.candidates.add(
            plan=candidate.plan,
            feasible=candidate.feasible,
            reason=candidate.reason,
            first_look_s=seconds(candidate.first_look_s),
            draft_s=seconds(candidate.draft_s),
            final_s=seconds(candidate.final_s),
            first_look_upper_s=candidate.first_look_upper_s,
            draft_upper_s=seconds(candidate.draft_upper_s),
            final_upper_s=seconds(candidate.final_upper_s),
            qoe=candidate.qoe,
            gpu_s=candidate.gpu_s,
            score=candidate.score,
            moved_bytes=candidate.moved_bytes,
            transfer_s=candidate.transfer_s,
            load_s=candidate.load_s,
        )
    return message


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
    tied_s = decision.tied_after_s if math.isfinite(decision.tied_after_s) and backup in ids else 0.0
    return decision.model_copy(
        update={
            "draft_places": places,
            "draft_edge_id": decision.draft_edge_id if decision.draft_edge_id in ids else "",
            "backup_edge_id": backup if backup in ids else "",
            "backup_after_s": after_s if backup in ids else 0.0,
            "tied_after_s": max(0.0, tied_s),
            "draft_gain": decision.draft_gain if math.isfinite(decision.draft_gain) else 0.0,
            "draft_yields_s": decision.draft_yields_s if math.isfinite(decision.draft_yields_s) else 0.0,
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
        tied_after_s=message.tied_after_s,
        draft_gain=message.draft_gain,
        draft_yields_s=message.draft_yields_s,
        settles=message.settles,
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
                first_look_upper_s=candidate.first_look_upper_s if candidate.HasField("first_look_upper_s") else None,
                draft_upper_s=_optional(candidate.draft_upper_s),
                final_upper_s=_optional(candidate.final_upper_s),
                qoe=candidate.qoe,
                gpu_s=candidate.gpu_s,
                score=candidate.score,
                moved_bytes=candidate.moved_bytes,
                transfer_s=candidate.transfer_s,
                load_s=candidate.load_s,
            )
            for candidate in message.candidates
        ),
    )


def query_to_pb(query: PlacementQuery) -> pb.PlaceRequest:
    """A query for the wire."""
    return pb.PlaceRequest(**query.model_dump(exclude_none=True))


def query_to_wire(query: PlacementQuery) -> bytes:
    """A query as the bytes of its message, for callers that encode before they call."""
    return query_to_pb(query).SerializeToString()


def decision_from_wire(message: bytes) -> Decision:
    """A decision from the bytes of its message; raises InternalError as `decision_from_pb`."""
    return decision_from_pb(pb.Decision.FromString(message))


def query_from_pb(message: pb.PlaceRequest) -> PlacementQuery:
    """A query from the wire; raises InvalidRequest for an unknown intent or tier, or a near video that cannot be."""
    tier = _TIERS.get(message.tier or "default")
    if tier is None:
        raise InvalidRequest.field("tier", message.tier, ", ".join(TIERS))
    if message.intent not in ("iterate", "render"):
        raise InvalidRequest.field("intent", message.intent, "iterate, render")
    if not 0.0 <= message.near_similarity <= 1.0:  # nor if it is no number
        raise InvalidRequest.field("near_similarity", message.near_similarity, "0 to 1")
    if not 0.0 <= message.near_bytes <= MOST_NEAR_BYTES:
        raise InvalidRequest.field("near_bytes", message.near_bytes, f"0 to {MOST_NEAR_BYTES:g}")
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
        line=message.line,
        draft_line=message.draft_line,
        near_similarity=message.near_similarity,
        near_model=message.near_model,
        near_bytes=message.near_bytes,
    )


class PlacementServicer(stubs.PlacementServiceServicer):
    """Serves the placement service by plain callables. speakers: whose certificate may speak for which node; None where
    callers show none."""

    def __init__(
        self,
        place: Callable[[PlacementQuery], Awaitable[Decision]],
        observe: Callable[[Outcome], Awaitable[None]],
        attempted: Callable[[Attempt], Awaitable[None]],
        next_job: Callable[[Ticket], Awaitable[Turn]],
        *,
        speakers: Speakers | None = None,
    ) -> None:
        self._speakers = speakers
        self._place = place
        self._next_job = next_job
        self._observe = observe
        self._attempted = attempted

    def add_to(self, server: RpcServer) -> None:
        """Serve on `server`."""
        server.register(stubs.add_PlacementServiceServicer_to_server, self, SERVICE)

    def _speaks(self, context: grpc.aio.ServicerContext[Any, Any], node_id: str, field: str) -> None:
        """Raise PermissionDenied where the caller may not speak for a node."""
        if self._speakers is not None:
            self._speakers.require(names_of(context), node_id, field=field)

    async def Place(self, request: pb.PlaceRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.Decision:
        self._speaks(context, request.edge_id, "edge_id")
        return decision_to_pb(await self._place(query_from_pb(request)))

    async def ReportOutcome(
        self, request: pb.ReportOutcomeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReportOutcomeResponse:
        self._speaks(context, request.edge_id, "edge_id")
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
                line=request.line,
                cloud_model=request.cloud_model,
                made_with=request.made_with,
                failed_with=request.failed_with,
                pixels=request.pixels,
                session=request.session,
                final_bytes=request.final_bytes,
                draft_line=request.draft_line,
                draft_model=request.draft_model,
                drafted_with=request.drafted_with,
                draft_failed_with=request.draft_failed_with,
                draft_node_s=request.draft_node_s,
                draft_pixels=request.draft_pixels,
                draft_bytes=request.draft_bytes,
                final_steps=request.final_steps,
            )
        )
        return pb.ReportOutcomeResponse()

    async def ReportAttempt(
        self, request: pb.ReportAttemptRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReportAttemptResponse:
        self._speaks(context, request.reporter, "reporter")
        await self._attempted(
            Attempt(node_id=request.node_id, reporter=request.reporter, ok=request.ok, code=request.code)
        )
        return pb.ReportAttemptResponse()

    async def NextJob(
        self, request: pb.NextJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.NextJobResponse:
        self._speaks(context, request.worker_id, "worker_id")
        ticket = Ticket(
            worker_id=request.worker_id,
            pool=request.pool,
            model=request.model,
            tenant=request.tenant,
            job_id=request.job_id,
            models=tuple(request.models),
            free_in_s=request.free_in_s,
        )
        turn = await self._next_job(ticket)
        return pb.NextJobResponse(
            tenant=turn.tenant,
            job_id=turn.job_id,
            rest_s=turn.rest_s,
            final_steps=turn.told.steps,
            others_wait=turn.told.others_wait,
        )
