"""Rollouts of draft models with real parts: broker, scheduler, two edges with the real draft models, a worker."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from adaptivegen.desired import READ_EVERY_S
from adaptivegen.errors import InvalidRequest, ModelNotFound
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.admin_rows import LineChangeInfo, LineInfo, RolloutOrder
from tests.added_models import add_broken, add_draft, add_failing_draft, add_model
from tests.integration import real_nodes
from tests.integration.real_nodes import Node, until
from tests.schedulers import Running
from tests.servers import NatsServer

LINE, NEW, CLOUD = "pocket-draft", "pocket-draft-2", "pocket-cloud-2"
ENDED = ("completed", "failed", "cancelled")
# Drafts are few here, so the plan is satisfied with little; what little proves, unit tests hold.
EAGER: dict[str, Any] = {"stage_s": 0.0, "min_outcomes": 2, "max_more_failures": 1.0, "max_slower": 10.0}

long = pytest.mark.skipif(
    not os.environ.get("ADAPTIVEGEN_LONG_TESTS"),
    reason="takes a minute; ADAPTIVEGEN_LONG_TESTS=1 runs it. test_rollout.py has the same of cloud models",
)


@dataclass
class System:
    """A scheduler and two edges, with what operators and clients ask of them."""

    running: Running
    nats_url: str
    folder: Path
    models: Path
    edges: dict[str, tuple[AsyncExitStack, Node]] = field(default_factory=dict)
    made: int = 0

    @property
    def admin(self) -> AdminClient:
        return self.running.admin

    async def up(self, name: str) -> None:
        """Start an edge."""
        resources = AsyncExitStack()
        values: dict[str, Any] = {"node_id": name, "threads": 1, "models_dir": self.models, "cloud_model": CLOUD}
        spool = self.folder / f"spool-{name}"
        node = await resources.enter_async_context(
            real_nodes.edge(self.nats_url, self.folder, spool_dir=spool, **values)
        )
        self.edges[name] = resources, node
        await self.running.sees(**{name.replace("-", "_"): "healthy"})

    async def down(self, name: str) -> None:
        resources, _ = self.edges.pop(name)
        await resources.aclose()

    async def start(self, version: str, **changes: Any) -> LineChangeInfo:
        return await self.admin.start_rollout(RolloutOrder(LINE, version, **changes))

    async def line(self) -> LineInfo:
        (found,) = [line for line in await self.admin.lines() if line.line == LINE]
        return found

    async def last(self) -> LineChangeInfo:
        return (await self.admin.line_changes(1))[0]

    async def canary(self, version: str) -> None:
        """Wait until it is tried on sessions; edges read of that every second."""
        await real_nodes.in_canary(self, version, who="all edges")
        await asyncio.sleep(2 * READ_EVERY_S)

    async def loaded(self) -> dict[str, tuple[str, ...]]:
        return {node.node_id: node.loaded for node in (await self.line()).nodes}

    async def all_have(self, *versions: str) -> None:
        async def reached() -> bool | None:
            return True if set((await self.loaded()).values()) == {versions} else None

        await until(f"all edges having {versions}", reached)

    async def video(
        self, session: str = "", *, at: str = "edge-1", plan: str = "draft", image: bytes | None = None
    ) -> dict[str, Any]:
        """A finished video."""
        self.made += 1
        body = {"prompt": "a red circle moves left", "plan": plan, "intent": "iterate", "seed": str(self.made)}
        body |= {"session": session} if session else {}
        files = {"input_reference": ("red.png", image, "image/png")} if image is not None else None
        async with httpx.AsyncClient(base_url=self.edges[at][1].http, timeout=30) as http:
            accepted = await http.post("/v1/videos", **({"data": body, "files": files} if files else {"json": body}))
            assert accepted.status_code in (200, 201, 202), accepted.text
            address = f"/v1/videos/{accepted.json()['id']}"

            async def ended() -> dict[str, Any] | None:
                found: dict[str, Any] = (await http.get(address)).json()
                return found if found["status"] in ENDED else None

            return await until("the video being there", ended)


@asynccontextmanager
async def system(nats_url: str, folder: Path) -> AsyncIterator[System]:
    """With a cloud model that goes on from drafts of all versions that a test may try."""
    models = folder / "models"
    models.mkdir()
    add_model(models, CLOUD, sources=(LINE, NEW, "pocket-broken", "pocket-failing"))
    async with (
        real_nodes.scheduler(nats_url, folder, models_dir=models) as placing,
        real_nodes.worker(nats_url, folder, threads=1, models_dir=models, model=CLOUD),
    ):
        running = Running(placing.grpc)
        one = System(running, nats_url, folder, models)
        try:
            await running.sees(worker_1="healthy")
            for name in ("edge-1", "edge-2"):
                await one.up(name)
            yield one
        finally:
            for name in list(one.edges):
                await one.down(name)
            await running.close()


def png() -> bytes:
    image = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(image, "PNG")
    return image.getvalue()


@long
async def test_a_draft_model_is_tried_promoted_by_itself_and_taken_back_by_hand(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path) as one:
        add_draft(one.models, NEW)  # while everything runs
        add_draft(one.models, "pocket-unknown")
        with pytest.raises(InvalidRequest, match="does not continue"):
            await one.start("pocket-unknown")
        assert (await one.video())["draft_model_version"] == LINE
        await one.start(NEW, stages=(50.0,), reason="trained for longer", **EAGER)
        await one.canary(NEW)
        assert await one.loaded() == dict.fromkeys(("edge-1", "edge-2"), (LINE, NEW))
        await one.admin.steer_rollout(LINE, "pause")
        sessions = {f"s-{n}": (await one.video(f"s-{n}"))["draft_model_version"] for n in range(10)}
        assert set(sessions.values()) == {LINE, NEW}
        for session in ("s-1", "s-2", "s-3"):  # whichever edge is asked
            assert (await one.video(session, at="edge-2"))["draft_model_version"] == sessions[session]
        tried = next(session for session, version in sessions.items() if version == NEW)
        whole = await one.video(tried, plan="refine")
        assert (whole["status"], whole["plan"], whole["draft_model_version"]) == ("completed", "refine", NEW)
        await one.admin.steer_rollout(LINE, "resume")

        async def promoted() -> bool | None:
            await asyncio.gather(*(one.video(f"t-{one.made}-{n}", at=f"edge-{1 + n % 2}") for n in range(4)))
            return True if (await one.line()).stable == NEW else None

        await until("being promoted", promoted)
        await one.all_have(NEW)
        await asyncio.sleep(2 * READ_EVERY_S)
        assert (await one.video("s-1"))["draft_model_version"] == NEW
        await one.admin.steer_rollout(LINE, "revert", reason="people prefer the other")
        await one.all_have(LINE)
        assert (await one.video("s-1"))["draft_model_version"] == LINE
        actions = [change.action for change in reversed(await one.admin.line_changes())]
        assert actions == ["start", "load", "widen", "pause", "resume", "promote", "revert"]


async def test_a_draft_model_that_loads_nowhere_is_rolled_back_and_drafts_go_on(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path) as one:
        add_broken(one.models, "pocket-broken", like=LINE)
        await one.start("pocket-broken")

        async def rolled_back() -> LineChangeInfo | None:
            last = await one.last()
            return last if last.action == "rollback" else None

        last = await until("being rolled back", rolled_back)
        assert "sha256" in last.reason and last.line == LINE and last.by == "scheduler-1 by itself"
        line = await one.line()
        assert (line.stable, line.candidate, line.phase) == (LINE, "", "steady")
        assert (await one.video())["draft_model_version"] == LINE


async def test_a_draft_model_that_fails_at_work_costs_nobody_a_draft_and_is_rolled_back(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path) as one:
        add_failing_draft(one.models, "pocket-failing")
        await one.start("pocket-failing", stages=(50.0,), stage_s=600.0)
        await one.canary("pocket-failing")
        videos: list[dict[str, Any]] = []

        async def rolled_back() -> bool | None:
            asked = (one.video(image=png(), at=f"edge-{1 + n % 2}") for n in range(4))
            videos.extend(await asyncio.gather(*asked))
            return True if (await one.line()).phase == "steady" else None

        await until("being rolled back", rolled_back)
        assert {(video["status"], video["draft_model_version"]) for video in videos} == {("completed", LINE)}
        assert all(video["draft"] for video in videos)
        saved = [video for video in videos if any("pocket-failing had failed" in note for note in video["notes"])]
        assert 2 <= len(saved) <= 16
        last = await one.last()
        assert last.action == "rollback" and "failures: 1 against 0" in last.reason
        assert set((await one.running.states()).values()) == {"healthy"}  # nobody is unwell for it


@long
async def test_an_edge_that_is_restarted_in_mid_canary_drafts_at_once_and_has_both_versions_again(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path) as one:
        add_draft(one.models, NEW)
        await one.start(NEW, stages=(50.0,), stage_s=600.0)
        await one.canary(NEW)
        sessions = {f"s-{n}": (await one.video(f"s-{n}"))["draft_model_version"] for n in range(8)}
        tried = next(session for session, version in sessions.items() if version == NEW)
        await one.down("edge-1")
        await one.up("edge-1")
        early = await one.video(tried)
        assert early["status"] == "completed" and early["draft"]
        if early["draft_model_version"] != NEW:  # it was not loaded yet, and that is said
            assert any(NEW in note for note in early["notes"])
        await one.all_have(LINE, NEW)
        assert (await one.line()).phase == "canary"
        for session, version in sessions.items():
            assert (await one.video(session))["draft_model_version"] == version


async def test_an_edge_that_is_cut_off_goes_on_with_the_versions_it_read_of_last(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path) as one:
        add_draft(one.models, NEW)
        await one.start(NEW, stages=(50.0,), stage_s=600.0)
        await one.canary(NEW)
        sessions = {f"s-{n}": (await one.video(f"s-{n}"))["draft_model_version"] for n in range(6)}
        assert set(sessions.values()) == {LINE, NEW}
        own_nats.kill()
        try:
            for session, version in sessions.items():
                assert (await one.video(session))["draft_model_version"] == version
        finally:
            own_nats.start()

        async def again() -> bool | None:
            line = await one.line()
            return True if line.phase == "canary" and set((await one.loaded()).values()) == {(LINE, NEW)} else None

        await until("being heard of again", again)


async def test_a_version_that_was_pushed_is_installed_nowhere_by_hand(own_nats: NatsServer, tmp_path: Path) -> None:
    """The cloud model is, so that there is somebody to go on from its drafts."""
    folders = {name: tmp_path / name for name in ("operator", "scheduler", "worker", "edge")}
    for folder in folders.values():
        folder.mkdir()
        add_model(folder, CLOUD, sources=(LINE, NEW))
    add_draft(folders["operator"], NEW)
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path, models_dir=folders["scheduler"]) as placing,
        real_nodes.worker(own_nats.url, tmp_path, threads=1, models_dir=folders["worker"], model=CLOUD),
    ):
        one = System(Running(placing.grpc), own_nats.url, tmp_path, folders["edge"])
        try:
            await one.running.sees(worker_1="healthy")
            await one.up("edge-1")
            with pytest.raises(ModelNotFound):
                await one.start(NEW)
            store = ["--store", f"file://{tmp_path / 'store'}", "--models-dir", str(folders["operator"])]
            command = [sys.executable, "-m", "cli", "models", "push", NEW, *store]
            pushing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            assert json.loads((await pushing.communicate())[0])["model"] == NEW and pushing.returncode == 0
            await one.start(NEW, stages=(50.0,), stage_s=600.0)
            await one.canary(NEW)
            assert await one.loaded() == {"edge-1": (LINE, NEW)}
            await one.admin.steer_rollout(LINE, "promote")
            await one.all_have(NEW)
            await asyncio.sleep(2 * READ_EVERY_S)
            assert (await one.video())["draft_model_version"] == NEW
            names = {
                name: sorted(path.name for path in (folders[name] / NEW).glob("*")) for name in ("scheduler", "edge")
            }
            assert names["scheduler"] == ["card.json"] and "base.onnx" in names["edge"]
        finally:
            for name in list(one.edges):
                await one.down(name)
            await one.running.close()
