"""Processes that hang instead of dying, and a store that is full, while jobs run: nothing is lost or done twice."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.system import UpSystem, events, finish, submit, up

PROMPT = "a green triangle moves up over a forest"
LONG = {"plan": "cloud", "steps": 40}  # some seconds of generation
LEASE_S = 4


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    """A system with two workers and short leases; its store is a small disk of its own where that can be mounted."""
    data = tmp_path_factory.mktemp("frozen")
    (data / "store").mkdir()
    mounted = _mount(data / "store", "16m")
    try:
        with up(data, workers=2, ack_wait_s=LEASE_S) as started:
            yield started
    finally:
        if mounted:
            subprocess.run(["umount", str(data / "store")], check=True)


def _mount(folder: Path, size: str) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


@pytest.fixture
def edge(system: UpSystem) -> Iterator[httpx.Client]:
    with system.client(0) as client:
        yield client


def claimed_by(edge: httpx.Client, video_id: str) -> str:
    """The worker that has the job, once one has."""
    for _, kind, _ in events(edge, video_id):
        if kind in ("started", "progress"):
            break
    return str(edge.get(f"/v1/videos/{video_id}").json()["worker_id"])


def finals(system: UpSystem, video_id: str) -> list[Path]:
    return [path for path in system.stored(f"out/local/{video_id}/*/*.mp4") if path.parent.name != "0"]


def test_the_job_of_a_worker_that_hangs_is_finished_by_another_and_the_first_comes_to_nothing(
    edge: httpx.Client, system: UpSystem
) -> None:
    video = submit(edge, PROMPT, seed=1, **LONG)
    frozen = claimed_by(edge, video["id"])
    system.kill(frozen, signal.SIGSTOP)
    try:
        done = finish(edge, video["id"])
    finally:
        system.kill(frozen, signal.SIGCONT)
    assert (done["status"], done["worker_id"]) == ("completed", {"worker-1", "worker-2"}.difference({frozen}).pop())
    for seed in (2, 3):  # both work again
        assert finish(edge, submit(edge, PROMPT, seed=seed, plan="cloud", steps=4)["id"])["status"] == "completed"
    system.wait(lambda: len(finals(system, video["id"])) == 1)
    assert edge.get(f"/v1/videos/{video['id']}").json() == done


def test_a_broker_that_hangs_beyond_the_lease_delays_jobs_and_new_ones_are_spooled_in_time(
    edge: httpx.Client, system: UpSystem
) -> None:
    video = submit(edge, PROMPT, seed=10, **LONG)
    claimed_by(edge, video["id"])
    system.kill("broker", signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        answer = edge.post("/v1/videos", json={"prompt": PROMPT, "plan": "cloud", "seed": 11}, timeout=60)
        assert answer.status_code == 202, answer.text
        assert "cut off" in answer.json()["notes"][0]
        assert time.monotonic() - stopped_s < 10
        assert edge.get(f"/v1/videos/{video['id']}", timeout=60).status_code == 200  # from the store
        time.sleep(max(0.0, 1.5 * LEASE_S - (time.monotonic() - stopped_s)))
    finally:
        system.kill("broker", signal.SIGCONT)
    for name in (video["id"], answer.json()["id"]):
        assert finish(edge, name)["status"] == "completed"
        assert len(system.stored(f"jobs/local/{name}/manifest")) == 1
        system.wait(lambda name=name: len(finals(system, name)) == 1)  # type: ignore[misc]


def test_a_full_store_refuses_new_videos_and_delays_the_one_at_work(edge: httpx.Client, system: UpSystem) -> None:
    store = system.data / "store"
    if not store.is_mount():
        pytest.skip("mounting a small disk needs root")
    video = submit(edge, PROMPT, seed=20, **LONG)
    claimed_by(edge, video["id"])
    filler = store / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while file.write(b"\0" * 4096):
            pass
    full_s = time.monotonic()
    answer = edge.post("/v1/videos", json={"prompt": PROMPT, "plan": "cloud", "seed": 21})
    assert answer.status_code == 507, answer.text
    assert answer.json()["error"]["code"] == "storage_full"
    system.wait(lambda: "job_given_back" in system.logs("worker-1") + system.logs("worker-2"))
    assert edge.get(f"/v1/videos/{video['id']}").json()["status"] in ("queued", "in_progress")
    time.sleep(max(0.0, 15 - (time.monotonic() - full_s)))  # longer than three attempts take
    filler.unlink()
    assert finish(edge, video["id"], timeout_s=150)["status"] == "completed"
    assert finish(edge, submit(edge, PROMPT, seed=22)["id"])["status"] == "completed"


def test_a_read_only_store_refuses_new_videos_and_serves_what_is_there(edge: httpx.Client, system: UpSystem) -> None:
    store = system.data / "store"
    if not store.is_mount():
        pytest.skip("mounting a small disk needs root")
    done = finish(edge, submit(edge, PROMPT, seed=30)["id"])
    subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
    try:
        answer = edge.post("/v1/videos", json={"prompt": PROMPT, "seed": 31})
        assert answer.status_code == 507, answer.text
        assert answer.json()["error"]["code"] == "storage_read_only"
        assert len(edge.get(f"/v1/videos/{done['id']}/content").content) == done["final"]["size_bytes"]
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(store)], check=True)
    assert finish(edge, submit(edge, PROMPT, seed=31)["id"])["status"] == "completed"
