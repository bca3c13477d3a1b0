"""Tenants that share a cloud: real broker, schedulers and workers, which ask whose turn it is."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Message, Subscription
from adaptivegen.bus.nats import NatsBus
from adaptivegen.errors import QuotaExceeded
from adaptivegen.ids import new_video_id
from adaptivegen.jobs.events import JobEvent
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Outcome, PlacementQuery, refusal_of
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.placement_client import PlacementClient
from tests.integration import real_nodes
from tests.integration.real_nodes import CLOCK, broker, until
from tests.jobs import make_request, make_spec
from tests.servers import NatsServer
from tests.unit.scheduler.builders import query

RNG = random.Random(31)
STEPS = 2  # of a final here


def asked(tenant: str, **changes: object) -> PlacementQuery:
    """A short final from noise."""
    job_id = new_video_id(now_ns=CLOCK.now_ns(), rng=RNG)
    return query(job_id=job_id, tenant=tenant, final_steps=STEPS, requested_plan="cloud", **changes)


async def submit(placer: PlacementClient, jobs: JobStore, tenant: str, **changes: object) -> JobSpec:
    """A job as an edge would place and submit it."""
    placing = asked(tenant, **changes)
    decision = await placer.place(placing)
    request = make_request(model="pocket-cloud", steps=STEPS, service_tier=placing.tier)
    spec = make_spec(job_id=placing.job_id, tenant=tenant, plan="cloud").model_copy(
        update={"request": request, "decision": decision, "cloud_model": "pocket-cloud", "edge_grpc_address": ""}
    )
    await jobs.submit(spec)
    return spec


async def ended(jobs: JobStore, specs: list[JobSpec]) -> list[JobRecord]:
    async def look() -> list[JobRecord] | None:
        records = [await jobs.find(spec.tenant, spec.id) for spec in specs]
        return records if all(record.ended for record in records) else None

    return await until("all jobs ending", look)


def order(records: list[JobRecord]) -> list[str]:
    """Tenants in the order in which their jobs were begun."""
    return [record.tenant for record in sorted(records, key=lambda record: record.started_at_ns)]


async def test_a_tenant_with_one_job_does_not_wait_for_another_ones_many(own_nats: NatsServer, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(real_nodes.scheduler(own_nats.url, tmp_path))
        bus = await stack.enter_async_context(broker(own_nats.url))
        blob = open_store(f"file://{tmp_path / 'store'}")
        stack.push_async_callback(blob.close)
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        placer = PlacementClient([near.grpc], clock=CLOCK, budget_s=5.0)
        stack.push_async_callback(placer.close)
        heavy = [await submit(placer, jobs, "heavy") for _ in range(6)]
        flex = [await submit(placer, jobs, "flexible", tier="flex")]
        light = [await submit(placer, jobs, "light")]
        await stack.enter_async_context(real_nodes.worker(own_nats.url, tmp_path, threads=1))
        records = await ended(jobs, [*heavy, *flex, *light])
        assert [record.status for record in records] == ["completed"] * 8
        assert [record.attempts for record in records] == [1] * 8
        begun = order(records)
        assert begun.index("light") <= 1
        assert begun[-1] == "flexible"
        assert all(0 < record.gpu_s < 60 for record in records)


async def test_jobs_of_two_schedulers_are_one_line_and_one_that_dies_loses_none(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(broker(own_nats.url))
        blob = open_store(f"file://{tmp_path / 'store'}")
        stack.push_async_callback(blob.close)
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        near = await stack.enter_async_context(real_nodes.scheduler(own_nats.url, tmp_path))
        async with real_nodes.scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as far:
            placers = [PlacementClient([node.grpc], clock=CLOCK, budget_s=5.0) for node in (near, far)]
            for placer in placers:
                stack.push_async_callback(placer.close)
            heavy = [await submit(placers[0], jobs, "heavy") for _ in range(5)]
            light = [await submit(placers[1], jobs, "light")]
            await asyncio.sleep(0.2)  # until each has heard of the other's
        await stack.enter_async_context(real_nodes.worker(own_nats.url, tmp_path, threads=1))
        records = await ended(jobs, [*heavy, *light])
        assert [record.status for record in records] == ["completed"] * 6
        assert order(records).index("light") <= 1  # which only the one that died had placed


async def test_two_schedulers_that_both_give_turns_begin_every_job_once_fairly_and_agree_in_the_end(
    own_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lights = ("light-a", "light-b")
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(broker(own_nats.url))
        blob = open_store(f"file://{tmp_path / 'store'}")
        stack.push_async_callback(blob.close)
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        ids = ("scheduler-1", "scheduler-2")
        nodes = [
            await stack.enter_async_context(real_nodes.scheduler(own_nats.url, tmp_path, node_id=node_id))
            for node_id in ids
        ]
        placers = [PlacementClient([node.grpc], clock=CLOCK, budget_s=5.0) for node in nodes]
        edge = PlacementClient([node.grpc for node in nodes], clock=CLOCK, budget_s=5.0)
        admins = [AdminClient(node.grpc) for node in nodes]
        for close in (*(placer.close for placer in placers), edge.close, *(admin.close for admin in admins)):
            stack.push_async_callback(close)
        told = await stack.enter_async_context(listening(bus))
        for number, node in enumerate(nodes, start=1):  # each asks one of them alone whose turn it is
            worker = real_nodes.worker(
                own_nats.url, tmp_path, node_id=f"worker-{number}", scheduler_addresses=node.grpc, threads=1
            )
            await stack.enter_async_context(worker)

        async def ready() -> bool | None:
            states = [[node.state for node in await admin.nodes()] for admin in admins]
            return True if states == [["healthy", "healthy"]] * 2 else None

        await until("both seeing both workers", ready)
        tenants = [*["heavy"] * 8, *lights]
        specs = [await submit(placers[number % 2], jobs, tenant) for number, tenant in enumerate(tenants)]
        specs += [await submit(placers[1 - number], jobs, tenant) for number, tenant in enumerate(lights)]
        placed = Counter((spec.tenant, spec.decision.decided_by) for spec in specs)
        assert placed == {("heavy", ids[0]): 4, ("heavy", ids[1]): 4} | {(t, by): 1 for t in lights for by in ids}

        records = await ended(jobs, specs)
        assert [record.status for record in records] == ["completed"] * len(specs)
        assert [(record.attempts, record.epoch) for record in records] == [(1, 1)] * len(specs)
        assert {record.worker_id for record in records} == {"worker-1", "worker-2"}
        once = {spec.id: 1 for spec in specs}
        assert (told.begun, told.completed) == (once, once)
        await until("the workers telling of all finals", lambda: told.finals(len(specs)))

        begun = order(records)
        for tenant in lights:
            assert begun.index(tenant) <= 5, begun  # in the queue's order it would be the ninth at least
        turns = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"event": "turn"' in line]
        assert {turn["worker"] for turn in turns} == {"worker-1", "worker-2"}  # both gave other jobs than were next

        for spec, record in zip(specs, records, strict=True):
            await edge.report(outcome_of(spec, record))
        await until("both having no open jobs, and the same use", lambda: agree(admins, {*lights, "heavy"}))


async def agree(admins: list[AdminClient], tenants: set[str]) -> bool | None:
    """Whether all know of no open job, and of the same use of all these tenants."""
    seen = [{one.tenant: one for one in await admin.tenants()} for admin in admins]
    views = [{name: (one.open_jobs, one.reserved_gpu_s) for name, one in view.items()} for view in seen]
    used = [{name: round(one.used_gpu_s, 3) for name, one in view.items()} for view in seen]
    nothing = all(left == (0, 0.0) for view in views for left in view.values())
    pools = [(pool.waiting, pool.at_hand_s) for admin in admins for pool in await admin.pools()]
    nothing = nothing and pools == [(0, 0.0)] * len(admins)
    return True if nothing and all(one == used[0] for one in used) and tenants <= set(used[0]) else None


def outcome_of(spec: JobSpec, record: JobRecord) -> Outcome:
    """What an edge would tell of a job."""
    return Outcome(
        job_id=spec.id,
        edge_id=spec.decision.edge_id,
        worker_id=record.worker_id,
        plan=record.plan,
        status=record.status,
        decided_by=spec.decision.decided_by,
        decided_at_ns=spec.decision.decided_at_ns,
        tenant=spec.tenant,
        gpu_s=record.gpu_s,
        final_s=(record.completed_at_ns - record.created_at_ns) / 1e9,
    )


class Told:
    """What went over the broker: how often each job was begun and completed, and the finals that each worker made."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.made: dict[str, int] = {}

    def event(self, message: Message) -> None:
        event = JobEvent.model_validate_json(message.data)
        self.begun[event.record.id] += event.type == "started"
        self.completed[event.record.id] += event.type == "completed"

    def beat(self, message: Message) -> None:
        report = NodeReport.model_validate_json(message.data)
        self.made[report.node_id] = max((work.number for work in report.finished), default=0)

    async def finals(self, count: int) -> bool | None:
        """Whether workers have made so many, or more."""
        assert sum(self.made.values()) <= count
        return True if sum(self.made.values()) == count else None


@asynccontextmanager
async def listening(bus: NatsBus) -> AsyncIterator[Told]:
    """To all jobs' events and to the workers' heartbeats, losing none."""
    told = Told()
    heard = [
        (await bus.subscribe(subject, buffer=10_000), take)
        for subject, take in (("ag.events.>", told.event), ("ag.node.worker.*", told.beat))
    ]

    async def hear(subscription: Subscription, take: Callable[[Message], None]) -> None:
        async for message in subscription:
            take(message)

    async with asyncio.TaskGroup() as group:
        for subscription, take in heard:
            group.create_task(hear(subscription, take))
        yield told
        for subscription, _ in heard:
            assert subscription.dropped == 0
            await subscription.close()


async def test_without_a_scheduler_the_queues_order_holds(own_nats: NatsServer, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(broker(own_nats.url))
        blob = open_store(f"file://{tmp_path / 'store'}")
        stack.push_async_callback(blob.close)
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        specs: list[JobSpec] = []
        async with real_nodes.scheduler(own_nats.url, tmp_path) as near:
            placer = PlacementClient([near.grpc], clock=CLOCK, budget_s=5.0)
            stack.push_async_callback(placer.close)
            for tenant in ("heavy", "heavy", "heavy", "light"):
                specs.append(await submit(placer, jobs, tenant))
        await stack.enter_async_context(real_nodes.worker(own_nats.url, tmp_path, threads=1))
        assert order(await ended(jobs, specs)) == ["heavy", "heavy", "heavy", "light"]


async def test_what_a_tenant_used_counts_at_every_scheduler_and_after_a_restart(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    used = Outcome(
        job_id="vid_" + "0" * 26,
        edge_id="e",
        worker_id="w",
        plan="cloud",
        status="completed",
        tenant="t",
        gpu_s=900.0,
        decided_at_ns=CLOCK.now_ns() - 1_000 * 10**9,
    )
    async with real_nodes.scheduler(own_nats.url, tmp_path) as near:
        placer, admin = PlacementClient([near.grpc], clock=CLOCK, budget_s=5.0), AdminClient(near.grpc)
        await placer.report(used)
        await admin.set_quota("t", {"gpu_seconds_per_hour": 900.0}, reason="test")
        await until("usage being told", lambda: told(own_nats.url))
        await placer.close()
        await admin.close()
    async with real_nodes.scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as other:
        placer, admin = PlacementClient([other.grpc], clock=CLOCK, budget_s=5.0), AdminClient(other.grpc)

        async def knows() -> bool | None:
            found = {one.tenant: one for one in await admin.tenants()}
            return True if "t" in found and found["t"].used_gpu_s == 900.0 and found["t"].own else None

        await until("a new scheduler knowing of it", knows)
        refused = refusal_of(await placer.place(asked("t")))
        assert isinstance(refused, QuotaExceeded)
        assert refused.retry_after_s is not None and 2000 < refused.retry_after_s < 3000
        assert refusal_of(await placer.place(asked("other"))) is None
        await placer.close()
        await admin.close()


async def told(nats_url: str) -> bool | None:
    async with broker(nats_url) as bus:
        entry = await (await bus.kv("usage")).get("scheduler-1")
    return True if entry is not None and b'"t"' in entry.value else None
