"""The draft's way over gRPC: from an edge to the worker that refines it, and from an edge to the one that asked for it.

The servicer on the edge that makes drafts, the clients on whoever needs them.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from adaptivegen.clock import Clock
from adaptivegen.errors import InternalError, InvalidRequest, NodeUnavailable
from adaptivegen.generation.messages import Generated, Step
from adaptivegen.rpc.channel import ClientTls, open_channel, stream
from adaptivegen.rpc.pb import draft_pb2 as pb
from adaptivegen.rpc.pb import draft_pb2_grpc as stubs
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.DraftService"
CHUNK_BYTES = 256 * 1024
MAX_DRAFT_BYTES = 64 * 1024 * 1024
MAX_LOOK_BYTES = 512 * 1024
TAKEN_WITHIN_S = 1.0  # an edge that has not read the job by then is asked no longer
MAX_NAME = 63  # of a version
MAX_CHANNELS = 64  # idle ones that are kept


@dataclass(frozen=True, slots=True)
class MadeDraft:
    """A finished draft as MP4. made_with: the version of the draft model that made it, empty where that is not told."""

    mp4: bytes
    made_with: str = ""


@dataclass(frozen=True, slots=True)
class DraftOrder:
    """A draft that another edge is asked to make: the job, the token in its spec, the digest of the version of the
    draft model that is to make it."""

    tenant: str
    job_id: str
    token: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class Lent:
    """A draft that another edge has made, and the seconds that took it by its own clock."""

    generated: Generated
    took_s: float


@dataclass(frozen=True, slots=True)
class FetchedDraft:
    """A draft's MP4, the seconds by which fetching it was later than its being made, None where its edge does not say
    how long it waited, and the version that made it, as of `MadeDraft`."""

    mp4: bytes
    fetch_s: float | None
    made_with: str = ""


class DraftServicer(stubs.DraftServiceServicer):
    """Serves drafts by two callables.

    wait_for_draft: (tenant, job id, token) -> the draft, waiting while it is being made; raises NotFound or
    PermissionDenied. make_draft: see `edge_node.draft.lend.Lending.make`.
    """

    def __init__(
        self,
        wait_for_draft: Callable[[str, str, str], Awaitable[MadeDraft]],
        make_draft: Callable[[DraftOrder], AsyncGenerator[Step | Lent | None, None]],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._wait_for_draft = wait_for_draft
        self._make_draft = make_draft

    def add_to(self, server: RpcServer) -> None:
        """Serve on `server`."""
        server.register(stubs.add_DraftServiceServicer_to_server, self, SERVICE)

    async def FetchDraft(
        self, request: pb.FetchDraftRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.DraftChunk]:
        asked_s = self._clock.monotonic_s()
        yield pb.DraftChunk(offset_bytes=request.offset_bytes)  # the call has come: tells how far away the caller is
        made = await self._wait_for_draft(request.tenant, request.job_id, request.token)
        mp4, waited_s = made.mp4, self._clock.monotonic_s() - asked_s
        if request.offset_bytes > len(mp4):
            raise InvalidRequest.field("offset_bytes", request.offset_bytes, f"at most {len(mp4)}")
        sha256 = hashlib.sha256(mp4).hexdigest()
        for offset in range(request.offset_bytes, len(mp4), CHUNK_BYTES):
            yield pb.DraftChunk(
                offset_bytes=offset,
                data=mp4[offset : offset + CHUNK_BYTES],
                total_bytes=len(mp4),
                sha256=sha256,
                waited_s=waited_s if offset == request.offset_bytes else None,
                made_with=made.made_with,
            )

    async def MakeDraft(
        self, request: pb.MakeDraftRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.DraftUpdate]:
        order = DraftOrder(request.tenant, request.job_id, request.token, request.model_digest)
        async with aclosing(self._make_draft(order)) as told:
            async for item in told:
                if item is None:
                    yield pb.DraftUpdate(taken=pb.DraftTaken())
                elif isinstance(item, Step):
                    look = pb.DraftLook(step=item.step, steps=item.steps, stage=item.stage, jpeg=item.look_jpeg)
                    yield pb.DraftUpdate(look=look)
                else:
                    for update in _updates(item):
                        yield update


def _updates(lent: Lent) -> Iterator[pb.DraftUpdate]:
    """A made draft for the wire: what it is, then its bytes."""
    made, mp4 = lent.generated, lent.generated.mp4
    yield pb.DraftUpdate(
        made=pb.DraftMade(
            width=made.width,
            height=made.height,
            frames=made.frames,
            generate_ms=made.generate_ms,
            encode_ms=made.encode_ms,
            familiarity=made.familiarity,
            since_taken_s=lent.took_s,
        )
    )
    sha256 = hashlib.sha256(mp4).hexdigest()
    for offset in range(0, len(mp4), CHUNK_BYTES):
        data = mp4[offset : offset + CHUNK_BYTES]
        yield pb.DraftUpdate(chunk=pb.DraftChunk(offset_bytes=offset, data=data, total_bytes=len(mp4), sha256=sha256))


class DraftClient:
    """Asks other edges for drafts. Keeps a channel to each of the last ones; `close` closes them."""

    def __init__(self, *, tls: ClientTls | None) -> None:
        self._tls = tls
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._open: Counter[str] = Counter()  # calls under way

    async def borrow(
        self,
        address: str,
        order: DraftOrder,
        on_step: Callable[[Step], None],
        *,
        on_taken: Callable[[], None] = lambda: None,
        deadline_s: float,
    ) -> Lent:
        """The draft; that it was taken and looks are told as they come. If the calling task is cancelled, the other
        edge stops.

        Raises what that edge raised, NodeUnavailable also where it has not taken the job in time, DeadlineExceeded,
        InternalError for an answer that is no draft.
        """
        channel = self._take(address)
        try:
            await self._close_idle()
            return await self._borrowed(channel, address, order, on_step, on_taken, deadline_s=deadline_s)
        finally:
            self._open[address] -= 1

    async def _borrowed(
        self,
        channel: grpc.aio.Channel,
        address: str,
        order: DraftOrder,
        on_step: Callable[[Step], None],
        on_taken: Callable[[], None],
        *,
        deadline_s: float,
    ) -> Lent:
        stub = stubs.DraftServiceStub(channel)
        request = pb.MakeDraftRequest(
            tenant=order.tenant, job_id=order.job_id, token=order.token, model_digest=order.model_digest
        )
        peer = f"edge {address}"
        receiving = _Receiving(peer)
        async with aclosing(stream(stub.MakeDraft, request, deadline_s=deadline_s, peer=peer)) as updates:
            try:
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    await anext(updates)  # that it was taken
                on_taken()
            except TimeoutError as exc:
                raise NodeUnavailable(f"{peer} did not take a draft within {TAKEN_WITHIN_S:g} s") from exc
            except StopAsyncIteration as exc:
                raise InternalError(f"{peer} answered with nothing") from exc
            async for update in updates:
                if update.HasField("look"):
                    look = update.look
                    if len(look.jpeg) > MAX_LOOK_BYTES:
                        raise InternalError(f"{peer} sent a look of {len(look.jpeg)} bytes, over {MAX_LOOK_BYTES}")
                    on_step(Step(step=look.step, steps=look.steps, stage=look.stage, look_jpeg=look.jpeg))
                else:
                    receiving.take(update)
        return receiving.lent()

    def _take(self, address: str) -> grpc.aio.Channel:
        """A channel, counted as in use."""
        if address not in self._channels:
            self._channels[address] = open_channel(address, tls=self._tls)
        channel = self._channels[address]
        self._channels.move_to_end(address)
        self._open[address] += 1
        return channel

    async def _close_idle(self) -> None:
        """Of idle channels beyond the bound, those used last longest ago are closed."""
        idle = [known for known in self._channels if not self._open[known]]
        surplus = [(known, self._channels.pop(known)) for known in idle[: max(0, len(idle) - MAX_CHANNELS)]]
        for known, channel in surplus:
            self._open.pop(known, None)
            await channel.close()

    async def close(self) -> None:
        """Close all channels."""
        while self._channels:
            await self._channels.popitem()[1].close()


class _Receiving:
    """A draft on its way here."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._made: pb.DraftMade | None = None
        self._mp4 = bytearray()
        self._sha256 = ""

    def take(self, update: pb.DraftUpdate) -> None:
        """What it is, or its next bytes; raises InternalError for bytes out of order or too many."""
        if update.HasField("made"):
            self._made = update.made
            return
        chunk = update.chunk
        if chunk.offset_bytes != len(self._mp4) or len(self._mp4) + len(chunk.data) > MAX_DRAFT_BYTES:
            raise InternalError(f"{self._peer} sent offset {chunk.offset_bytes}, expected {len(self._mp4)}")
        self._mp4 += chunk.data
        self._sha256 = chunk.sha256

    def lent(self) -> Lent:
        """The whole; raises InternalError where something is missing or the digest is another."""
        made, mp4 = self._made, bytes(self._mp4)
        if made is None or hashlib.sha256(mp4).hexdigest() != self._sha256:
            raise InternalError(f"{self._peer} sent a draft that is not whole")
        if not all(
            math.isfinite(told) and told >= 0 for told in (made.generate_ms, made.encode_ms, made.since_taken_s)
        ):
            raise InternalError(f"{self._peer} sent a draft with impossible times")
        generated = Generated(
            mp4=mp4,
            width=made.width,
            height=made.height,
            frames=made.frames,
            generate_ms=made.generate_ms,
            encode_ms=made.encode_ms,
            familiarity=made.familiarity if made.HasField("familiarity") else None,
        )
        return Lent(generated, made.since_taken_s)


async def fetch_draft(
    address: str, *, tenant: str, job_id: str, token: str, deadline_s: float, tls: ClientTls | None, clock: Clock
) -> FetchedDraft:
    """The draft, its digest checked. Raises NotFound, PermissionDenied, NodeUnavailable, DeadlineExceeded."""
    if not address:
        raise NodeUnavailable("the job's edge has no gRPC address")
    received = bytearray()
    sha256, made_with, waited_s, answer_s = "", "", None, None
    asked_s = clock.monotonic_s()
    channel = open_channel(address, tls=tls)
    try:
        stub = stubs.DraftServiceStub(channel)
        request = pb.FetchDraftRequest(tenant=tenant, job_id=job_id, token=token)
        async for chunk in stream(stub.FetchDraft, request, deadline_s=deadline_s, peer=f"edge {address}"):
            if chunk.offset_bytes != len(received):
                raise InternalError(f"edge {address} sent offset {chunk.offset_bytes}, expected {len(received)}")
            if answer_s is None:
                answer_s = clock.monotonic_s() - asked_s
            if chunk.HasField("waited_s") and 0.0 <= chunk.waited_s < math.inf:  # nor if it is no number
                waited_s = chunk.waited_s
            received += chunk.data
            sha256, made_with = chunk.sha256, chunk.made_with[:MAX_NAME]
        took_s = clock.monotonic_s() - asked_s
    finally:
        await channel.close(None)
    if hashlib.sha256(received).hexdigest() != sha256:
        raise InternalError(f"the draft of {job_id} from edge {address} does not have the digest it was sent with")
    if waited_s is None or answer_s is None:
        return FetchedDraft(bytes(received), None, made_with)
    # While the edge waited the call was on its way for nothing: about half of the time until it answered at all.
    fetch_s = max(0.0, took_s - waited_s - min(waited_s, answer_s / 2))
    return FetchedDraft(bytes(received), fetch_s, made_with)
