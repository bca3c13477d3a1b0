"""Jobs on a real folder and a real broker, with a disk that fills up or cannot be written.

The faults are real and need no rights: a limit on file sizes (the kernel refuses the write midway), a filesystem of
64 KiB in a user namespace where the system allows one, and /proc, which nobody can write.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import NotFound, StorageFailure
from adaptivegen.jobs.reconcile import Sightings, reconcile
from adaptivegen.jobs.record import claim
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobStore
from tests.jobs import JOB_ID, make_spec, media

SUBMIT = """
import asyncio, json, resource, sys
from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.store import JobStore
from tests.jobs import make_spec

async def main(folder, fault):
    clock = SystemClock()
    bus = MemoryBus(clock)
    jobs = JobStore(blob=open_store(f"file://{folder}"), bus=bus, clock=clock)
    if fault == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
    if fault == "fill":
        with open(f"{folder}/ballast", "wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(512)):
                    pass
            except OSError:
                pass
    try:
        await jobs.submit(make_spec())
        raised = "nothing"
    except AdaptiveGenError as exc:
        raised = exc.code
    queue = await bus.work_queue("default", ack_wait_s=30)
    found = {"raised": raised, "indexed": await jobs.index.ids("t"), "queued": (await queue.depth()).pending}
    found["specs"] = [meta.key async for meta in jobs.blob.list("jobs/")]
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""
NOTHING = {"indexed": [], "queued": 0, "specs": []}


def submit_in_process(folder: Path, fault: str, *, around: tuple[str, ...] = ()) -> dict[str, object]:
    """Submit a job in a process of its own, under the fault; what it raised and what is visible after."""
    command = [*around, sys.executable, "-c", SUBMIT, str(folder), fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_submission_the_kernel_refuses_midway_leaves_nothing_visible(tmp_path: Path) -> None:
    assert submit_in_process(tmp_path, "limit") == {"raised": "storage_failure", **NOTHING}
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []  # nor half a temporary file


def test_a_submission_to_a_full_disk_says_so_and_leaves_nothing_visible(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"
    around = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    try:
        allowed = subprocess.run([*around, "true"], capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if allowed.returncode != 0:
        pytest.skip(f"no user namespaces with mounts here: {allowed.stderr.decode().strip()}")
    assert submit_in_process(tmp_path, "fill", around=around) == {"raised": "storage_full", **NOTHING}


def test_a_submission_to_a_disk_that_became_read_only_says_so(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs tmpfs {tmp_path} && mount -o remount,ro {tmp_path}"
    around = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    try:
        allowed = subprocess.run([*around, "true"], capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if allowed.returncode != 0:
        pytest.skip(f"no user namespaces with mounts here: {allowed.stderr.decode().strip()}")
    assert submit_in_process(tmp_path, "none", around=around) == {"raised": "storage_read_only", **NOTHING}


async def test_a_folder_that_cannot_be_written_refuses_with_a_storage_error() -> None:
    clock = SystemClock()
    bus = MemoryBus(clock)
    with pytest.raises(StorageFailure):
        jobs = JobStore(blob=open_store("file:///proc/adaptivegen"), bus=bus, clock=clock)
        await jobs.submit(make_spec())
    assert await (await bus.kv("jobs")).keys() == []


async def test_a_store_whose_folder_became_a_file_refuses_and_shows_nothing(tmp_path: Path) -> None:
    clock = SystemClock()
    jobs = JobStore(blob=open_store(f"file://{tmp_path / 'store'}"), bus=MemoryBus(clock), clock=clock)
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StorageFailure):
        await jobs.submit(make_spec())
    with pytest.raises((NotFound, StorageFailure)):
        await jobs.find("t", JOB_ID)


async def test_a_job_from_submission_to_its_outcome_on_real_parts(tmp_path: Path, nats_url: str) -> None:
    clock = SystemClock()
    bus = NatsBus([nats_url], name="job-store-test")
    await bus.start()
    try:
        rng = random.Random(clock.now_ns())
        tenant, pool = f"t{rng.getrandbits(40):x}", f"p{rng.getrandbits(40):x}"
        jobs = JobStore(blob=open_store(f"file://{tmp_path}"), bus=bus, clock=clock)
        spec = make_spec(tenant=tenant)
        spec = spec.model_copy(update={"decision": spec.decision.model_copy(update={"pool": pool})})
        await jobs.submit(spec)
        delivery = await (await bus.work_queue(pool, ack_wait_s=30)).pull(timeout_s=5)
        assert delivery is not None
        now_ns = clock.now_ns()
        record = await jobs.change(tenant, JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=now_ns, lease_s=30))
        done = Manifest(id=JOB_ID, tenant=tenant, outcome="completed", epoch=1, finished_at_ns=now_ns, final=media())
        ended, won = await jobs.finish(done)
        await delivery.ack()
        assert (record.epoch, ended.status, won) == (1, "completed", True)
        assert await jobs.find(tenant, JOB_ID) == ended == await jobs.change(tenant, JOB_ID, lambda r: r)
        assert (await reconcile(jobs, patience_s=0.0, sightings=Sightings(clock))).seen == 0
        assert await jobs.index.ids(tenant) == [JOB_ID]
    finally:
        await bus.close()
