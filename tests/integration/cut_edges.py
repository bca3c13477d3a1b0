"""How a client and the centre see an edge that is cut off."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx

from adaptivegen import AsyncClient
from adaptivegen.rpc.pb import video_pb2 as pb
from adaptivegen.rpc.pb import video_pb2_grpc as stubs
from tests.integration.centre import Centre, Ports, spooled
from tests.integration.real_nodes import Node, until

FIRST_LOOK_S = 1.5  # the aim is one; these machines are shared


def client_of(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=node.http, timeout=30, follow_redirects=True)


async def empty(ports: Ports) -> None:
    """Return once nothing is in the spool."""

    async def look() -> bool | None:
        return True if not spooled(ports) else None

    await until("an empty spool", look)


async def stored(centre: Centre, video_id: str) -> dict[str, list[str]]:
    """The parts of a job at the centre."""
    parts = {path.name for path in (centre.store / "jobs" / "local" / video_id).glob("*")}
    drafts = [path.name for path in (centre.store / "out" / "local" / video_id / "0").glob("*")]
    return {"parts": sorted(parts), "drafts": drafts}


async def events_of(client: httpx.AsyncClient, video_id: str) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("GET", f"/v1/videos/{video_id}/events") as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def listed_by_all(node: Node) -> tuple[list[str], bool]:
    """Ids and whether these are not all, which gRPC, SDK and command line say alike."""
    async with grpc.aio.insecure_channel(node.grpc) as channel:
        told = await stubs.VideoServiceStub(channel).ListVideos(pb.ListVideosRequest(), timeout=10)
    async with AsyncClient(node.http) as client:
        page = await client.videos()
    command = [sys.executable, "-m", "cli", "videos", "--json", "--edge", node.http]
    printed = json.loads(await asyncio.to_thread(subprocess.check_output, command, timeout=30))
    found = [([video.id for video in told.videos], told.partial), ([video.id for video in page.videos], page.partial)]
    found.append(([video["id"] for video in printed["videos"]], printed["partial"]))
    assert found[0] == found[1] == found[2]
    return found[0]
