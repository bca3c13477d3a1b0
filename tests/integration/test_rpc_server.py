"""The wire's rules over real gRPC on loopback: deadlines, errors by class, bugs, draining."""

import asyncio
import gc
import math
import random
from contextlib import aclosing

import grpc
import pytest
from grpc_health.v1 import health_pb2

from adaptivegen.clock import SystemClock
from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    SettingsInvalid,
    Unavailable,
)
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.rpc.channel import stream
from adaptivegen.rpc.draft import CHUNK_BYTES, MadeDraft
from adaptivegen.rpc.pb import draft_pb2, draft_pb2_grpc, placement_pb2, placement_pb2_grpc
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.rpc.server import RpcServer
from adaptivegen.telemetry import carry
from tests.integration.wire import DEADLINE_S, DECISION, QUERY, channel_to, fetched, place_at, serving


async def test_a_decision_is_the_same_after_the_wire() -> None:
    asked: list[PlacementQuery] = []

    async def place(query: PlacementQuery) -> Decision:
        asked.append(query)
        return DECISION

    near = QUERY.model_copy(update={"near_similarity": 0.95, "near_model": "m", "near_bytes": 1e6})
    async with serving(place=place) as (_, address):
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY) == await client.place(near) == DECISION
        assert asked == [QUERY, near]


@pytest.mark.parametrize(
    ("field", "value"),
    [("near_similarity", math.nan), ("near_similarity", 1.1), ("near_bytes", -1.0), ("near_bytes", math.inf)],
)
async def test_a_near_video_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    async def place(query: PlacementQuery) -> Decision:
        raise AssertionError("not reached")

    async with serving(place=place) as (_, address):
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        with pytest.raises(InvalidRequest) as caught:
            await client.place(QUERY.model_copy(update={field: value}))
        assert caught.value.param == field
        await client.close()


async def test_a_call_without_a_deadline_is_refused_unary_and_streaming() -> None:
    async with serving() as (_, address), channel_to(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="deadline") as unary:
            await placement_pb2_grpc.PlacementServiceStub(channel).Place(placement_pb2.PlaceRequest(intent="render"))
        assert unary.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="deadline") as streaming:
            async for _ in draft_pb2_grpc.DraftServiceStub(channel).FetchDraft(draft_pb2.FetchDraftRequest()):
                pass
        assert streaming.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("cls", [cls for cls in STATUS if cls is not AdaptiveGenError])
async def test_every_error_arrives_as_its_own_class_with_all_it_says(cls: type[AdaptiveGenError]) -> None:
    async def place(query: PlacementQuery) -> Decision:
        raise cls("why é not", param="size", retry_after_s=1.5)

    async with serving(place=place) as (_, address):
        with pytest.raises(cls) as caught:
            await place_at(address)
        assert type(caught.value) is cls
        assert (caught.value.message, caught.value.param, caught.value.retry_after_s) == ("why é not", "size", 1.5)
        cause = caught.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert cause.code().name == STATUS[cls].grpc


@pytest.mark.parametrize(
    ("message", "param"),
    [("no", "größe"), ("no", "a\nb"), ("no", "p" * 9000), ("x" * 20_000, "size"), ("\N{GRINNING FACE}" * 5000, "size")],
    ids=["param not ASCII", "param of two lines", "long param", "long message", "long message not ASCII"],
)
async def test_an_error_arrives_whatever_its_text(message: str, param: str) -> None:
    async def place(query: PlacementQuery) -> Decision:
        raise InvalidRequest(message, param=param)

    async with serving(place=place) as (_, address):
        for _ in range(5):  # beyond 8 KiB of headers gRPC throws dice
            with pytest.raises(InvalidRequest) as caught:
                await place_at(address)
            assert caught.value.message[:2] == message[:2]
            assert caught.value.param in (None, "size")


async def test_a_bug_is_internal_and_its_text_stays_in_the_log() -> None:
    async def place(query: PlacementQuery) -> Decision:
        raise ZeroDivisionError("a secret")

    async def drafts(tenant: str, job_id: str, token: str) -> MadeDraft:
        raise ZeroDivisionError("a secret")

    async with serving(place=place, drafts=drafts) as (_, address):
        with pytest.raises(InternalError, match="ZeroDivisionError") as unary:
            await place_at(address)
        with pytest.raises(InternalError, match="ZeroDivisionError") as streaming:
            await fetched(address)
        assert "secret" not in unary.value.message + streaming.value.message


async def test_a_peer_that_is_not_there_is_a_node_unavailable() -> None:
    async with serving() as (_, address):
        pass
    with pytest.raises(NodeUnavailable, match="scheduler"):
        await place_at(address)


async def test_a_peer_that_does_not_answer_is_a_deadline_exceeded() -> None:
    async def place(query: PlacementQuery) -> Decision:
        await asyncio.Event().wait()
        return DECISION

    async with serving(place=place) as (_, address):
        with pytest.raises(DeadlineExceeded):
            await place_at(address, deadline_s=0.2)


async def test_an_address_in_use_is_refused_in_words() -> None:
    async with serving() as (_, address):
        other = RpcServer(rng=random.Random(1))
        with pytest.raises(SettingsInvalid, match="cannot listen"):
            other.reserve(host="127.0.0.1", port=int(address.rpartition(":")[2]), tls=None)


async def test_the_next_scheduler_is_asked_when_one_is_away() -> None:
    async def place(query: PlacementQuery) -> Decision:
        return DECISION

    async with serving() as (_, gone):
        pass
    async with serving(place=place) as (_, address):
        client = PlacementClient([gone, address], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY) == DECISION
    with pytest.raises(Unavailable):
        await PlacementClient([], clock=SystemClock()).place(QUERY)


async def test_health_is_served_without_a_deadline_and_follows_the_drain_flag() -> None:
    async with serving() as (server, address), channel_to(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        states = health_pb2.HealthCheckResponse
        for name in ("", "adaptivegen.v1.DraftService"):
            assert (await check(health_pb2.HealthCheckRequest(service=name))).status == states.SERVING
        await server.set_serving(False)
        assert (await check(health_pb2.HealthCheckRequest())).status == states.NOT_SERVING


async def test_an_open_call_finishes_while_draining_and_new_ones_are_refused() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def place(query: PlacementQuery) -> Decision:
        entered.set()
        await go.wait()
        return DECISION

    async with serving(place=place) as (server, address), asyncio.TaskGroup() as group:
        open_call = group.create_task(place_at(address))
        await entered.wait()
        drained = group.create_task(server.drain(grace_s=DEADLINE_S))
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await no_answer(address)
                except NodeUnavailable:
                    break
        assert not drained.done()
        go.set()
        assert await open_call is not None


async def no_answer(address: str) -> None:
    """A call that nobody may answer; DeadlineExceeded while the server still takes calls."""
    try:
        await place_at(address, deadline_s=0.1)
    except DeadlineExceeded:
        return


async def test_a_call_that_outlasts_the_grace_is_ended() -> None:
    entered = asyncio.Event()

    async def place(query: PlacementQuery) -> Decision:
        entered.set()
        await asyncio.Event().wait()
        return DECISION

    async with serving(place=place) as (server, address), asyncio.TaskGroup() as group:
        open_call = group.create_task(failure(address))
        await entered.wait()
        await server.drain(grace_s=0.05)
        assert (await open_call).retryable


async def failure(address: str) -> AdaptiveGenError:
    with pytest.raises(AdaptiveGenError) as caught:
        await place_at(address)
    return caught.value


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "a/b"])
async def test_a_request_id_that_cannot_be_passed_on_is_replaced(sent: str) -> None:
    seen: list[str] = []

    async def place(query: PlacementQuery) -> Decision:
        seen.append(carry()["x-request-id"])
        return DECISION

    async with serving(place=place) as (_, address), channel_to(address) as channel:
        stub = placement_pb2_grpc.PlacementServiceStub(channel)
        request = placement_pb2.PlaceRequest(**QUERY.model_dump(exclude_none=True))
        await stub.Place(request, timeout=DEADLINE_S, metadata=(("x-request-id", sent),))
        await stub.Place(request, timeout=DEADLINE_S, metadata=(("x-request-id", "Good_1.2-3"),))
    assert seen[0].startswith("req_")
    assert seen[1] == "Good_1.2-3"


async def test_a_stream_goes_on_in_the_trace_of_its_caller() -> None:
    seen: list[str] = []

    async def drafts(tenant: str, job_id: str, token: str) -> MadeDraft:
        seen.append(carry()["traceparent"])
        return MadeDraft(b"clip")

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with serving(drafts=drafts) as (_, address), channel_to(address) as channel:
        stub = draft_pb2_grpc.DraftServiceStub(channel)
        metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
        request = draft_pb2.FetchDraftRequest(tenant="t", job_id="j", token="k")
        async for _ in stub.FetchDraft(request, timeout=DEADLINE_S, metadata=metadata):
            pass
    assert seen[0].split("-")[1] == trace_id


async def test_a_stream_that_its_caller_leaves_ends_without_a_word_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def drafts(tenant: str, job_id: str, token: str) -> MadeDraft:
        return MadeDraft(bytes(200 * CHUNK_BYTES))  # far more than is sent ahead of a reader

    async with serving(drafts=drafts) as (_, address), channel_to(address) as channel:
        stub = draft_pb2_grpc.DraftServiceStub(channel)
        request = draft_pb2.FetchDraftRequest(tenant="t", job_id="j", token="k")
        for _ in range(3):
            async with aclosing(stream(stub.FetchDraft, request, deadline_s=DEADLINE_S, peer="edge")) as chunks:
                async for chunk in chunks:
                    if chunk.data:
                        break
    gc.collect()
    await asyncio.sleep(0)  # generators that were dropped are ended by tasks of their own
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
