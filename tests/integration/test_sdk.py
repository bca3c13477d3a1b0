"""The SDK and `generate` over real sockets: a silent server for the deadlines, and a really started system."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import psutil
import pytest

from adaptivegen.errors import Cancelled, Conflict, DeadlineExceeded, InvalidRequest, NotFound
from adaptivegen.jobs.rating import decode_rating
from adaptivegen.media.mp4 import decode_video
from adaptivegen.sdk.aio import AsyncClient
from adaptivegen.sdk.client import Client
from adaptivegen.sdk.nearest import find_edges
from tests.e2e.system import UpSystem, up
from tests.unit.sdk.scripted import VIDEO_ID, event, video

PROMPT = "a red circle moves left over a sunset sky"
WHOLE_TIMEOUT_S = 120.0


class _Beating(BaseHTTPRequestHandler):
    """Answers /readyz, and any stream of events with a snapshot and then heartbeats until the test ends."""

    over = threading.Event()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/readyz":
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_header("connection", "close")
        self.end_headers()
        try:
            self.wfile.write(event("1", "snapshot", video()))
            while not self.over.wait(0.02):
                self.wfile.write(b": still here\n\n")
        except OSError:
            return  # the client left

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def beating() -> Iterator[str]:
    _Beating.over.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Beating)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    _Beating.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("deadlines", "named"),
    [
        ({"timeout_s": 0.2}, "whole"),
        ({"start_timeout_s": 0.2}, "start"),
        ({"start_timeout_s": 0.2, "timeout_s": 60.0}, "start"),
    ],
)
def test_heartbeats_do_not_outlast_a_deadline(beating: str, deadlines: dict[str, float], named: str) -> None:
    with Client(beating) as client, pytest.raises(DeadlineExceeded, match=named):
        client.handle(VIDEO_ID).result(**deadlines)


async def test_heartbeats_do_not_outlast_a_deadline_on_a_loop(beating: str) -> None:
    async with AsyncClient(beating) as client:
        with pytest.raises(DeadlineExceeded, match="whole"):
            await client.handle(VIDEO_ID).result(timeout_s=0.2)


async def test_cancelling_the_waiting_task_ends_the_wait(beating: str) -> None:
    async with AsyncClient(beating) as client:
        events = client.handle(VIDEO_ID).events()
        assert (await anext(events)).type == "snapshot"
        waiting = asyncio.get_running_loop().create_task(anext(events))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_of_several_edges_one_that_answers_is_preferred(beating: str) -> None:
    assert find_edges(["http://127.0.0.1:9", beating], None).urls == (beating, "http://127.0.0.1:9")


# ---- against a running system -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    with up(tmp_path_factory.mktemp("sdk"), edges=2) as started:
        yield started


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def client(system: UpSystem) -> Iterator[Client]:
    """Finds the nearest edge in the system's list, once one is ready: a cancel may have cost both their models."""
    urls = [edge["http_url"] for edge in system.endpoints("edge")]
    system.wait(lambda: any(is_ready(url) for url in urls))
    with Client(endpoints_file=system.data / "endpoints.json") as opened:
        yield opened


def test_a_prompt_becomes_a_draft_and_then_a_final(client: Client, tmp_path: Path) -> None:
    handle = client.submit(PROMPT, seed=7)
    types = []
    for happened in handle.events(start_timeout_s=WHOLE_TIMEOUT_S, timeout_s=WHOLE_TIMEOUT_S):
        types.append(happened.type)
        if happened.look_jpeg:
            assert happened.look_jpeg.startswith(b"\xff\xd8")
    assert types[-1] == "completed" and "draft.look" in types and len(types) > 3
    result = handle.result()
    result.save(tmp_path / "final.mp4")
    final, fps = decode_video((tmp_path / "final.mp4").read_bytes())
    draft, _ = decode_video(handle.draft())
    assert final.shape == (24, 256, 256, 3) and fps == 12 and draft.shape[3] == 3
    assert result.video.draft_steps > 0 and result.video.final_steps > 0
    handle.rate(5)
    with pytest.raises(Conflict):
        handle.cancel()


async def test_the_same_request_on_the_other_edge_is_a_hit_with_the_same_bytes(
    system: UpSystem, client: Client
) -> None:
    first = client.submit(PROMPT, seed=7).result(timeout_s=WHOLE_TIMEOUT_S)
    other = next(edge["http_url"] for edge in system.endpoints("edge") if edge["node_id"] != first.video.edge_id)
    async with AsyncClient(other) as second_client:
        second = await (await second_client.submit(PROMPT, seed=7)).result(timeout_s=WHOLE_TIMEOUT_S)
        assert second.video.cached and await second.content() == first.content()


def test_one_key_is_one_video(client: Client) -> None:
    first = client.submit(PROMPT, seed=1, idempotency_key="order-66")
    again = client.submit(PROMPT, seed=1, idempotency_key="order-66")
    assert again.id == first.id
    with pytest.raises(Conflict):
        client.submit(PROMPT, seed=2, idempotency_key="order-66")
    first.cancel()


def test_a_handle_goes_on_in_another_process(system: UpSystem, client: Client) -> None:
    handle = client.submit("a blue square moves right in a forest", seed=3)
    code = (
        "import json, sys, hashlib; from adaptivegen import Client, Handle\n"
        "with Client(endpoints_file=sys.argv[1]) as client:\n"
        f"    result = Handle.from_dict(json.loads(sys.argv[2]), client).result(timeout_s={WHOLE_TIMEOUT_S})\n"
        "    print(hashlib.sha256(result.content()).hexdigest())"
    )
    argv = [sys.executable, "-c", code, str(system.data / "endpoints.json"), json.dumps(handle.to_dict())]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(handle.result(timeout_s=WHOLE_TIMEOUT_S).content()).hexdigest()


def test_a_cancelled_video_raises_cancelled(client: Client) -> None:
    handle = client.submit("a green star falls at night", steps=64)
    assert handle.cancel().status == "cancelled"
    with pytest.raises(Cancelled):
        handle.result(timeout_s=WHOLE_TIMEOUT_S)


def test_an_edge_that_dies_while_watched_is_survived(system: UpSystem, client: Client) -> None:
    handle = client.submit("a purple ring orbits over a city", seed=5, steps=24)
    seen: list[str] = []
    killed = 0
    for happened in handle.events(timeout_s=WHOLE_TIMEOUT_S):
        seen.append(happened.id)
        if not killed:
            name = next(edge["node_id"] for edge in system.endpoints("edge") if edge["http_url"] == client.edge())
            killed = system.kill(name)
    system.wait_restarted(name, killed)
    assert len(seen) == len(set(seen)) and handle.result().video.final is not None


def test_bad_input_is_typed_and_names_the_limit(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="256x256") as caught:
        client.submit(PROMPT, size="7x7")
    assert caught.value.param == "size"
    with pytest.raises(InvalidRequest, match="PNG") as caught:
        client.submit(PROMPT, image=b"not an image")
    assert caught.value.param == "input_reference"
    with pytest.raises(NotFound):
        client.handle(VIDEO_ID).status()


def test_an_image_is_a_start_and_lists_and_models_are_read(client: Client, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "green").save(tmp_path / "start.png")
    handle = client.submit(PROMPT, image=tmp_path / "start.png", strength=0.5, plan="draft")
    page = client.videos(limit=100).videos
    assert handle.id in [entry.id for entry in page]
    models = {str(model["id"]): model for model in client.models()}
    assert models.keys() >= {"pocket-draft", "pocket-cloud"}
    plans = {score["plan"] for score in cast("list[dict[str, object]]", models["pocket-cloud"]["scores"])}
    assert plans == {"cloud", "refine", "split"}
    assert decode_video(handle.result(timeout_s=WHOLE_TIMEOUT_S).content())[0].shape[0] > 0


def test_a_video_is_gone_on_with_where_it_ends(client: Client) -> None:
    begun = client.submit(PROMPT, seed=3, plan="draft").result(timeout_s=WHOLE_TIMEOUT_S).content()
    more = client.submit(PROMPT, seed=4, plan="draft", video=begun, task="extend").result(timeout_s=WHOLE_TIMEOUT_S)
    first, second = (decode_video(clip)[0].astype(int) for clip in (begun, more.content()))
    assert second.shape == first.shape
    kept = np.abs(second[1] - first[13]).mean()  # the end of the one is the beginning of the other
    assert kept < 10 and kept < 0.7 * np.abs(second[1] - first[1]).mean()


def _generate(system: UpSystem, *args: str) -> list[str]:
    return [sys.executable, "-m", "cli", "generate", *args, "--data", str(system.data)]


def test_generate_writes_the_draft_and_the_final(system: UpSystem, tmp_path: Path) -> None:
    clip, draft = tmp_path / "clip.mp4", tmp_path / "draft.mp4"
    argv = _generate(system, "a white heart grows at sea", "-o", str(clip), "--draft-out", str(draft), "--json")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest() and done.stderr == ""
    assert decode_video(clip.read_bytes())[0].shape == (24, 256, 256, 3) and decode_video(draft.read_bytes())[0].size
    assert summary["first_look_s"] <= summary["draft_s"] <= summary["final_s"] <= summary["whole_s"]
    _rated_by_command(system, summary["id"])


def _rated_by_command(system: UpSystem, video_id: str) -> None:
    def rate(*args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cli", "rate", video_id, *args, "--data", str(system.data)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert "leaves it out" in rate("--stars", "2").stderr
    done = rate("--stars", "4", "--draft-wait-s", "0.5", "--final-wait-s", "6.25")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{video_id} rated 4 of 5\n", "")
    [stored] = (path for path in system.data.rglob(video_id) if path.parent.parent.name == "ratings")
    rating = decode_rating(stored.read_bytes())
    assert rating is not None and rating.tells
    assert (rating.stars, rating.draft_wait_s, rating.final_wait_s) == (4, 0.5, 6.25)
    refused = rate("--stars", "6")
    assert (refused.returncode, "stars is 6; allowed: a whole number from 1 to 5" in refused.stderr) == (2, True)


def test_ctrl_c_cancels_the_job(system: UpSystem, client: Client, tmp_path: Path) -> None:
    argv = _generate(system, "an orange cross bounces in a desert", "-o", str(tmp_path / "c.mp4"), "--steps", "64")
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.startswith("draft"):
            process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130, said
    video_id = next(line.split()[1] for line in said if line.startswith("video"))
    assert f"Ctrl-C: cancelled {video_id}\n" in said
    assert client.handle(video_id).status().status == "cancelled" and not (tmp_path / "c.mp4").exists()


def test_the_demo_shows_a_hit_writes_its_files_and_leaves_no_process(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "cli", "demo", "--out", str(tmp_path / "out")]
    # TMPDIR is where the demo keeps its system, and what its processes are known by below.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()]
    assert any("hit" in cells and "yes" in cells for cells in table)
    for folder in (tmp_path / "out").iterdir():
        assert sorted(path.name for path in folder.iterdir()) == [
            "contact-sheet.png",
            "draft.mp4",
            "final.mp4",
            "video.json",
        ]
        assert str(folder) in done.stdout
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert list(tmp_path.glob("adaptivegen-*")) == []
    left = [process for process in psutil.process_iter() if str(tmp_path) in _settings(process)]
    assert left == []


def _settings(process: psutil.Process) -> str:
    """The values of a process's environment; empty for one that is gone or not ours."""
    try:
        return " ".join(process.environ().values()) if process.pid != os.getpid() else ""
    except psutil.Error:
        return ""


def test_an_interrupted_start_ends_everything(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "cli", "up", "--data", str(tmp_path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        if line.startswith("scheduler"):
            process.send_signal(signal.SIGINT)
        said.append(line)
    assert process.wait(timeout=60) == 0 and said[-1] == "stopped\n" and not any("ready" in line for line in said)
    assert [left for left in psutil.process_iter() if str(tmp_path) in _settings(left)] == []
