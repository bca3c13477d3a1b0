"""The end of a real worker process in the middle of a job that would outlast its grace."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adaptivegen.blob.store import open_store
from adaptivegen.clock import SystemClock
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from tests.integration.real_nodes import broker, registered, until
from tests.jobs import make_request, make_spec
from tests.servers import NatsServer


def long_spec() -> JobSpec:
    """A job of many steps of the cloud model."""
    request = make_request(model="pocket-cloud", steps=64)
    spec = make_spec(plan="cloud")
    decision = spec.decision.model_copy(update={"final_steps": 64, "refine_t0": None})
    return spec.model_copy(update={"request": request, "decision": decision, "cloud_model": "pocket-cloud"})


def start_worker(nats_url: str, folder: Path, *, grace_s: float) -> subprocess.Popen[bytes]:
    values = {
        "NODE_ID": "worker-1",
        "AUTH": "loopback",
        "NATS_URLS": nats_url,
        "STORE_URL": f"file://{folder / 'store'}",
        "THREADS": "1",
        "DRAIN_GRACE_S": str(grace_s),
    }
    environment = {**os.environ, **{f"ADAPTIVEGEN_WORKER_{name}": value for name, value in values.items()}}
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "core_cloud"], env=environment, stdout=log, stderr=log)


@asynccontextmanager
async def job_store(nats_url: str, folder: Path) -> AsyncIterator[JobStore]:
    blob = open_store(f"file://{folder / 'store'}")
    async with broker(nats_url) as bus:
        yield JobStore(blob=blob, bus=bus, clock=SystemClock())
    await blob.close()


async def test_a_job_that_outlasts_the_grace_is_given_back_and_the_worker_ends_with_0(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    process = start_worker(own_nats.url, tmp_path, grace_s=4.0)
    try:
        async with job_store(own_nats.url, tmp_path) as jobs:
            await registered(own_nats.url, "worker", "worker-1")
            spec = long_spec()
            await jobs.submit(spec)

            async def begun() -> JobRecord | None:
                record = await jobs.find(spec.tenant, spec.id)
                return record if record.worker_id and record.status != "queued" else None

            assert (await until("the job being begun", begun)).worker_id == "worker-1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, (tmp_path / "worker.log").read_text()
            record = await jobs.find(spec.tenant, spec.id)
            assert (record.status, record.worker_id, record.attempts) == ("queued", "", 0)
            queue = await jobs.bus.work_queue("default", ack_wait_s=30)
            again = await queue.pull(timeout_s=10)
            assert again is not None
            await again.ack()
    finally:
        process.kill()
        process.wait()
