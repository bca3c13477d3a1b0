"""Tenants that share a cloud: real broker, schedulers and workers, which ask whose turn it is."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

from adaptivegen.blob.store import open_store
from adaptivegen.errors import QuotaExceeded
from adaptivegen.ids import new_video_id
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
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
