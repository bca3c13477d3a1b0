"""The draft's way from an edge to a worker over gRPC: the servicer on the edge, the client on the worker."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from adaptivegen.errors import InternalError, InvalidRequest, NodeUnavailable
from adaptivegen.rpc.channel import ClientTls, open_channel, stream
from adaptivegen.rpc.pb import draft_pb2 as pb
from adaptivegen.rpc.pb import draft_pb2_grpc as stubs
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.DraftService"
CHUNK_BYTES = 256 * 1024


class DraftServicer(stubs.DraftServiceServicer):
    """Serves drafts by one callable: (tenant, job id, token) -> the MP4, waiting while it is being made.

    The callable raises NotFound or PermissionDenied.
    """

    def __init__(self, wait_for_draft: Callable[[str, str, str], Awaitable[bytes]]) -> None:
        self._wait_for_draft = wait_for_draft

    def add_to(self, server: RpcServer) -> None:
        """Serve on `server`."""
        server.register(stubs.add_DraftServiceServicer_to_server, self, SERVICE)

    async def FetchDraft(
        self, request: pb.FetchDraftRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.DraftChunk]:
        mp4 = await self._wait_for_draft(request.tenant, request.job_id, request.token)
        if request.offset_bytes > len(mp4):
            raise InvalidRequest.field("offset_bytes", request.offset_bytes, f"at most {len(mp4)}")
        sha256 = hashlib.sha256(mp4).hexdigest()
        for offset in range(request.offset_bytes, len(mp4), CHUNK_BYTES):
            yield pb.DraftChunk(
                offset_bytes=offset,
                data=mp4[offset : offset + CHUNK_BYTES],
                total_bytes=len(mp4),
                sha256=sha256,
            )


async def fetch_draft(
    address: str, *, tenant: str, job_id: str, token: str, deadline_s: float, tls: ClientTls | None
) -> bytes:
    """The draft as MP4, its digest checked. Raises NotFound, PermissionDenied, NodeUnavailable, DeadlineExceeded."""
    if not address:
        raise NodeUnavailable("the job's edge has no gRPC address")
    received = bytearray()
    sha256 = ""
    channel = open_channel(address, tls=tls)
    try:
        stub = stubs.DraftServiceStub(channel)
        request = pb.FetchDraftRequest(tenant=tenant, job_id=job_id, token=token)
        async for chunk in stream(stub.FetchDraft, request, deadline_s=deadline_s, peer=f"edge {address}"):
            if chunk.offset_bytes != len(received):
                raise InternalError(f"edge {address} sent offset {chunk.offset_bytes}, expected {len(received)}")
            received += chunk.data
            sha256 = chunk.sha256
    finally:
        await channel.close(None)
    if hashlib.sha256(received).hexdigest() != sha256:
        raise InternalError(f"the draft of {job_id} from edge {address} does not have the digest it was sent with")
    return bytes(received)
