"""The wire's rules over real gRPC on loopback: deadlines, errors by class, bugs, drafts, draining."""

import asyncio
import gc
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

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
    NotFound,
    PermissionDenied,
    SettingsInvalid,
    Unavailable,
)
from adaptivegen.generation.messages import Step
from adaptivegen.placement import Attempt, Candidate, Decision, Outcome, PlacementQuery, Ticket, Turn
from adaptivegen.rpc.channel import call, open_channel, stream
from adaptivegen.rpc.draft import CHUNK_BYTES, DraftOrder, DraftServicer, FetchedDraft, Lent, MadeDraft, fetch_draft
from adaptivegen.rpc.pb import draft_pb2, draft_pb2_grpc, placement_pb2, placement_pb2_grpc
from adaptivegen.rpc.placement import PlacementServicer
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.rpc.server import RpcServer
from adaptivegen.telemetry import carry

DEADLINE_S = 10.0
DECISION = Decision(
    job_id="vid_1",
    plan="refine",
    edge_id="edge-1",
    pool="default",
    final_steps=4,
    refine_t0=0.5,
    decided_by="s1",
    decided_at_ns=2**60,
    reasons=("because é", ""),
    candidates=(Candidate(plan="draft", feasible=False, reason="no", draft_s=0.0),),
)
QUERY = PlacementQuery(
    job_id="vid_1",
    tenant="t",
    edge_id="edge-1",
    intent="render",
    draft_model="d",
    cloud_model="c",
    width=256,
    height=256,
    frames=24,
)
Place = Callable[[PlacementQuery], Awaitable[Decision]]
Drafts = Callable[[str, str, str], Awaitable[MadeDraft]]
Make = Callable[[DraftOrder], AsyncGenerator[Step | Lent | None, None]]


async def ignore(outcome: Outcome) -> None:
    return None


async def no_draft(tenant: str, job_id: str, token: str) -> MadeDraft:
    raise NotFound("no draft here")


async def ignore_attempt(attempt: Attempt) -> None:
    return None


async def same(ticket: Ticket) -> Turn:
    return Turn(tenant=ticket.tenant, job_id=ticket.job_id)


async def none_made(order: DraftOrder) -> AsyncGenerator[Step | Lent | None, None]:
    raise NotFound("no such job")
    yield None


async def no_place(query: PlacementQuery) -> Decision:
    raise InvalidRequest("not asked")


@asynccontextmanager
async def serving(
    *, place: Place = no_place, drafts: Drafts = no_draft, make: Make = none_made
) -> AsyncIterator[tuple[RpcServer, str]]:
    server = RpcServer(rng=random.Random(1))
    PlacementServicer(place, ignore, ignore_attempt, same).add_to(server)
    DraftServicer(drafts, make, SystemClock()).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.drain(grace_s=0.0)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(address)
    try:
        yield channel
    finally:
        await channel.close(None)


async def place_at(address: str, *, deadline_s: float = DEADLINE_S) -> object:
    async with channel_to(address) as channel:
        stub = placement_pb2_grpc.PlacementServiceStub(channel)
        request = placement_pb2.PlaceRequest(**QUERY.model_dump(exclude_none=True))
        return await call(stub.Place, request, deadline_s=deadline_s, peer="scheduler")


async def test_a_decision_is_the_same_after_the_wire() -> None:
    asked: list[PlacementQuery] = []

    async def place(query: PlacementQuery) -> Decision:
        asked.append(query)
        return DECISION

    async with serving(place=place) as (_, address):
        client = PlacementClient([address], clock=SystemClock(), budget_s=DEADLINE_S)
        assert await client.place(QUERY) == DECISION
        assert asked == [QUERY]


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


# ---- drafts -------------------------------------------------------------------------------------------------------


async def fetched(address: str, tenant: str = "t", job_id: str = "j", token: str = "x") -> FetchedDraft:
    clock = SystemClock()
    return await fetch_draft(
        address, tenant=tenant, job_id=job_id, token=token, deadline_s=DEADLINE_S, tls=None, clock=clock
    )


MP4 = random.Random(5).randbytes(2 * CHUNK_BYTES + 17)


async def one_draft(tenant: str, job_id: str, token: str) -> MadeDraft:
    if (tenant, job_id) != ("t", "j"):
        raise NotFound("no draft here")
    if token != "x":
        raise PermissionDenied("not the token")
    return MadeDraft(MP4, "test-draft-2")


async def test_a_draft_arrives_whole() -> None:
    async with serving(drafts=one_draft) as (_, address):
        draft = await fetched(address)
        assert (draft.mp4, draft.made_with) == (MP4, "test-draft-2")
        assert draft.fetch_s is not None and 0.0 <= draft.fetch_s < 1.0


async def test_fetching_takes_what_it_was_later_than_the_draft_however_long_that_was_made() -> None:
    async def made(tenant: str, job_id: str, token: str) -> MadeDraft:
        await asyncio.sleep(1.0)
        return MadeDraft(MP4)

    async with serving(drafts=made) as (_, address):
        draft = await fetched(address)
        assert draft.fetch_s is not None and 0.0 <= draft.fetch_s < 0.5


@pytest.mark.parametrize(
    ("tenant", "job_id", "token", "error"),
    [("t", "k", "x", NotFound), ("u", "j", "x", NotFound), ("t", "j", "y", PermissionDenied)],
)
async def test_a_draft_that_is_not_there_or_not_yours(
    tenant: str, job_id: str, token: str, error: type[AdaptiveGenError]
) -> None:
    async with serving(drafts=one_draft) as (_, address):
        with pytest.raises(error):
            await fetched(address, tenant, job_id, token)


@pytest.mark.parametrize("offset", [0, 1, CHUNK_BYTES, len(MP4) - 1, len(MP4)])
async def test_a_draft_resumes_at_any_offset(offset: int) -> None:
    async with serving(drafts=one_draft) as (_, address), channel_to(address) as channel:
        request = draft_pb2.FetchDraftRequest(tenant="t", job_id="j", token="x", offset_bytes=offset)
        stub = draft_pb2_grpc.DraftServiceStub(channel)
        chunks = [chunk async for chunk in stream(stub.FetchDraft, request, deadline_s=DEADLINE_S, peer="edge")]
        assert b"".join(chunk.data for chunk in chunks) == MP4[offset:]
        assert chunks.pop(0).data == b""  # at once, before the draft is waited for
        assert all(chunk.total_bytes == len(MP4) and len(chunk.data) <= CHUNK_BYTES for chunk in chunks)


async def test_an_offset_behind_the_end_is_refused() -> None:
    async with serving(drafts=one_draft) as (_, address), channel_to(address) as channel:
        request = draft_pb2.FetchDraftRequest(tenant="t", job_id="j", token="x", offset_bytes=len(MP4) + 1)
        stub = draft_pb2_grpc.DraftServiceStub(channel)
        with pytest.raises(InvalidRequest, match="offset_bytes"):
            async for _ in stream(stub.FetchDraft, request, deadline_s=DEADLINE_S, peer="edge"):
                pass


async def test_an_edge_without_an_address_is_unavailable() -> None:
    with pytest.raises(NodeUnavailable):
        await fetched("")


# ---- draining -----------------------------------------------------------------------------------------------------


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
