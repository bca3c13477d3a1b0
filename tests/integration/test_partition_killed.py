"""An edge that is killed while it is cut off, or while it hands over: the next life goes on where it was."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.centre import PROMPT, Centre, Ports, post, ready, spooled, when
from tests.integration.cut_edges import empty, stored
from tests.integration.real_nodes import until
from tests.servers import NatsServer


@pytest.fixture
def centre(own_nats: NatsServer, tmp_path: Path) -> Centre:
    return Centre(own_nats, tmp_path)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


async def test_an_edge_killed_while_cut_off_starts_without_the_centre_and_hands_over_later(
    centre: Centre, processes: list[subprocess.Popen[bytes]]
) -> None:
    ports = Ports(centre, log_level="warning")

    def start() -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(ports.command(), env={**os.environ, **ports.environment()}))
        return processes[-1]

    async with httpx.AsyncClient(base_url=ports.endpoint.http_url or "", timeout=30) as client:
        process = start()
        await ready(client, "ready")
        before = await post(client, seed=8, plan="cloud", key="before")
        centre.cut("both")
        await ready(client, "cut off")
        drafted = await post(client, seed=1, plan="draft", key="k")
        await when(client, drafted["id"], status="completed")
        video = await post(client, seed=2)
        process.send_signal(signal.SIGKILL)  # most likely before its draft is there
        process.wait()
        assert spooled(ports) == [drafted["id"], video["id"]]
        process = start()
        said = await ready(client, "cut off")
        assert said["cut_off"]["spooled_jobs"] == 2
        resend = {"prompt": PROMPT, "seed": 8, "plan": "cloud"}
        refused = await client.post("/v1/videos", json=resend, headers={"idempotency-key": "before"})
        assert (refused.status_code, refused.json()["error"]["retryable"]) == (503, True)  # no second video
        assert (await client.get(f"/v1/videos/{drafted['id']}")).json()["status"] == "completed"
        assert (await client.get(f"/v1/videos/{drafted['id']}/content?variant=draft")).status_code == 200
        assert (await post(client, seed=1, plan="draft", key="k"))["id"] == drafted["id"]
        assert (await when(client, video["id"], draft=True))["status"] == "queued"
        third = await post(client, seed=3)  # on a store that was never reached by this process
        centre.heal("both")
        await ready(client, "ready")
        await empty(ports)
        await when(client, third["id"], status="queued")
        assert sorted(await centre.messages()) == [before["id"], video["id"], third["id"]]
        assert (await post(client, seed=8, plan="cloud", key="before"))["id"] == before["id"]
        for name in (drafted["id"], video["id"], third["id"]):
            assert len((await stored(centre, name))["drafts"]) == 1
        assert (await post(client, seed=1, plan="draft", key="k"))["id"] == drafted["id"]
        assert not list((centre.store / "pending").glob(f"*{drafted['id']}"))


async def test_an_edge_killed_while_it_hands_over_doubles_and_loses_nothing(
    centre: Centre, processes: list[subprocess.Popen[bytes]]
) -> None:
    ports = Ports(centre, log_level="warning")

    def start() -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(ports.command(), env={**os.environ, **ports.environment()}))
        return processes[-1]

    async with httpx.AsyncClient(base_url=ports.endpoint.http_url or "", timeout=30) as client:
        process = start()
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        ids = [(await post(client, seed=seed, plan="cloud", key=f"k{seed}"))["id"] for seed in range(12)]
        centre.heal("both")
        for left in (9, 6, 3):

            async def fewer(left: int = left) -> bool | None:
                return True if len(spooled(ports)) <= left else None

            await until(f"{left} in the spool", fewer)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start()
        await empty(ports)
        await ready(client, "ready")
        assert await centre.messages() == ids
        for number, video_id in enumerate(ids):
            assert (await stored(centre, video_id))["parts"] == ["spec"]
            assert (await post(client, seed=number, plan="cloud", key=f"k{number}"))["id"] == video_id
        assert len(list((centre.store / "jobs" / "local").glob("*"))) == len(ids)
