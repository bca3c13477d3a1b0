"""Two edges help one another: a burst at one is drafted by both, and a draft that hangs is made by the other."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.system import UpSystem, events, finish, submit, up

PROMPT = "a blue star moves right over a meadow"
BURST = 12


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    with up(tmp_path_factory.mktemp("edges"), edges=2, workers=1) as started:
        yield started


def explained(system: UpSystem, video_id: str) -> Any:
    command = [sys.executable, "-m", "cli", "admin", "explain", video_id, "--json", "--data", str(system.data)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(shown.stdout)


def model_of(system: UpSystem, node_id: str) -> psutil.Process:
    """The process of an edge's draft model."""
    pid = system.pid(node_id)
    assert pid is not None
    (child,) = psutil.Process(pid).children()
    return child


def test_a_draft_that_hangs_is_made_by_the_other_edge(system: UpSystem) -> None:
    """The first of this system: later the budget of second copies may have been used."""
    model = model_of(system, "edge-1")
    model.send_signal(signal.SIGSTOP)
    try:
        with system.client(0) as client:
            video = submit(client, PROMPT, plan="draft", seed=500)
            assert explained(system, video["id"])["decision"]["backup_edge_id"]
            done = finish(client, video["id"])
        assert done["status"] == "completed"
    finally:
        model.send_signal(signal.SIGCONT)
    assert "Edge edge-1 was to draft, and edge edge-2 did." in explained(system, video["id"])["notes"]


def test_a_burst_at_one_edge_is_drafted_by_both(system: UpSystem) -> None:
    with system.client(0) as client, ThreadPoolExecutor(BURST) as pool:
        ids = list(pool.map(lambda n: submit(client, PROMPT, plan="draft", seed=100 + n)["id"], range(BURST)))
        videos = [finish(client, video_id) for video_id in ids]
        decisions = [explained(system, video_id)["decision"] for video_id in ids]
        drafted = Counter(decision["draft_edge_id"] or decision["edge_id"] for decision in decisions)
        assert {video["status"] for video in videos} == {"completed"}
        assert {video["edge_id"] for video in videos} == {"edge-1"}  # who accepted it tells of it
        assert set(drafted) == {"edge-1", "edge-2"}, drafted
        lent = next(n for n, decision in enumerate(decisions) if decision["draft_edge_id"] == "edge-2")
        types = [kind for _, kind, _ in events(client, ids[lent])]
        assert types[-1] == "completed"
    assert "draft_lent" in system.logs("edge-2")
    with system.client(1) as other:  # what another edge drafts is what it would have drafted itself
        again = finish(other, submit(other, PROMPT, plan="draft", seed=100 + lent)["id"])
        assert again["draft"]["sha256"] == videos[lent]["draft"]["sha256"]


def test_a_session_is_drafted_at_one_edge(system: UpSystem) -> None:
    with system.client(0) as client:
        ids = []
        for number in range(4):
            ids.append(submit(client, PROMPT, plan="draft", seed=600 + number, session="s1")["id"])
            finish(client, ids[-1])
    edges = {explained(system, video_id)["decision"]["draft_edge_id"] for video_id in ids}
    assert len(edges) == 1


def test_a_session_that_is_no_name_is_refused(system: UpSystem) -> None:
    with system.client(0) as client:
        answer = client.post("/v1/videos", json={"prompt": PROMPT, "session": "no blanks"})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["error"]["param"] == "session"
