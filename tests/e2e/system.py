"""A whole system as a user starts it: `adaptivegen up` in a process of its own, reached over HTTP and gRPC."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

START_TIMEOUT_S = 120
END_STATES = ("completed", "failed", "cancelled")


class UpSystem:
    """`adaptivegen up` on one data directory."""

    def __init__(self, data: Path, *, edges: int = 1, workers: int = 1, ack_wait_s: int = 30) -> None:
        self.data = data
        self.args = [
            *(sys.executable, "-m", "cli", "up", "--data", str(data)),
            *("--edges", str(edges), "--workers", str(workers), "--ack-wait", str(ack_wait_s)),
        ]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.wait((self.data / "endpoints.json").exists, START_TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and everything it printed."""
        process = self.process
        if process is None:
            return 0, ""
        process.send_signal(number)
        output, _ = process.communicate(timeout=90)
        self.process = None
        return process.returncode, output

    def endpoints(self, kind: str) -> list[dict[str, str]]:
        listed = json.loads((self.data / "endpoints.json").read_text())["endpoints"]
        return [endpoint for endpoint in listed if endpoint["kind"] == kind]

    def client(self, edge: int = 0) -> httpx.Client:
        url = self.endpoints("edge")[edge]["http_url"]
        return httpx.Client(base_url=url, timeout=30, follow_redirects=True)

    def pid(self, node_id: str) -> int | None:
        """Process id of a node, found by its environment."""
        if self.process is None:
            return None
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                names = [value for key, value in child.environ().items() if key.endswith("_NODE_ID")]
                if names == [node_id] or (node_id == "broker" and "nats-server" in " ".join(child.cmdline())):
                    return child.pid
        return None

    def kill(self, node_id: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.pid(node_id)
        assert pid is not None, f"{node_id} does not run"
        os.kill(pid, number)
        return pid

    def wait_restarted(self, node_id: str, old_pid: int) -> None:
        self.wait(lambda: self.pid(node_id) not in (None, old_pid))

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the system ended:\n{self.process.stdout and self.process.stdout.read()}")
            assert time.monotonic() < until, f"not within {timeout_s} s; logs in {self.data / 'logs'}"
            time.sleep(0.05)

    def logs(self, node_id: str) -> str:
        return (self.data / "logs" / f"{node_id}.log").read_text()

    def stored(self, pattern: str) -> list[Path]:
        """Objects in the store, without what a writer that was killed left of one (`#` is in no key)."""
        return sorted(path for path in (self.data / "store").glob(pattern) if "#" not in path.name)


@contextlib.contextmanager
def up(data: Path, **options: Any) -> Iterator[UpSystem]:
    system = UpSystem(data, **options)
    system.start()
    try:
        yield system
    finally:
        if system.process is not None:
            system.stop()


def submit(client: httpx.Client, prompt: str = "a red circle moves left over a sunset sky", **fields: Any) -> Any:
    """The Video of an accepted request."""
    answer = client.post("/v1/videos", json={"prompt": prompt, **fields})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def finish(client: httpx.Client, video_id: str, timeout_s: float = 90) -> Any:
    """The Video once it has ended; an edge that is away is asked again."""
    until = time.monotonic() + timeout_s
    video: Any = None
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            answer = client.get(f"/v1/videos/{video_id}")
            if answer.status_code == 200:
                video = answer.json()
                if video["status"] in END_STATES:
                    return video
        time.sleep(0.1)
    raise AssertionError(f"{video_id} did not end within {timeout_s} s: {video}")


def events(client: httpx.Client, video_id: str, after: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """(id, type, data) of a video's events until the stream ends."""
    headers = {"last-event-id": after} if after else {}
    with client.stream("GET", f"/v1/videos/{video_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line == "" and "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}
            elif name:
                fields[name] = value
