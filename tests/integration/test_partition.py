"""An edge that is cut off from the real broker, the store, or both: it goes on, and hands over when they are back."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.centre import Centre, Ports, post, ready, spooled, spooling_edge, when
from tests.integration.real_nodes import Node, until
from tests.servers import NatsServer


@pytest.fixture
def centre(own_nats: NatsServer, tmp_path: Path) -> Centre:
    return Centre(own_nats, tmp_path)


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


@pytest.mark.parametrize("what", ["broker", "store", "both"])
async def test_a_job_accepted_while_cut_off_is_drafted_told_and_handed_over_once(centre: Centre, what: str) -> None:
    ports = Ports(centre)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        centre.cut(what)
        first = await post(client, seed=1)  # nobody knows of the cut yet
        said = await ready(client, "cut off")
        assert said["cut_off"]["why"]
        begun_s = time.monotonic()
        second = await post(client, seed=2)
        async for event in events_of(client, second["id"]):
            if event["type"] in ("draft.look", "draft.completed"):
                break
        assert time.monotonic() - begun_s < 1.0
        assert "cut off" in second["notes"][0]
        drafted = await when(client, second["id"], draft=True)
        content = await client.get(f"/v1/videos/{second['id']}/content", params={"variant": "draft"})
        assert len(content.content) == drafted["draft"]["size_bytes"]
        listed = (await client.get("/v1/videos")).json()
        assert [video["id"] for video in listed["data"]] == [second["id"], first["id"]]
        assert listed["partial"] is True
        await when(client, first["id"], draft=True)
        assert spooled(ports) == [first["id"], second["id"]]
        centre.heal(what)
        await empty(ports)
        await ready(client, "ready")
        for video in (first, second):
            parts = await stored(centre, video["id"])
            assert parts["parts"] == ["draft", "spec"]
            assert len(parts["drafts"]) == 1
            told = (await client.get(f"/v1/videos/{video['id']}")).json()
            assert (told["status"], told["draft"]["sha256"]) == ("queued", parts["drafts"][0].removesuffix(".mp4"))
            assert "handed over" in told["notes"][0]
        assert await centre.messages() == [first["id"], second["id"]]
