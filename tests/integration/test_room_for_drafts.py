"""More drafts asked for at once than may wait at an edge: real broker, scheduler, edge and draft model, over HTTP."""

import asyncio
from pathlib import Path

import httpx

from tests.integration import real_nodes
from tests.integration.centre import when
from tests.integration.real_nodes import until
from tests.servers import NatsServer

WAITING = 2  # drafts that may wait
AT_ONCE = 12
HEEDLESS = "round_robin"  # a policy that sends drafts wherever it may be


async def ask(http: httpx.AsyncClient, seed: int) -> httpx.Response:
    body = {"prompt": "a red circle moves left", "intent": "iterate", "seed": seed}
    return await http.post("/v1/videos", json=body)


async def scheduled(http: httpx.AsyncClient) -> None:
    """Return once a scheduler decides: an edge that has not found it yet decides alone, and wants a final."""
    seeds = iter(range(1000, 9000))

    async def look() -> bool | None:
        answer = await ask(http, next(seeds))
        return True if answer.is_success and answer.json()["plan"] == "draft" else None

    await until("a scheduler's decision", look)


async def test_who_comes_when_no_more_drafts_may_wait_is_told_when_to_come_again_and_then_has_one(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path),
        real_nodes.edge(own_nats.url, tmp_path, threads=1, place_budget_s=5.0, max_waiting_drafts=WAITING) as edge,
        httpx.AsyncClient(base_url=edge.http, timeout=30) as http,
    ):
        await scheduled(http)
        answers = await asyncio.gather(*(ask(http, seed) for seed in range(AT_ONCE)))
        accepted = [answer.json() for answer in answers if answer.is_success]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(accepted) + len(refused) == AT_ONCE
        assert accepted and len(refused) >= AT_ONCE - 3 * WAITING
        for answer in refused:
            error = answer.json()["error"]
            assert (error["code"], error["param"], error["retryable"]) == ("overloaded", "drafts", True)
            assert "Edge edge-1 takes no more drafts of tenant local, since " in error["message"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        for video in accepted:  # all have their drafts, and none a final that nobody asked for
            done = await when(http, video["id"], status="completed")
            assert (done["plan"], bool(done["draft"]), done["final"], done["notes"]) == ("draft", True, None, [])

        async def again() -> httpx.Response | None:
            await asyncio.sleep(int(refused[0].headers["retry-after"]))
            answer = await ask(http, AT_ONCE)
            return answer if answer.is_success else None

        later = await until("a place", again)
        assert (await when(http, later.json()["id"], status="completed"))["draft"]


async def test_what_was_accepted_has_its_draft_though_more_wait_than_should(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path, placing=HEEDLESS),
        real_nodes.edge(own_nats.url, tmp_path, threads=1, place_budget_s=5.0, max_waiting_drafts=WAITING) as edge,
        httpx.AsyncClient(base_url=edge.http, timeout=30) as http,
    ):
        answers = await asyncio.gather(*(ask(http, seed) for seed in range(AT_ONCE)))
        for answer in answers:
            assert answer.status_code == 202
            video = answer.json()
            if video["plan"] == "refine":  # else the edge decided alone, and knew that it was full
                await when(http, video["id"], draft=True)
        assert sum(answer.json()["plan"] == "refine" for answer in answers) > WAITING + 1
