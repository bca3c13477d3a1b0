"""An edge's client of schedulers that answer oddly, over real gRPC."""

import random

import pytest

from adaptivegen.clock import SystemClock
from adaptivegen.errors import AdaptiveGenError, Cancelled, Conflict, InternalError, InvalidRequest, PermissionDenied
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.rpc.server import RpcServer
from tests.integration.test_rpc_server import DEADLINE_S, DECISION, QUERY, serving


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
