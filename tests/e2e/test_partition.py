"""A whole system whose edges are cut off: broker hanging, store gone. They go on, also killed, and hand over later."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from adaptivegen import Client
from tests.e2e.system import UpSystem, finish, submit, up

PROMPT = "a yellow star moves left over the sea"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    with up(tmp_path_factory.mktemp("partition"), edges=2, workers=1, ack_wait_s=4) as started:
        yield started


@contextmanager
def cut(system: UpSystem) -> Iterator[None]:
    """Nobody reaches broker or store."""
    store, away = system.data / "store", system.data / "store.away"
    system.kill("broker", signal.SIGSTOP)
    store.rename(away)
    store.write_text("no folder")
    try:
        yield
    finally:
        store.unlink()
        away.rename(store)
        system.kill("broker", signal.SIGCONT)


def status(client: httpx.Client) -> str:
    try:
        return str(client.get("/readyz").json()["status"])
    except httpx.HTTPError:
        return "away"


def outcomes(system: UpSystem, video_id: str) -> list[str]:
    manifests = system.stored(f"jobs/local/{video_id}/manifest")
    return [json.loads(path.read_text())["outcome"] for path in manifests]


def spooled(system: UpSystem) -> list[str]:
    return [path.parent.name for path in (system.data / "spool").glob("*/jobs/jobs/local/*/spec")]


def test_jobs_of_two_edges_cut_off_and_one_of_them_killed_are_all_finished_once(system: UpSystem) -> None:
    with system.client(0) as first, system.client(1) as second:
        before = finish(first, submit(first, PROMPT, seed=1)["id"])
        system.wait(lambda: any((system.data / "spool" / "edge-1" / "known" / "content").glob("local/*")))
        with cut(system):
            for client in (first, second):
                system.wait(lambda client=client: status(client) == "cut off")  # type: ignore[misc]
            videos = [submit(client, PROMPT, seed=10 + n) for n in range(3) for client in (first, second)]
            assert all("cut off" in video["notes"][0] for video in videos)
            refused = second.get(f"/v1/videos/{videos[0]['id']}")  # the other edge's
            assert refused.status_code == 503
            again = submit(first, PROMPT, seed=1)
            assert (again["status"], again["cached"]) == ("completed", True)
            shown = first.get(f"/v1/videos/{again['id']}/content").content
            assert len(shown) == before["final"]["size_bytes"]
            old = system.kill("edge-1")
            system.wait_restarted("edge-1", old)
            system.wait(lambda: status(first) == "cut off")
            late = submit(first, PROMPT, seed=20)
            for video in (*videos[::2], late):
                system.wait(lambda video=video: first.get(f"/v1/videos/{video['id']}").json()["draft"])  # type: ignore[misc]
            assert sorted(spooled(system)) == sorted(video["id"] for video in (*videos, again, late))
        for video in (*videos, again, late):
            assert finish(first, video["id"])["status"] == "completed"
            assert outcomes(system, video["id"]) == ["completed"]
        system.wait(lambda: not spooled(system))
        assert second.get(f"/v1/videos/{again['id']}").json()["cached"]


def test_the_sdk_sees_a_draft_during_a_cut_and_the_final_after_it(system: UpSystem) -> None:
    with system.client(0) as client, Client(endpoints_file=system.data / "endpoints.json") as sdk:
        system.wait(lambda: status(client) == "ready")
        with cut(system):
            system.wait(lambda: status(client) == "cut off")
            handle = sdk.submit(PROMPT, seed=30)
            handle.save_draft(system.data / "draft.mp4")
            assert (system.data / "draft.mp4").stat().st_size > 0
        handle.result().save(system.data / "final.mp4")
        assert outcomes(system, handle.id) == ["completed"]
