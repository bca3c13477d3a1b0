"""A draft that is upgraded, seen by a client of a real edge: one stream of events under one id, up to the final."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.errors import NodeUnavailable
from adaptivegen.jobs.events import terminal_event
from adaptivegen.jobs.spec import Manifest, Media
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Attempt, Decision, Outcome, PlacementQuery, Ticket, Turn
from adaptivegen.rpc.placement import PlacementServicer
from adaptivegen.rpc.server import RpcServer
from tests.integration.real_nodes import CLOCK, broker, edge, until
from tests.servers import NatsServer

BODY = {"prompt": "a red circle moves left", "plan": "draft", "seed": 3}


@asynccontextmanager
async def jobs_of(nats_url: str, folder: Path) -> AsyncIterator[JobStore]:
    """The jobs as another node sees them."""
    async with broker(nats_url) as bus:
        yield JobStore(blob=open_store(f"file://{folder / 'store'}"), bus=bus, clock=CLOCK)


async def finish(jobs: JobStore, video_id: str) -> None:
    """As a worker that rendered the final."""
    draft = (await jobs.find("local", video_id)).draft
    assert draft is not None
    final = Media(**{**draft.model_dump(), "key": f"out/local/{video_id}/1/{draft.sha256}.mp4"})
    manifest = Manifest(
        id=video_id,
        tenant="local",
        outcome="completed",
        epoch=1,
        finished_at_ns=CLOCK.now_ns(),
        final=final,
        final_steps=7,
    )
    record, _ = await jobs.finish(manifest)
    await jobs.announce(terminal_event(record, producer="worker-1", now_ns=CLOCK.now_ns()))


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """(id, data) of each event, until the server ends the stream."""
    event_id = ""
    async for line in answer.aiter_lines():
        if line.startswith("id: "):
            event_id = line[4:]
        if line.startswith("data: "):
            yield event_id, json.loads(line[6:])


async def whole_stream(client: httpx.AsyncClient, url: str) -> list[tuple[str, dict[str, Any]]]:
    async with client.stream("GET", url) as answer:
        return [told async for told in events(answer)]


@pytest.mark.parametrize("resume_at", ["nothing", "the first event", "the draft's end"])
async def test_a_stream_opened_after_an_upgrade_ends_with_the_final(
    own_nats: NatsServer, tmp_path: Path, resume_at: str
) -> None:
    async with (
        edge(own_nats.url, tmp_path) as node,
        jobs_of(own_nats.url, tmp_path) as jobs,
        httpx.AsyncClient(base_url=node.http, timeout=60) as client,
    ):
        video_id = (await client.post("/v1/videos", json=BODY)).json()["id"]
        url = f"/v1/videos/{video_id}/events"
        drafted = await whole_stream(client, url)
        assert (drafted[-1][1]["type"], drafted[-1][1]["video"]["status"]) == ("completed", "completed")
        assert (await client.post(f"/v1/videos/{video_id}/upgrade")).json()["status"] == "queued"
        first_id = next((told_id for told_id, data in drafted if data["type"] != "snapshot"), drafted[0][0])
        last_id = {"the first event": first_id, "the draft's end": drafted[-1][0]}.get(resume_at)
        headers = {"last-event-id": last_id} if last_id else {}
        async with client.stream("GET", url, headers=headers) as answer:
            stream = events(answer)
            told = [await anext(stream)]

            async def queued() -> bool | None:
                if told[-1][1]["video"]["status"] == "queued":
                    return True
                told.append(await anext(stream))
                return None

            await until("the upgrade in the stream", queued)
            await finish(jobs, video_id)
            told += [happened async for happened in stream]
        ends = [data for _, data in told if data["type"] == "completed"]
        assert [end["video"]["id"] for end in ends] == [video_id]
        assert told[-1][1] == ends[0]
        assert ends[0]["video"]["final"]


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[str, list[Outcome]]]:
    """A scheduler that decides nothing, its address, and the outcomes it was told."""
    told: list[Outcome] = []

    async def place(query: PlacementQuery) -> Decision:
        raise NodeUnavailable("decides nothing")

    async def observe(outcome: Outcome) -> None:
        told.append(outcome)

    async def attempted(attempt: Attempt) -> None:
        return None

    async def next_job(ticket: Ticket) -> Turn:
        return Turn(tenant=ticket.tenant, job_id=ticket.job_id)

    server = RpcServer(rng=random.Random(1))
    PlacementServicer(place, observe, attempted, next_job).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", told
    finally:
        await server.drain(grace_s=0.0)


async def test_the_outcome_of_an_upgrade_is_told_by_the_edge_that_was_asked_for_it(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        listener() as (address, told),
        edge(own_nats.url, tmp_path, scheduler_addresses=address) as first,
        edge(own_nats.url, tmp_path, scheduler_addresses=address, node_id="edge-2") as second,
        jobs_of(own_nats.url, tmp_path) as jobs,
        httpx.AsyncClient(timeout=60) as client,
    ):
        video_id = (await client.post(f"{first.http}/v1/videos", json=BODY)).json()["id"]
        await whole_stream(client, f"{first.http}/v1/videos/{video_id}/events")
        assert (await client.post(f"{second.http}/v1/videos/{video_id}/upgrade")).json()["status"] == "queued"
        await finish(jobs, video_id)

        async def both() -> bool | None:
            return len(told) >= 2 or None

        await until("both outcomes", both)
        assert [(one.edge_id, one.plan, one.final_s is not None, one.final_steps) for one in told] == [
            ("edge-1", "draft", False, 0),
            ("edge-2", "refine", True, 7),
        ]
