"""Edges killed at any moment of a submission: a client that retries with its key gets one video, and it ends well."""

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.system import UpSystem, finish, up

PROMPT = "a white ring moves down over a desert"
ROUNDS = 6


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    with up(tmp_path_factory.mktemp("chaos"), edges=2, workers=1, ack_wait_s=4) as started:
        yield started


def post(client: httpx.Client, key: str, body: dict[str, Any]) -> httpx.Response | None:
    with contextlib.suppress(httpx.HTTPError):
        return client.post("/v1/videos", json={"prompt": PROMPT, **body}, headers={"idempotency-key": key})
    return None


def accepted(system: UpSystem, key: str, body: dict[str, Any]) -> str:
    """The id of the video, by asking both edges in turn until one answers, as a client would."""
    found: list[str] = []

    def ask() -> bool:
        for number in (1, 0):
            with system.client(number) as client:
                answer = post(client, key, body)
            if answer is not None and answer.status_code in (200, 202):
                found.append(answer.json()["id"])
                return True
            assert answer is None or answer.status_code in (503, 504), answer.text
        return False

    system.wait(ask)
    return found[0]


def killed_while_submitting(system: UpSystem, number: int, rng: random.Random) -> str:
    """Submit once while the edge is killed, then again with the same key until an edge answers; the video's id."""
    body = {"plan": rng.choice(("draft", "refine", "cloud")), "steps": 4, "seed": number}
    if number % 2:  # every other request is the same, so that answers from the content index are killed as well
        body = {"plan": "cloud", "steps": 4, "seed": 99}
    victim = f"edge-{number % 2 + 1}"
    system.wait(lambda: system.pid(victim) is not None)
    with system.client(number % 2) as client:
        system.wait(lambda: ready(client))
        old = system.pid(victim)
        assert old is not None
        killer = threading.Timer(rng.uniform(0.0, 0.08), system.kill, args=(victim,))
        killer.start()
        first = post(client, f"key-{number}", body)
        killer.join()
    video_id = accepted(system, f"key-{number}", body)
    if first is not None and first.status_code in (200, 202):
        assert first.json()["id"] == video_id
    system.wait_restarted(victim, old)
    with system.client((number + 1) % 2) as other:
        finish(other, video_id, timeout_s=120)
    return video_id


def test_no_request_is_lost_or_doubled_however_its_edge_dies(system: UpSystem) -> None:
    rng = random.Random(20261121)
    ids = [killed_while_submitting(system, number, rng) for number in range(ROUNDS)]
    assert len(set(ids)) == ROUNDS
    assert {path.parent.name for path in system.stored("jobs/local/*/spec")} == set(ids)
    cached: list[bool] = []
    with system.client(0) as client:
        system.wait(lambda: ready(client))
        for video_id in ids:
            done = client.get(f"/v1/videos/{video_id}").json()
            assert done["status"] == "completed", done
            assert done["draft"] or done["final"]
            cached.append(done["cached"])
    assert any(cached[1::2])
    system.wait(lambda: not system.stored("pending/*"))


def ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return client.get("/readyz").status_code == 200
    return False
