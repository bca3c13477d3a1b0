"""Predictions of finals on a running system, over slow links and while a model is loaded; the models sleep."""

import asyncio
import json
import math
import random
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from adaptivegen.rpc.admin_rows import LoadInfo, Predictions
from benchmarks.live.cards import CLOUD, DRAFT, write_cards
from benchmarks.live.conduct import write_conduct
from benchmarks.live.links import Link, shaped
from cli.system.ports import free_ports
from scheduler.decision_log import Logged, read_log
from tests.integration import real_nodes
from tests.integration.real_nodes import CLOCK, until
from tests.schedulers import Running
from tests.servers import NatsServer
from tests.unit.scheduler.builders import of_plan, query

HERE, AWAY = "127.0.0.1", "127.0.0.2"  # where nodes listen, and their links
WAY = Link(0.15, 0.02)
SETTINGS: dict[str, Any] = {"log_level": "error", "drain_grace_s": 1.0}


def asleep(folder: Path, *first: str, load_ms: float = 100.0) -> tuple[str, ...]:
    """The cards of models that sleep, and the module and arguments of their processes."""
    cards, conduct = folder / "cards", folder / "conduct.json"
    if not cards.exists():
        write_cards(cards)
        write_conduct(conduct, [])
        for name in (DRAFT, CLOUD):
            told = json.loads((cards / name / "card.json").read_text())
            told["profile"][0]["load_ms"] = load_ms
            (cards / name / "card.json").write_text(json.dumps(told))
    return (*first, str(cards), str(conduct))


@asynccontextmanager
async def apart(nats_url: str, folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Running]]:
    """An edge that lies apart from its cache and from the workers."""
    child = asleep(folder, "benchmarks.live.sleeper")
    common = {**SETTINGS, "models_dir": folder / "cards"}
    http_port, grpc_port, door = free_ports(3)
    rng = random.Random(4)
    own = {"cloud_model": CLOUD, "draft_model": DRAFT, "http_port": http_port, "grpc_port": grpc_port}
    own |= {"advertise_host": AWAY, "cache_url": f"http://{HERE}:{door}", "place_budget_s": 2.0, "threads": 1}
    own |= {"node_class": "lab"}
    async with (
        shaped((AWAY, grpc_port), (HERE, grpc_port), WAY, clock=CLOCK, rng=rng),
        real_nodes.scheduler(nats_url, folder, decision_log=folder / "log", **common) as placing,
        real_nodes.cache(nats_url, folder, log_level="error") as cache,
        shaped((HERE, door), (HERE, urlsplit(cache.http).port or 0), WAY, clock=CLOCK, rng=rng),
        real_nodes.worker(nats_url, folder, child=child, model=CLOUD, threads=1, **common),
        real_nodes.edge(nats_url, folder, child=child, **own, **common),
        httpx.AsyncClient(base_url=f"http://{HERE}:{http_port}", timeout=30) as http,
    ):
        running = Running(placing.grpc)
        try:
            await running.sees(edge_1="healthy", worker_1="healthy")
            yield http, running
        finally:
            await running.close()


async def made(http: httpx.AsyncClient, seed: int) -> dict[str, Any]:
    """A finished video."""
    accepted = await http.post("/v1/videos", json={"prompt": "a red circle moves left", "seed": seed, "plan": "refine"})
    assert accepted.status_code in (200, 201, 202), accepted.text

    async def ended() -> dict[str, Any] | None:
        found = (await http.get(f"/v1/videos/{accepted.json()['id']}")).json()
        return dict(found) if found["status"] in ("completed", "failed") else None

    return await until("the video being there", ended)


async def known_to(running: Running, outcomes: int) -> Predictions:
    """What the scheduler has learned, once it has heard of so many finals."""

    async def ask() -> Predictions | None:
        found = await running.admin.predictions()
        return found if sum(p.outcomes for p in found.accuracies if p.part == "final refine") >= outcomes else None

    return await until("outcomes being heard of", ask)


@pytest.mark.skipif(sys.platform != "linux", reason="other addresses of loopback are Linux's")
async def test_finals_over_slow_links_are_predicted_with_the_time_of_moving_them(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra decisions (pyarrow) is not installed")
    async with asyncio.timeout(110), apart(own_nats.url, tmp_path) as (http, running):
        for seed in range(12):
            assert (await made(http, seed))["status"] == "completed"
            learned = await known_to(running, seed + 1)
            await CLOCK.sleep(0.6)  # its heartbeats tell what was moved
        again = await made(http, 0)
        assert again["plan"] == "hit"

        async def counted() -> bool | None:
            found = {(c.what, c.tenant): c for c in (await running.admin.predictions()).chances}
            return True if ("cached", "") in found and found["cached", ""].requests == 1 else None

        await until("the repeat being told of", counted)
        ways = {(way.node_id, way.way): way for way in learned.ways}
        assert {("edge-1", "store.get"), ("worker-1", "edge-1"), ("worker-1", "store.put")} <= ways.keys()
        assert ways["worker-1", "edge-1"].delay_s > WAY.delay_s
        assert {size.model for size in learned.sizes} == {DRAFT, CLOUD}
        assert {accuracy.part for accuracy in learned.accuracies} == {
            "first look in lab",
            "draft in lab",
            "final refine",
        }
    logged = [one for one in read_log(tmp_path / "log") if one.outcome is not None and one.outcome.plan == "refine"]
    with_moves, without = _errors(logged[3:]), _errors(logged[3:], moves=False)
    assert with_moves < 0.15, (with_moves, without)
    assert without > with_moves + 0.1, (with_moves, without)
    (hit,) = [one.decision for one in read_log(tmp_path / "log") if one.decision.plan == "hit"]
    assert of_plan(hit, "hit").final_s is not None and of_plan(hit, "hit").moved_bytes > 0


def _errors(logged: list[Logged], *, moves: bool = True) -> float:
    """The median share by which finals took another time than was told; moves: with what was told of moving them. Not
    the mean, since a machine that is shared by others holds up one final or two."""
    assert len(logged) >= 5
    shares = []
    for one in logged:
        chosen = one.decision.chosen()
        assert chosen is not None and chosen.final_s and one.outcome is not None and one.outcome.final_s
        assert math.isfinite(chosen.transfer_s) and chosen.transfer_s > 0.0 and chosen.moved_bytes > 0.0
        told_s = chosen.final_s - (0.0 if moves else chosen.transfer_s)
        shares.append(abs(told_s / one.outcome.final_s - 1.0))
    return statistics.median(shares)


async def test_a_worker_that_loads_its_model_tells_when_it_will_serve(own_nats: NatsServer, tmp_path: Path) -> None:
    child = asleep(tmp_path, "tests.integration.slow_to_load", "4", load_ms=6000.0)
    common = {**SETTINGS, "models_dir": tmp_path / "cards"}
    asked = {"cloud_model": CLOUD, "draft_model": DRAFT, "line": CLOUD, "width": 128, "height": 128, "frames": 8}
    async with real_nodes.scheduler(own_nats.url, tmp_path, **common) as placing:
        running = Running(placing.grpc)

        async def loading() -> LoadInfo | None:
            found = (await running.admin.predictions()).loads
            return found[0] if found else None

        async def watch() -> None:
            load = await until("the worker telling that it loads", loading)
            assert (load.node_id, load.model) == ("worker-1", CLOUD)
            assert load.left_s is not None and 0.0 < load.left_s <= 7.0
            assert (await running.states())["worker-1"] == "loading"
            cloud = of_plan(await running.place(query(**asked)), "cloud")
            assert cloud.final_s is not None and 0.0 < cloud.load_s <= load.left_s
            assert "is loading" in cloud.reason
            await running.sees(worker_1="healthy")
            assert of_plan(await running.place(query(**asked)), "cloud").load_s == 0.0
            assert (await running.admin.predictions()).loads == ()

        try:
            async with asyncio.timeout(50), asyncio.TaskGroup() as group:
                watching = group.create_task(watch())
                async with real_nodes.worker(own_nats.url, tmp_path, child=child, model=CLOUD, threads=1, **common):
                    await asyncio.wait({watching})
        finally:
            await running.close()
