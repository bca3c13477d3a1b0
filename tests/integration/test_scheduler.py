"""A whole scheduler against a real broker and real gRPC: heartbeats in, decisions out, drains, restarts."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from adaptivegen.blob.store import open_store
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import InvalidRequest, NotFound, Unavailable
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.ids import new_video_id
from adaptivegen.jobs.spec import JobSpec, Manifest
from adaptivegen.jobs.store import JobStore
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.request import GenerationRequest
from adaptivegen.rpc.admin import AdminClient, JobFilter, NodeInfo
from adaptivegen.rpc.placement import PlacementClient
from cli.admin import app
from scheduler.service import serve
from scheduler.settings import SchedulerSettings
from tests.servers import NatsServer
from tests.unit.scheduler.builders import cards, of_plan, place, query, report, view

PATIENCE_S = 20.0
CLOCK = SystemClock()
RNG = random.Random(20)
Found = TypeVar("Found")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """Ask until the answer is something, not reaching anyone included; fails after `PATIENCE_S`."""
    last: Exception | None = None
    for _ in range(round(PATIENCE_S / 0.1)):
        try:
            answer = await ask()
        except Unavailable as exc:
            answer, last = None, exc
        if answer is not None:
            return answer
        await CLOCK.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {PATIENCE_S:g} s ({last})")


class Running:
    """One scheduler and clients to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.admin = AdminClient(address)
        self.placer = PlacementClient([address], clock=CLOCK, budget_s=5.0)

    async def states(self) -> dict[str, str]:
        return {node.node_id: node.state for node in await self.admin.nodes()}

    async def place(self, asked: PlacementQuery | None = None) -> Decision:
        return await self.placer.place(asked or query(job_id=new_video_id(now_ns=CLOCK.now_ns(), rng=RNG)))

    async def sees(self, **states: str) -> None:
        """Wait until these nodes (with _ for -) are in these states."""
        wanted = {node_id.replace("_", "-"): state for node_id, state in states.items()}

        async def ask() -> bool | None:
            seen = await self.states()
            return True if wanted.items() <= seen.items() else None

        await until(f"seeing {wanted}", ask)

    async def close(self) -> None:
        await self.admin.close()
        await self.placer.close()


@asynccontextmanager
async def scheduler(nats_url: str, folder: Path, *, port: int = 0, **changes: object) -> AsyncIterator[Running]:
    """A scheduler in this process, serving."""
    port = port or free_port()
    values: dict[str, object] = {
        "node_id": "scheduler-1",
        "nats_urls": nats_url,
        "store_url": f"file://{folder / 'store'}",
        "auth": "loopback",
        "grpc_port": port,
        "drain_grace_s": 1.0,
        "log_level": "error",
    }
    settings = SchedulerSettings.model_validate({**values, **changes})
    stop = asyncio.Event()
    running = Running(f"127.0.0.1:{port}")
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(settings, cards=cards(), clock=CLOCK, rng=random.Random(3), stop=stop))
        try:
            await until("serving", running.states)
            yield running
        finally:
            await running.close()
            stop.set()


@asynccontextmanager
async def fleet(nats_url: str, *reports: NodeReport) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Nodes that send heartbeats; cancelling a node's task silences it."""
    buses = [NatsBus([nats_url], name=sent.node_id) for sent in reports]
    async with asyncio.TaskGroup() as group:
        tasks = {}
        for sent, bus in zip(reports, buses, strict=True):
            beating = Heartbeat(bus, CLOCK, lambda sent=sent: sent)  # type: ignore[misc]
            tasks[sent.node_id] = group.create_task(beating.run())
        try:
            yield tasks
        finally:
            for task in tasks.values():
                task.cancel()
    for bus in buses:
        await bus.close()


@asynccontextmanager
async def job_store(nats_url: str, folder: Path) -> AsyncIterator[JobStore]:
    """The store that edges and workers would write."""
    bus = NatsBus([nats_url], name="edge")
    blob = open_store(f"file://{folder / 'store'}")
    yield JobStore(blob=blob, bus=bus, clock=CLOCK)
    await bus.close()
    await blob.close()


def new_spec(tenant: str = "local", *, later_s: int = 0) -> JobSpec:
    job_id = new_video_id(now_ns=CLOCK.now_ns() + later_s * 10**9, rng=RNG)
    return JobSpec(
        id=job_id,
        tenant=tenant,
        created_at_ns=CLOCK.now_ns(),
        request=GenerationRequest(
            prompt="a red circle",
            model="pocket-cloud",
            width=256,
            height=256,
            seconds=2.0,
            fps=12,
            frames=24,
            steps=None,
            guidance=1.0,
            seed=7,
            intent="render",
        ),
        content_key="0" * 64,
        draft_model="pocket-draft",
        cloud_model="pocket-cloud",
        draft_steps=4,
        decision=place(view(), query(job_id=job_id)),
        edge_grpc_address="127.0.0.1:1",
        want_final=True,
    )


async def test_heartbeats_in_decisions_out(own_nats: NatsServer, tmp_path: Path) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1", remaining_s=9.0, in_flight=1)) as beating,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        nodes: dict[str, NodeInfo] = {node.node_id: node for node in await running.admin.nodes()}
        assert nodes["worker-1"].kind == "worker"
        assert nodes["worker-1"].models == ("pocket-cloud",)
        assert nodes["worker-1"].memory_bytes > 0
        assert nodes["edge-1"].report_age_s < 60

        decision = await running.place()
        assert (decision.plan, decision.edge_id, decision.decided_by) == ("refine", "edge-1", "scheduler-1")
        assert decision.view_digest
        refine = of_plan(decision, "refine")
        assert refine.final_s is not None
        assert refine.final_s > 6.17

        beating["worker-1"].cancel()
        await running.sees(edge_1="healthy", worker_1="stale")
        assert of_plan(await running.place(), "refine").final_s is None


async def test_bad_queries_are_typed_errors_and_serving_goes_on(own_nats: NatsServer, tmp_path: Path) -> None:
    async with scheduler(own_nats.url, tmp_path) as running:
        for changes in ({"edge_id": "a.*"}, {"frames": 0}, {"job_id": "x" * 5000}, {"final_steps": 2**31}):
            with pytest.raises(InvalidRequest) as caught:
                await running.place(query(**changes))
            assert caught.value.param == next(iter(changes))
        with pytest.raises(NotFound, match="unheard-of"):
            await running.place(query(cloud_model="unheard-of"))
        assert (await running.place()).plan == "refine"


async def test_malformed_heartbeats_disturb_nothing(own_nats: NatsServer, tmp_path: Path) -> None:
    bus = NatsBus([own_nats.url], name="stranger")
    async with scheduler(own_nats.url, tmp_path) as running, fleet(own_nats.url, report("edge-1")):
        await running.sees(edge_1="healthy")
        for data in (b"", b"\xff\xfe", b"{}", b"[" * 100_000, b"x" * 900_000):
            await bus.publish("ag.node.edge.edge-9", data)
        await bus.publish("ag.node.edge.edge-9", report("edge-1", seq=10**9).encode())  # in the name of another
        await bus.publish("ag.node.edge.edge-2", report("edge-2").encode())
        await running.sees(edge_1="healthy", edge_2="healthy")
        assert set(await running.states()) == {"edge-1", "edge-2"}
    await bus.close()


async def test_what_waits_in_the_queue_is_waited_for(own_nats: NatsServer, tmp_path: Path) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        job_store(own_nats.url, tmp_path) as jobs,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        for _ in range(3):
            await jobs.submit(new_spec())

        async def waits() -> bool | None:
            cloud = of_plan(await running.place(query(requested_plan="draft")), "cloud")
            return True if cloud.final_s is not None and cloud.final_s > 12.17 + 3 * 5 else None

        await until("predicting the wait behind three jobs", waits)


async def test_a_job_is_explained_and_listed(own_nats: NatsServer, tmp_path: Path) -> None:
    async with scheduler(own_nats.url, tmp_path) as running, job_store(own_nats.url, tmp_path) as jobs:
        first, second = new_spec(), new_spec("acme", later_s=1)
        for spec in (first, second):
            await jobs.submit(spec)
        manifest = Manifest(
            id=first.id, tenant="local", outcome="completed", epoch=0, finished_at_ns=CLOCK.now_ns(), plan="cloud"
        )
        await jobs.finish(manifest)

        assert [job.id for job in await running.admin.jobs(JobFilter())] == [second.id, first.id]
        assert [job.id for job in await running.admin.jobs(JobFilter(limit=1))] == [second.id]
        assert [job.id for job in await running.admin.jobs(JobFilter(tenant="local"))] == [first.id]
        assert [job.id for job in await running.admin.jobs(JobFilter(status="queued"))] == [second.id]
        assert await running.admin.jobs(JobFilter(tenant="nobody")) == []

        for tenant in ("", "local"):
            found = await running.admin.explain(first.id, tenant)
            assert found.decision == first.decision
            assert (found.job.status, found.job.plan) == ("completed", "cloud")
            assert "Plan refine was decided, and plan cloud was done." in found.notes


async def test_questions_about_nothing_are_typed_errors(own_nats: NatsServer, tmp_path: Path) -> None:
    nobody = new_video_id(now_ns=CLOCK.now_ns(), rng=RNG)
    async with scheduler(own_nats.url, tmp_path) as running:
        for tenant in ("", "local"):
            with pytest.raises(NotFound):
                await running.admin.explain(nobody, tenant)
        for job_id in ("", "../../etc", "vid_*", "x" * 10_000):
            with pytest.raises(InvalidRequest):
                await running.admin.explain(job_id)
        with pytest.raises(InvalidRequest, match=r"a\.b"):
            await running.admin.explain(nobody, "a.b")
        for wanted in (JobFilter(status="finished"), JobFilter(limit=1001), JobFilter(tenant=">")):
            with pytest.raises(InvalidRequest):
                await running.admin.jobs(wanted)
        with pytest.raises(NotFound):
            await running.admin.drain("edge-1")
        with pytest.raises(InvalidRequest):
            await running.admin.drain("edge.1")


async def test_a_drain_reaches_the_node_and_every_scheduler_and_can_be_undone(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as one,
        scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as other,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
    ):
        await one.sees(edge_1="healthy", worker_1="healthy")
        await other.sees(edge_1="healthy", worker_1="healthy")
        assert await one.admin.drain("worker-1") == "draining"
        assert of_plan(await one.place(), "refine").final_s is None
        await other.sees(worker_1="draining")
        assert await one.admin.drain("edge-1") == "draining"
        assert (await one.place()).plan == "cloud"

        await other.admin.drain("edge-1", undo=True)
        await other.admin.drain("worker-1", undo=True)
        await one.sees(edge_1="healthy", worker_1="healthy")
        assert (await one.place()).plan == "refine"


async def test_a_restarted_scheduler_serves_on(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    async with fleet(own_nats.url, report("edge-1"), report("worker-1")):
        async with scheduler(own_nats.url, tmp_path, port=port) as running:
            await running.sees(edge_1="healthy", worker_1="healthy")
            await running.admin.drain("worker-1")
        edge_side = PlacementClient([f"127.0.0.1:{port}"], clock=CLOCK, budget_s=1.0)
        with pytest.raises(Unavailable):
            await edge_side.place(query())
        async with scheduler(own_nats.url, tmp_path, port=port) as running:
            await running.sees(edge_1="healthy", worker_1="draining")
            decision = await until("the same client being served again", lambda: edge_side.place(query()))
            assert decision.plan == "refine"
        await edge_side.close()


async def test_it_serves_before_the_broker_is_there_and_survives_its_death(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    own_nats.kill()
    async with scheduler(own_nats.url, tmp_path) as running:
        assert (await running.place()).plan == "refine"
        assert await running.admin.nodes() == []
        with pytest.raises(Unavailable):
            await running.admin.jobs(JobFilter())
        async with fleet(own_nats.url, report("edge-1"), report("worker-1")):
            own_nats.start()
            await running.sees(edge_1="healthy", worker_1="healthy")
            own_nats.kill()
            await running.sees(edge_1="stale", worker_1="stale")
            assert (await running.place()).plan == "refine"
            own_nats.start()
            await running.sees(edge_1="healthy", worker_1="healthy")
            assert await until("the index being readable", lambda: running.admin.jobs(JobFilter())) == []


async def test_a_job_the_queue_has_lost_is_queued_again(own_nats: NatsServer, tmp_path: Path) -> None:
    async with job_store(own_nats.url, tmp_path) as jobs:
        spec = new_spec()
        await jobs.submit(spec)
        queue = await jobs.bus.work_queue("default", ack_wait_s=30)
        lost = await queue.pull(timeout_s=5)
        assert lost is not None
        await lost.ack()
        async with scheduler(own_nats.url, tmp_path, reconcile_interval_s=0.2, reconcile_patience_s=0.5):
            again = await until("the job being queued again", lambda: queue.pull(timeout_s=1))
            assert again.data == lost.data
            await again.ack()


def invoke(running: Running, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--scheduler", running.address], env={"COLUMNS": "200"})


async def test_the_admin_command(own_nats: NatsServer, tmp_path: Path) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        job_store(own_nats.url, tmp_path) as jobs,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        spec = new_spec()
        await jobs.submit(spec)

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, *arguments)

        shown = await run("nodes", "--json")
        assert shown.exit_code == 0
        assert {node["node_id"] for node in json.loads(shown.stdout)["nodes"]} == {"edge-1", "worker-1"}
        assert "worker-1" in (await run("nodes")).stdout

        assert spec.id in (await run("jobs")).stdout
        assert json.loads((await run("jobs", "--json")).stdout)["jobs"][0]["id"] == spec.id

        explained = await run("explain", spec.id)
        assert explained.exit_code == 0
        for words in ("Plan refine was decided by scheduler-1", "not possible", "Reasons:", "first look"):
            assert words in explained.stdout
        decision = json.loads((await run("explain", spec.id, "--json")).stdout)["decision"]
        assert Decision.model_validate(decision) == spec.decision

        assert (await run("drain", "worker-1")).stdout == "worker-1 is draining\n"
        assert (await run("drain", "worker-1", "--undo")).exit_code == 0
        assert (await run("drain", "worker-9")).exit_code == 7
        assert (await run("explain", "nonsense")).exit_code == 2
    result = await asyncio.to_thread(invoke, running, "nodes")
    assert result.exit_code == 3


def start_process(folder: Path, **changes: str) -> subprocess.Popen[str]:
    values = {
        "NODE_ID": "scheduler-1",
        "AUTH": "loopback",
        "STORE_URL": f"file://{folder / 'store'}",
        "NATS_URLS": "nats://127.0.0.1:1",
        **changes,
    }
    environment = {f"ADAPTIVEGEN_SCHEDULER_{name}": value for name, value in values.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "scheduler"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_process_says_its_address_and_ends_on_sigterm(tmp_path: Path) -> None:
    process = start_process(tmp_path)
    assert process.stdout is not None
    events = (json.loads(line) for line in process.stdout)
    ready = next(event for event in events if event["event"] == "ready")
    host, _, port = ready["address"].partition(":")
    assert host == "127.0.0.1"
    socket.create_connection((host, int(port)), timeout=5).close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    process.communicate()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"AUTH": "required"}, "tls_client_ca"),
        ({"HOST": "0.0.0.0"}, "loopback"),
        ({"GRPC_PORT": "70000"}, "ADAPTIVEGEN_SCHEDULER_GRPC_PORT"),
        ({"FINAL_BEST_S": "500"}, "best < worst"),
        ({"STORE_URL": "ftp://x"}, "store_url"),
    ],
)
def test_settings_it_must_refuse_end_the_process(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    process = start_process(tmp_path, **changes)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert named in said
