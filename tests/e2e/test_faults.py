"""Processes killed and restarted while jobs run: nothing accepted is lost, nothing is done twice."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.system import UpSystem, events, finish, submit, up

PROMPT = "a blue square moves right over a night sky"
LONG = {"plan": "cloud", "steps": 40}  # some seconds of generation


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    """A system of this module's own, with short leases."""
    with up(tmp_path_factory.mktemp("faults"), edges=2, workers=1, ack_wait_s=4) as started:
        yield started


@pytest.fixture
def edge(system: UpSystem) -> Iterator[httpx.Client]:
    with system.client(0) as client:
        yield client


def started(edge: httpx.Client, video_id: str) -> None:
    """Return once a worker has the job."""
    for _, kind, _ in events(edge, video_id):
        if kind in ("started", "progress"):
            return


def outcomes(system: UpSystem, video_id: str) -> list[str]:
    """The outcomes in the store: exactly one file can be there, and it must name a final that is there."""
    found = [json.loads(path.read_text()) for path in system.stored(f"jobs/local/{video_id}/manifest")]
    for manifest in found:
        if manifest["final"]:
            assert (system.data / "store" / manifest["final"]["key"]).exists()
    return [manifest["outcome"] for manifest in found]


def test_a_job_whose_worker_is_killed_is_finished_once_by_its_successor(edge: httpx.Client, system: UpSystem) -> None:
    video = submit(edge, PROMPT, seed=1, **LONG)
    started(edge, video["id"])
    old = system.kill("worker-1")
    done = finish(edge, video["id"])
    assert done["status"] == "completed"
    assert outcomes(system, video["id"]) == ["completed"]
    finals = [path for path in system.stored(f"out/local/{video['id']}/*/*.mp4") if path.parent.name != "0"]
    assert [path.parent.name for path in finals] == ["2"]  # only the second claim's upload is there
    system.wait_restarted("worker-1", old)


def test_a_job_whose_model_process_is_killed_is_tried_again(edge: httpx.Client, system: UpSystem) -> None:
    video = submit(edge, PROMPT, seed=2, **LONG)
    started(edge, video["id"])
    worker = psutil.Process(system.pid("worker-1"))
    worker.children()[0].kill()
    assert finish(edge, video["id"])["status"] == "completed"
    assert worker.is_running()


def test_a_job_that_kills_its_worker_every_time_is_given_up_with_the_reason(
    edge: httpx.Client, system: UpSystem
) -> None:
    video = submit(edge, PROMPT, seed=3, plan="cloud", steps=50)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        video = edge.get(f"/v1/videos/{video['id']}").json()
        if video["status"] == "failed":
            break
        if video["status"] == "in_progress":
            for child in psutil.Process(system.pid("worker-1")).children():
                child.kill()
        time.sleep(0.05)
    assert video["status"] == "failed", video
    assert video["error"]["code"] in ("poison", "generation_failed")
    assert outcomes(system, video["id"]) == ["failed"]


def test_without_a_scheduler_the_edge_decides_alone_and_says_so(edge: httpx.Client, system: UpSystem) -> None:
    old = system.pid("scheduler-1")
    assert old is not None
    system.kill("scheduler-1", signal.SIGSTOP)
    try:
        video = submit(edge, PROMPT, seed=4)
        spec = json.loads(system.stored(f"jobs/local/{video['id']}/spec")[0].read_text())
        assert spec["decision"]["decided_by"] == "edge-1"
        assert "alone" in spec["decision"]["reasons"][0]
    finally:
        system.kill("scheduler-1", signal.SIGCONT)
    assert finish(edge, video["id"])["status"] == "completed"
    system.kill("scheduler-1")
    system.wait_restarted("scheduler-1", old)

    def scheduled() -> bool:
        answer = edge.post("/v1/videos", json={"prompt": PROMPT, "plan": "draft"})
        if answer.status_code == 429:  # the edge is alone still, and has as many drafts as may wait
            return False
        spec = json.loads(system.stored(f"jobs/local/{answer.json()['id']}/spec")[0].read_text())
        return bool(spec["decision"]["decided_by"] == "scheduler-1")

    system.wait(scheduled)


def test_a_killed_edge_loses_no_job_it_accepted(system: UpSystem) -> None:
    with system.client(1) as second, system.client(0) as first:
        video = submit(second, PROMPT, seed=5)
        old = system.kill("edge-2")  # most likely before its draft is there
        done = finish(first, video["id"])
        assert done["status"] == "completed"
        assert outcomes(system, video["id"]) == ["completed"]
        system.wait_restarted("edge-2", old)
        system.wait(lambda: _ready(second))
        assert second.get(f"/v1/videos/{video['id']}").json() == done


def test_a_killed_edge_loses_no_draft_only_job_either(system: UpSystem) -> None:
    with system.client(1) as second, system.client(0) as first:
        system.wait(lambda: _ready(second))
        video = submit(second, PROMPT, seed=6, plan="draft")
        old = system.kill("edge-2")
        done = finish(first, video["id"], timeout_s=120)  # the reconciler hands it to the cloud
        assert done["status"] == "completed"
        system.wait_restarted("edge-2", old)


def test_a_killed_broker_loses_no_accepted_job(edge: httpx.Client, system: UpSystem) -> None:
    system.wait(lambda: _ready(edge))
    videos = [submit(edge, PROMPT, seed=10 + n, plan="cloud", steps=4) for n in range(3)]
    old = system.kill("broker")
    answer = edge.post("/v1/videos", json={"prompt": PROMPT, "plan": "cloud", "seed": 99})
    if answer.status_code == 202:  # it came back in between
        videos.append(answer.json())
    else:
        assert answer.status_code == 503
        assert answer.json()["error"]["retryable"]
    system.wait_restarted("broker", old)
    for video in videos:
        assert finish(edge, video["id"])["status"] == "completed"
        assert outcomes(system, video["id"]) == ["completed"]


def test_a_restart_of_everything_keeps_every_state_and_finishes_what_was_open(
    edge: httpx.Client, system: UpSystem
) -> None:
    listed = edge.get("/v1/videos", params={"limit": 100}).json()["data"]
    known = {video["id"]: finish(edge, video["id"]) for video in listed}  # earlier tests may have left some running
    open_one = submit(edge, PROMPT, seed=20, **LONG)
    status, output = system.stop()
    assert status == 0, output
    system.start()
    with system.client(0) as again:
        for name, video in known.items():
            assert again.get(f"/v1/videos/{name}").json() == video
        assert finish(again, open_one["id"])["status"] == "completed"


def test_the_index_is_rebuilt_from_the_store_when_the_broker_lost_everything(system: UpSystem) -> None:
    with system.client(0) as client:
        done = finish(client, submit(client, PROMPT, seed=21)["id"])
    system.stop()
    for path in sorted((system.data / "broker").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    system.start()
    with system.client(0) as client:
        again = client.get(f"/v1/videos/{done['id']}").json()

        def listed() -> set[str]:
            return {video["id"] for video in client.get("/v1/videos", params={"limit": 100}).json()["data"]}

        stored = {path.parent.name for path in system.stored("jobs/local/*/spec")}
        system.wait(lambda: listed() == stored)
    for field in ("status", "final", "draft", "plan", "prompt", "seed", "completed_at"):
        assert again[field] == done[field]


def test_a_second_up_on_the_same_folder_says_so_and_exits(system: UpSystem) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "cli", "up", "--data", str(system.data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 6
    assert "in use" in second.stderr


def test_stopping_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    with up(tmp_path / "data") as system:
        assert system.process is not None
        family = psutil.Process(system.process.pid).children(recursive=True)
        assert len(family) >= 7  # broker, scheduler, cache, worker, edge, two models
        status, output = system.stop(signal.SIGINT)
        assert status in (0, 130), output
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        assert not (tmp_path / "data" / "endpoints.json").exists()
        system.start()  # the lock is free


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with up(tmp_path / "data") as system:
        assert system.process is not None
        family = psutil.Process(system.process.pid).children(recursive=True)
        system.process.kill()
        system.process.wait()
        system.process = None
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_draft_model_fails_one_draft_and_not_the_edge(edge: httpx.Client, system: UpSystem) -> None:
    system.wait(lambda: _ready(edge))
    worker, node = system.pid("edge-1"), psutil.Process(system.pid("edge-1"))
    node.children()[0].kill()
    first = submit(edge, PROMPT, seed=30, plan="refine")
    assert finish(edge, first["id"])["status"] == "completed"
    system.wait(lambda: _ready(edge))  # the model is loaded again
    time.sleep(1)  # and the scheduler has heard of it
    again = finish(edge, submit(edge, PROMPT, seed=31, plan="refine")["id"])
    assert (again["status"], again["plan"]) == ("completed", "refine")
    assert again["draft"] is not None
    assert system.pid("edge-1") == worker
