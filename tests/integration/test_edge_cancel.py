"""A cancel that reaches another edge than the one that makes the draft: two real edges, one real broker."""

import asyncio
from pathlib import Path

import httpx

from tests.integration.real_nodes import edge, until
from tests.servers import NatsServer

BODY = {"prompt": "a red circle moves left", "plan": "refine"}
AHEAD = 5  # drafts that are made before the one to be cancelled has its turn


def drafts(folder: Path) -> set[str]:
    """The jobs whose draft is stored."""
    return {path.parent.name for path in folder.glob("store/jobs/local/*/draft")}


async def create(client: httpx.AsyncClient, seed: int) -> str:
    answer = await client.post("/v1/videos", json={**BODY, "seed": seed})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def cancelled_elsewhere(maker: httpx.AsyncClient, other: httpx.AsyncClient, folder: Path, seed: int) -> None:
    """Queue drafts at `maker`, cancel one through `other`; it is never made, and those before and after it are."""
    ahead = [await create(maker, seed + number) for number in range(AHEAD)]
    victim = await create(maker, seed + 50)
    answer = await other.post(f"/v1/videos/{victim}/cancel")
    assert answer.json()["status"] == "cancelled"
    behind = await create(maker, seed + 60)

    async def made() -> bool | None:
        return drafts(folder) >= {*ahead, behind} or None

    await until("the other drafts", made)
    assert victim not in drafts(folder)


async def test_a_draft_is_not_made_once_its_job_was_cancelled_at_another_edge(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        edge(own_nats.url, tmp_path) as first,
        edge(own_nats.url, tmp_path, node_id="edge-2") as second,
        httpx.AsyncClient(base_url=first.http, timeout=30) as maker,
        httpx.AsyncClient(base_url=second.http, timeout=30) as other,
    ):
        assert first.http != second.http
        await cancelled_elsewhere(maker, other, tmp_path, 100)
        await asyncio.get_running_loop().run_in_executor(None, own_nats.kill)
        await asyncio.get_running_loop().run_in_executor(None, own_nats.start)
        for client in (maker, other):
            await until("the broker being back", lambda client=client: _accepts(client))  # type: ignore[misc]
        await cancelled_elsewhere(maker, other, tmp_path, 200)


async def _accepts(client: httpx.AsyncClient) -> bool | None:
    return (await client.post("/v1/videos", json={**BODY, "seed": 1})).status_code in (200, 202) or None
