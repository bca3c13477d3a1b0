"""Rollouts with real parts: broker, scheduler, edge, workers with the real cloud models, operators' commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adaptivegen.desired import READ_EVERY_S
from adaptivegen.errors import Conflict, InvalidRequest, ModelNotFound
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.admin_rows import LineChangeInfo, LineInfo, RolloutOrder
from tests.added_models import add_broken, add_failing
from tests.integration import real_nodes
from tests.integration.real_nodes import until
from tests.schedulers import Running
from tests.servers import NatsServer

LINE, GOOD = "pocket-cloud", "pocket-cloud-mixed"
BODY = {"prompt": "a red circle moves left", "plan": "cloud", "steps": 1}
SMALL = "128x128"
# Finals are few here, so the plan is satisfied with little; what little proves, unit tests hold.
EAGER: dict[str, Any] = {"stage_s": 0.0, "min_outcomes": 2, "max_more_failures": 1.0, "max_slower": 10.0}


@dataclass
class System:
    """A scheduler, an edge and workers, with what operators and clients ask of them."""

    running: Running
    http: httpx.AsyncClient
    made: int = 0

    @property
    def admin(self) -> AdminClient:
        return self.running.admin

    async def start(self, version: str, **changes: Any) -> LineChangeInfo:
        return await self.admin.start_rollout(RolloutOrder(LINE, version, **changes))

    async def line(self) -> LineInfo:
        (found,) = [line for line in await self.admin.lines() if line.line == LINE]
        return found

    async def last(self) -> LineChangeInfo:
        return (await self.admin.line_changes(1))[0]

    async def submit(self, session: str = "", **changes: Any) -> dict[str, Any]:
        """A video as it was accepted: it tells the version that is to make it."""
        self.made += 1
        body = {**BODY, "size": SMALL, "seed": self.made, **({"session": session} if session else {}), **changes}
        accepted = await self.http.post("/v1/videos", json=body)
        assert accepted.status_code in (200, 201, 202), accepted.text
        return dict(accepted.json())

    async def status(self, video_id: str) -> dict[str, Any]:
        return dict((await self.http.get(f"/v1/videos/{video_id}")).json())

    async def finished(self, video_id: str) -> dict[str, Any]:
        """A video once it has ended."""

        async def ended() -> dict[str, Any] | None:
            found = await self.status(video_id)
            return found if found["status"] in ("completed", "failed", "cancelled") else None

        return await until("the video being there", ended)

    async def video(self, session: str = "", size: str = SMALL) -> dict[str, Any]:
        """A finished video."""
        return await self.finished((await self.submit(session, size=size))["id"])

    async def canary(self, version: str) -> None:
        """Wait until it is tried on sessions."""
        await real_nodes.in_canary(self, version, who="all workers")


@asynccontextmanager
async def system(nats_url: str, folder: Path, *workers: str, **changes: Any) -> AsyncIterator[System]:
    async with (
        real_nodes.scheduler(nats_url, folder, **changes) as placing,
        real_nodes.edge(nats_url, folder, threads=1, **changes) as edge,
        httpx.AsyncClient(base_url=edge.http, timeout=30) as http,
        asyncio.TaskGroup() as group,
    ):
        stop = asyncio.Event()
        ready = [asyncio.Event() for _ in workers]

        async def run(name: str, up: asyncio.Event) -> None:
            async with real_nodes.worker(nats_url, folder, node_id=name, threads=1, **changes):
                up.set()
                await stop.wait()

        for name, up in zip(workers, ready, strict=True):
            group.create_task(run(name, up))
        running = Running(placing.grpc)
        try:
            for up in ready:
                await up.wait()
            await running.sees(edge_1="healthy", **{name.replace("-", "_"): "healthy" for name in workers})
            yield System(running, http)
        finally:
            stop.set()
            await running.close()


async def edges_have_read() -> None:
    """Edges read what is in force every second."""
    await asyncio.sleep(2 * READ_EVERY_S)


async def test_a_version_is_tried_promoted_by_itself_and_taken_back_by_hand(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path, "worker-1", "worker-2") as one:
        before = await one.video()
        assert (before["model"], before["model_version"]) == (LINE, LINE)
        for bad, kind in (("no-such-model", ModelNotFound), (LINE, Conflict), ("pocket-draft", InvalidRequest)):
            with pytest.raises(kind):
                await one.start(bad)
        await one.start(GOOD, stages=(50.0,), reason="smaller", **EAGER)
        await one.canary(GOOD)
        nodes = (await one.line()).nodes
        assert {node.node_id: node.loaded for node in nodes} == dict.fromkeys(("worker-1", "worker-2"), (LINE, GOOD))
        with pytest.raises(Conflict):
            await one.start("pocket-cloud-pruned")  # one at a time
        await one.admin.steer_rollout(LINE, "pause")
        await edges_have_read()
        sessions = {f"s-{number}": (await one.video(f"s-{number}"))["model_version"] for number in range(12)}
        assert set(sessions.values()) == {LINE, GOOD}
        for session in ("s-1", "s-2"):
            assert (await one.video(session))["model_version"] == sessions[session]  # it stays
        await one.admin.steer_rollout(LINE, "resume")

        async def promoted() -> bool | None:
            await asyncio.gather(*(one.video(f"t-{one.made}-{number}") for number in range(4)))
            return True if (await one.line()).stable == GOOD else None

        await until("being promoted", promoted)

        async def alone() -> bool | None:
            return True if all(node.loaded == (GOOD,) for node in (await one.line()).nodes) else None

        await until("the old version being ended", alone)
        after = await one.video()
        assert (after["model"], after["model_version"], after["status"]) == (LINE, GOOD, "completed")
        await one.admin.steer_rollout(LINE, "revert", reason="people prefer the other")

        async def back() -> bool | None:
            return True if all(node.loaded == (LINE,) for node in (await one.line()).nodes) else None

        await until("the old version serving again", back)
        assert (await one.video())["model_version"] == LINE
        history = await one.admin.line_changes()
        actions = [change.action for change in reversed(history)]
        assert actions == ["start", "load", "widen", "pause", "resume", "promote", "revert"]
        assert [change.by for change in history].count("scheduler-1 by itself") == 3
        done = [entry.action for entry in reversed(await one.admin.audit()) if entry.outcome == "done"]
        assert done == ["start-rollout", "rollout-pause", "rollout-resume", "rollout-revert"]


async def test_a_version_that_fails_to_load_is_rolled_back_and_serving_goes_on(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    async with system(own_nats.url, tmp_path, "worker-1", models_dir=models) as one:
        add_broken(models, "pocket-broken")  # while everything runs
        await one.start("pocket-broken")

        async def rolled_back() -> LineChangeInfo | None:
            last = await one.last()
            return last if last.action == "rollback" else None

        last = await until("being rolled back", rolled_back)
        assert "sha256" in last.reason and last.by == "scheduler-1 by itself"
        line = await one.line()
        assert (line.stable, line.candidate, line.phase) == (LINE, "", "steady")
        assert (await one.video())["model_version"] == LINE


async def test_a_version_that_fails_at_work_costs_nobody_a_video_and_is_rolled_back(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    add_failing(models, "pocket-failing")
    async with system(own_nats.url, tmp_path, "worker-1", models_dir=models) as one:
        await one.start("pocket-failing", stages=(50.0,), stage_s=600.0)
        await one.canary("pocket-failing")
        videos: list[dict[str, Any]] = []

        async def rolled_back() -> bool | None:
            videos.append(await one.video(size="256x256"))
            return True if (await one.line()).phase == "steady" else None

        await until("being rolled back", rolled_back)
        assert {video["status"] for video in videos} == {"completed"}
        assert {video["model_version"] for video in videos} == {LINE}
        saved = [video for video in videos if any("pocket-failing" in note for note in video["notes"])]
        assert 2 <= len(saved) <= 12
        last = await one.last()
        assert last.action == "rollback" and "failures: 1 against 0" in last.reason
