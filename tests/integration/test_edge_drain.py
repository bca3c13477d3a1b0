"""The end of a real edge: its doors close first, what was accepted is durable, and all of it within one grace."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from adaptivegen.errors import Unavailable
from adaptivegen.rpc.channel import call, open_channel
from adaptivegen.rpc.pb import video_pb2 as pb
from adaptivegen.rpc.pb import video_pb2_grpc as stubs
from tests.integration.real_nodes import edge, until
from tests.servers import NatsServer

BODY = {"prompt": "a red circle moves left", "plan": "refine"}


def specs(folder: Path) -> set[str]:
    """The jobs in the store."""
    return {path.parent.name for path in folder.glob("store/jobs/local/*/spec")}


def drafts(folder: Path) -> set[str]:
    """The jobs whose draft is stored."""
    return {path.parent.name for path in folder.glob("store/jobs/local/*/draft")}


@asynccontextmanager
async def video_service(address: str) -> AsyncIterator[stubs.VideoServiceStub]:
    channel = open_channel(address)
    try:
        yield stubs.VideoServiceStub(channel)
    finally:
        await channel.close(None)


async def create(stub: stubs.VideoServiceStub, seed: int) -> str:
    request = pb.CreateVideoRequest(prompt=BODY["prompt"], plan=BODY["plan"], seed=seed)
    return str((await call(stub.CreateVideo, request, deadline_s=20, peer="edge")).id)


async def closed(url: str) -> bool | None:
    """True once nobody listens at the address."""
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            await client.get(f"{url}/healthz")
    except httpx.HTTPError:
        return True
    return None


async def test_a_draining_edge_refuses_at_both_doors_and_finishes_the_drafts_it_accepted(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with edge(own_nats.url, tmp_path, drain_grace_s=60.0) as node, video_service(node.grpc) as stub:
        accepted = {await create(stub, seed) for seed in range(4)}
        assert drafts(tmp_path) < accepted
        node.stop.set()
        await until("HTTP being refused", lambda: closed(node.http))
        assert not node.serving.done()  # drafts are still being made
        with pytest.raises(Unavailable):
            await create(stub, 99)
        await node.serving
    assert drafts(tmp_path) == specs(tmp_path) == accepted


async def test_every_request_that_meets_the_drain_is_refused_or_durable(own_nats: NatsServer, tmp_path: Path) -> None:
    answered: set[str] = set()

    async def ask_until_refused(stub: stubs.VideoServiceStub, base: int) -> None:
        for seed in range(base, base + 1000):
            try:
                answered.add(await create(stub, seed))
            except Unavailable:
                return
        raise AssertionError("never refused")

    async with edge(own_nats.url, tmp_path, drain_grace_s=2.0) as node, video_service(node.grpc) as stub:
        async with asyncio.TaskGroup() as group:
            for client in range(3):
                group.create_task(ask_until_refused(stub, client * 1000))
            await until("a request being accepted", lambda: _some(answered))
            node.stop.set()
        await node.serving
    assert answered <= specs(tmp_path)


async def test_a_drain_longer_than_its_grace_leaves_the_drafts_and_the_stream_but_not_the_jobs(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with edge(own_nats.url, tmp_path, drain_grace_s=0.2) as node, video_service(node.grpc) as stub:
        accepted = {await create(stub, seed) for seed in range(6)}
        async with httpx.AsyncClient(timeout=30) as client:
            url = f"{node.http}/v1/videos/{min(accepted)}/events"
            async with client.stream("GET", url) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                node.stop.set()
                async for _ in lines:
                    pass  # it ends by itself
        async with asyncio.timeout(30):
            await node.serving
    assert specs(tmp_path) == accepted
    assert drafts(tmp_path) < accepted


async def _some(found: set[str]) -> bool | None:
    return True if found else None
