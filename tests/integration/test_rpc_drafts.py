"""Drafts over real gRPC on loopback: whole, resumed, not there, and what was later than they were."""

import asyncio
import random

import pytest

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NodeUnavailable, NotFound, PermissionDenied
from adaptivegen.rpc.channel import stream
from adaptivegen.rpc.draft import CHUNK_BYTES, MadeDraft
from adaptivegen.rpc.pb import draft_pb2, draft_pb2_grpc
from tests.integration.wire import DEADLINE_S, channel_to, fetched, serving

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
