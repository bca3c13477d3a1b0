"""An edge's client of schedulers that answer oddly, over real gRPC."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from adaptivegen.clock import SystemClock
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    Conflict,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    PermissionDenied,
)
from adaptivegen.placement import Candidate, Decision, DraftPlace, PlacementQuery, Ticket, ToldSteps, Turn
from adaptivegen.rpc.placement import SERVICE, PlacementServicer, decision_to_pb
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.rpc.server import RpcServer
from tests.integration.wire import DEADLINE_S, DECISION, QUERY, serving

Answer = Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[bytes]]


@asynccontextmanager
async def stranger(answer: Answer) -> AsyncIterator[str]:
    """The address of a bare gRPC server, none of ours, that answers `Place` with these bytes or by aborting."""
    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Place": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def aborting(status: grpc.StatusCode, *trailing: tuple[str, str]) -> Answer:
    async def answer(request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        await context.abort(status, "odd", trailing)
        raise AssertionError("not reached")

    return answer


def saying(answer: bytes | Decision) -> Answer:
    async def said(request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        return answer if isinstance(answer, bytes) else decision_to_pb(answer).SerializeToString()

    return said


def but(**changed: object) -> Decision:
    """The right decision but for this."""
    return DECISION.model_copy(update=changed)


ODD: dict[str, Answer] = {
    **{
        f"status {status.name}": aborting(status)
        for status in grpc.StatusCode
        if status.name not in ("OK", "INVALID_ARGUMENT")
    },
    "an error of another version": aborting(grpc.StatusCode.INTERNAL, ("ag-error-code", "from_the_future")),
    "a delay that is no number": aborting(
        grpc.StatusCode.UNAVAILABLE, ("ag-error-code", "unavailable"), ("ag-retry-after-s", "soon")
    ),
    "no message": saying(b"\xff\xff\xff\xff"),
    "an empty message": saying(b""),
    "an unknown plan": saying(but(plan="teleport")),
    "an unknown plan of a candidate": saying(
        but(candidates=(DECISION.candidates[0].model_copy(update={"plan": "x"}),))
    ),
    "another job": saying(but(job_id="vid_2")),
    "a hit of unknown content": saying(but(plan="hit")),
    "a similar video where none is known": saying(but(plan="near-hit")),
    "a pool that names nothing": saying(but(pool="../x")),
    "a score that is no number": saying(
        but(candidates=(Candidate(plan="draft", feasible=True, reason="", qoe=math.nan),))
    ),
    "a t0 beyond the end": saying(but(refine_t0=math.inf)),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_after_an_odd_answer_the_next_is_asked_and_without_one_it_is_a_typed_error(odd: Answer) -> None:
    async with stranger(odd) as first, stranger(saying(DECISION)) as second:
        client = PlacementClient([first, second], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY) == DECISION
        await client.close()
        alone = PlacementClient([first], clock=SystemClock(), budget_s=DEADLINE_S)
        with pytest.raises(AdaptiveGenError) as caught:
            await alone.place(QUERY)
        await alone.close()
    assert not isinstance(caught.value, (InvalidRequest, ModelNotFound))  # an edge then decides alone


async def test_a_scheduler_of_an_older_version_tells_no_upper_time_of_first_looks() -> None:
    message = decision_to_pb(DECISION)
    assert any(candidate.HasField("first_look_upper_s") for candidate in message.candidates)
    for candidate in message.candidates:
        candidate.ClearField("first_look_upper_s")
    async with stranger(saying(message.SerializeToString())) as address:
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        decision = await client.place(QUERY)
        await client.close()
    assert {candidate.first_look_upper_s for candidate in decision.candidates} == {None}


async def test_a_hit_of_known_content_is_taken() -> None:
    hit = but(plan="hit")
    async with stranger(saying(hit)) as address:
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY.model_copy(update={"content_known": True})) == hit
        await client.close()


async def test_a_scheduler_that_is_dropped_while_it_is_asked_is_away_and_cancels_nobody() -> None:
    asked = asyncio.Event()

    async def hang(query: PlacementQuery) -> Decision:
        asked.set()
        await asyncio.Event().wait()
        return DECISION

    async def drop(client: PlacementClient, stays: str) -> None:
        await asked.wait()
        await client.update([stays])

    async with serving(place=hang) as (_, first), stranger(saying(DECISION)) as second:
        client = PlacementClient([first, second], clock=SystemClock(), budget_s=DEADLINE_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(drop(client, second))
            assert await client.place(QUERY) == DECISION
        await client.close()
        with pytest.raises(NodeUnavailable):
            await client.place(QUERY)


async def test_one_who_stops_waiting_for_a_scheduler_is_cancelled() -> None:
    asked = asyncio.Event()

    async def hang(query: PlacementQuery) -> Decision:
        asked.set()
        await asyncio.Event().wait()
        return DECISION

    async with serving(place=hang) as (_, address):
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as patience:
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.place(QUERY))
                    await asked.wait()
                    patience.reschedule(0)
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [
        InternalError("a bug"),
        PermissionDenied("not you"),
        Conflict("odd"),
        Cancelled("draining"),
        DECISION.model_copy(update={"plan": "teleport"}),
        ZeroDivisionError("a bug"),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_the_next_scheduler_is_asked_whatever_the_first_answers(answer: Exception | Decision) -> None:
    async def odd(query: PlacementQuery) -> Decision:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def good(query: PlacementQuery) -> Decision:
        return DECISION

    async with serving(place=odd) as (_, first), serving(place=good) as (_, second):
        client = PlacementClient([first, second], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY) == DECISION
        await client.close()
        alone = PlacementClient([first], clock=SystemClock(), budget_s=DEADLINE_S)
        with pytest.raises(AdaptiveGenError):
            await alone.place(QUERY)
        await alone.close()


async def test_what_is_wrong_with_the_query_is_asked_of_one_scheduler_only() -> None:
    asked = 0

    async def refuse(query: PlacementQuery) -> Decision:
        nonlocal asked
        asked += 1
        raise InvalidRequest.field("tenant", query.tenant, "a name")

    async with serving(place=refuse) as (_, first), serving(place=refuse) as (_, second):
        client = PlacementClient([first, second], clock=SystemClock(), budget_s=DEADLINE_S)
        with pytest.raises(InvalidRequest):
            await client.place(QUERY)
        await client.close()
    assert asked == 1


async def test_a_peer_that_implements_no_placement_is_no_end_of_asking() -> None:
    server = RpcServer(rng=random.Random(1))
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    client = PlacementClient([f"127.0.0.1:{port}"], clock=SystemClock(), budget_s=DEADLINE_S)
    with pytest.raises(AdaptiveGenError):
        await client.place(QUERY)
    await client.close()
    await server.drain(grace_s=0)


@pytest.mark.parametrize(("after_s", "taken_s"), [(math.nan, 0.0), (math.inf, 0.0), (-1.0, 0.0), (0.5, 0.5)])
async def test_a_draft_is_never_tied_at_a_time_that_is_none(after_s: float, taken_s: float) -> None:
    places = (DraftPlace(edge_id="edge-2", address="127.0.0.1:2", draft_s=0.5, load_s=0.0),)
    tied = but(backup_edge_id="edge-2", backup_after_s=9.0, tied_after_s=after_s, draft_places=places)
    async with stranger(saying(tied)) as address:
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        taken = await client.place(QUERY)
        assert (taken.backup_edge_id, taken.tied_after_s) == ("edge-2", taken_s)
        await client.close()


@pytest.mark.parametrize("told", [ToldSteps(), ToldSteps(8), ToldSteps(4, others_wait=True)])
async def test_steps_that_are_told_with_a_turn_arrive_with_their_reason(told: ToldSteps) -> None:
    async def next_job(ticket: Ticket) -> Turn:
        return Turn(tenant=ticket.tenant, job_id=ticket.job_id, told=told)

    async def never(asked: object) -> Decision:
        raise NodeUnavailable("not asked for here")

    server = RpcServer(rng=random.Random(1))
    PlacementServicer(never, cast(Any, never), cast(Any, never), next_job).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    client = PlacementClient([f"127.0.0.1:{port}"], clock=SystemClock(), budget_s=DEADLINE_S)
    job_id = "vid_" + "0" * 26
    asked = Ticket(worker_id="worker-1", pool="default", model="m", tenant="local", job_id=job_id)
    try:
        assert await client.next_job(asked) == Turn(tenant="local", job_id=job_id, told=told)
    finally:
        await client.close()
        await server.drain(grace_s=0.0)
