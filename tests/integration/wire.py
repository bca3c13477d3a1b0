"""A gRPC server of all services on loopback, and callers of it."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from adaptivegen.clock import SystemClock
from adaptivegen.errors import InvalidRequest, NotFound
from adaptivegen.generation.messages import Step
from adaptivegen.placement import Attempt, Candidate, Decision, Outcome, PlacementQuery, Ticket, Turn
from adaptivegen.rpc.channel import call, open_channel
from adaptivegen.rpc.draft import DraftOrder, DraftServicer, FetchedDraft, Lent, MadeDraft, fetch_draft
from adaptivegen.rpc.pb import placement_pb2, placement_pb2_grpc
from adaptivegen.rpc.placement import PlacementServicer
from adaptivegen.rpc.server import RpcServer

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
    candidates=(Candidate(plan="draft", feasible=False, reason="no", first_look_upper_s=0.2, draft_s=0.0),),
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


async def fetched(address: str, tenant: str = "t", job_id: str = "j", token: str = "x") -> FetchedDraft:
    clock = SystemClock()
    return await fetch_draft(
        address, tenant=tenant, job_id=job_id, token=token, deadline_s=DEADLINE_S, tls=None, clock=clock
    )
