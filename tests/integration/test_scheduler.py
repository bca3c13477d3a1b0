"""A whole scheduler against a real broker and real gRPC: heartbeats in, decisions out, drains, restarts."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adaptivegen.bus.nats import NatsBus
from adaptivegen.errors import InvalidRequest, NotFound, Unavailable
from adaptivegen.jobs.spec import Manifest
from adaptivegen.rpc.admin_rows import JobFilter, NodeInfo
from adaptivegen.rpc.placement_client import PlacementClient
from scheduler.decision_log import read_log
from tests.schedulers import CLOCK, fleet, free_port, job_store, new_spec, scheduler, until, video_id
from tests.servers import NatsServer
from tests.unit.scheduler.builders import FINAL_S, done, draft_card, of_plan, outcome, query, report


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


async def test_predictions_learn_from_heartbeats_and_outcomes(own_nats: NatsServer, tmp_path: Path) -> None:
    works = tuple(done(number, 2 * FINAL_S) for number in range(1, 9))
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1", finished=works)),
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        (pace,) = (await running.admin.predictions()).paces
        assert (pace.node_id, pace.model, pace.observations) == ("worker-1", "pocket-cloud", 8)
        assert pace.factor == pytest.approx(2.0, rel=0.05)
        decision = await running.place(query(requested_plan="cloud"))
        cloud = of_plan(decision, "cloud")
        assert cloud.final_s == pytest.approx(2 * FINAL_S, rel=0.05)
        assert cloud.final_s is not None and cloud.final_upper_s is not None and cloud.final_upper_s > cloud.final_s
        went = outcome(decision, final_s=1.1 * cloud.final_s)
        await running.placer.report(went)
        (accuracy,) = (await running.admin.predictions()).accuracies
        assert (accuracy.part, accuracy.outcomes, accuracy.covered) == ("final cloud", 1, 1)
        assert accuracy.error == pytest.approx(0.1, abs=0.01)
        assert accuracy.upper > 1.0


async def test_a_scheduler_with_a_decision_log_has_written_it_when_it_ends(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra decisions (pyarrow) is not installed")
    async with scheduler(own_nats.url, tmp_path, decision_log=tmp_path / "log") as running:
        decision = await running.place()
        went = outcome(decision, worker_id="", status="failed")
        await running.placer.report(went)
    (logged,) = read_log(tmp_path / "log")
    assert (logged.decision, logged.outcome) == (decision, went)


async def test_an_outcome_reaches_the_scheduler_that_decided_whichever_is_asked_first(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as decided,
        scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as other,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
    ):
        await decided.sees(edge_1="healthy", worker_1="healthy")
        decision = await decided.place()
        client = PlacementClient(["127.0.0.1:1", other.address, decided.address], clock=CLOCK)
        await client.report(outcome(decision, draft_s=0.4, final_s=6.0))
        await client.close()
        parts = [part.part for part in (await decided.admin.predictions()).accuracies]
        assert parts == ["draft", "final refine"]
        assert not (await other.admin.predictions()).accuracies


async def test_a_session_is_drafted_where_another_scheduler_began_it(own_nats: NatsServer, tmp_path: Path) -> None:
    lending = {"lends": draft_card().digest, "grpc_address": "127.0.0.1:1"}
    session = {"session": "ada", "draft_digest": draft_card().digest}
    async with (
        scheduler(own_nats.url, tmp_path) as one,
        scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as other,
        fleet(own_nats.url, report("edge-1", **lending), report("edge-2", **lending), report("worker-1")),
    ):
        for running in (one, other):
            await running.sees(edge_1="healthy", edge_2="healthy", worker_1="healthy")
        assert (await one.place(query(**session, job_id=video_id()))).drafter == "edge-1"

        async def heard() -> bool | None:  # the hint of the first is on its way for a moment
            return True if any(tenant.open_jobs for tenant in await other.admin.tenants()) else None

        await until("the other scheduler hearing of the job", heard)
        moved = await other.place(query(**session, job_id=video_id(), edge_id="edge-2"))
        assert moved.drafter == "edge-1"
        assert "edge edge-1 drafts, as it did for this session." in [reason.lower() for reason in moved.reasons]


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
            pair = "pocket-draft and pocket-cloud are an advisory pair, which hands over frames"
            assert f"{pair}: the card of pocket-draft tells of no path." in found.notes


async def test_questions_about_nothing_are_typed_errors(own_nats: NatsServer, tmp_path: Path) -> None:
    nobody = video_id()
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
        ({"STORE_URL": "ftp://x"}, "ADAPTIVEGEN_SCHEDULER_STORE_URL"),
    ],
)
def test_settings_it_must_refuse_end_the_process(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    process = start_process(tmp_path, **changes)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert named in said
