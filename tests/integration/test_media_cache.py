"""The media cache as a real process in front of a real folder store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from adaptivegen.clock import SystemClock
from adaptivegen.media.signing import sign

KEY = b"k" * 32
KEYS = {"SIGNING_KEYS": f"k1:{KEY.hex()}"}
LOOPBACK = {"AUTH": "loopback"}
CLIP = random.Random(1).randbytes(3_000_000)
SHA = hashlib.sha256(CLIP).hexdigest()
PATH = f"/media/out/tenant-a/vid/1/{SHA}.mp4"


@dataclass(frozen=True)
class Cache:
    """A running cache."""

    process: subprocess.Popen[str]
    http: httpx.Client
    dir: Path

    @property
    def address(self) -> tuple[str, int]:
        return self.http.base_url.host, self.http.base_url.port or 0

    def metric(self, name: str) -> float:
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"adaptivegen_cache_{name}"):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    def files(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.dir.iterdir()
            if path.is_file() and not path.name.startswith(".")
        }


@contextmanager
def running(folder: Path, settings: dict[str, str], *, cache_dir: Path | None = None) -> Iterator[Cache]:
    cache_dir = cache_dir or folder / "cache"
    values = {
        "NODE_ID": "cache-1",
        "STORE_URL": f"file://{folder / 'store'}",
        "DIR": str(cache_dir),
        "CAPACITY_BYTES": str(100_000_000),
        **settings,
    }
    environment = {**os.environ, **{f"ADAPTIVEGEN_CACHE_{name}": value for name, value in values.items()}}
    command = [sys.executable, "-m", "cdn_cache"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                entry = json.loads(line)
                if entry["event"] == "ready":
                    break
            else:
                raise AssertionError(f"the cache ended with {process.wait()} before it was ready")
            with httpx.Client(base_url=entry["address"], timeout=60) as http:
                yield Cache(process, http, cache_dir)
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, PATH, CLIP)
    return tmp_path


def put(folder: Path, path: str, data: bytes) -> None:
    target = folder / "store" / path.removeprefix("/media/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def signed(path: str = PATH, *, tenant: str = "tenant-a", in_s: int = 60, key: bytes = KEY) -> str:
    now_s = SystemClock().now_ns() // 10**9
    return f"{path}?{sign(path, tenant=tenant, expires_at_s=now_s + in_s, kid='k1', key=key)}"


def test_ranges_validators_and_cache_status(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        get = cache.http.get
        whole = get(PATH)
        assert (whole.status_code, whole.content) == (200, CLIP)
        assert whole.headers["cache-status"] == "cache-1; fwd=miss; stored"
        etag = whole.headers["etag"]
        assert etag == f'"{SHA}"'
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"

        part = get(PATH, headers={"range": "bytes=1000000-1999999"})
        assert (part.status_code, part.content) == (206, CLIP[1_000_000:2_000_000])
        assert part.headers["content-range"] == "bytes 1000000-1999999/3000000"
        assert part.headers["cache-status"] == "cache-1; hit"
        assert get(PATH, headers={"range": "bytes=-5"}).content == CLIP[-5:]
        assert get(PATH, headers={"range": "bytes=0-0", "if-range": etag}).status_code == 206
        assert get(PATH, headers={"range": "bytes=0-0", "if-range": '"old"'}).content == CLIP

        for refused in ("bytes=3000000-", "bytes=5-1", "bytes=0-1,4-5", "bytes=0-99999999999999999999"):
            answer = get(PATH, headers={"range": refused})
            assert (answer.status_code, answer.content) == (416, b"")
            assert answer.headers["content-range"] == "bytes */3000000"

        unchanged = get(PATH, headers={"if-none-match": f'"x", {etag}'})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)

        head = cache.http.head(PATH)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "3000000", b"")
        assert cache.http.head(PATH, headers={"range": "bytes=0-9"}).headers["content-length"] == "10"

        assert cache.metric("misses_total") == 1
        assert cache.metric("hits_total") > 5
        assert cache.metric("sent_bytes_total") == 3_000_000 * 2 + 1_000_000 + 5 + 1
        assert cache.metric("used_bytes") == 3_000_000


def test_the_ready_line_health_and_readiness(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        parts = urlsplit(str(cache.http.base_url))
        assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        assert parts.port
        assert cache.http.get("/healthz").status_code == 200
        assert cache.http.get("/readyz").json() == {"status": "ready"}


def test_a_signature_is_needed_and_comes_before_the_look_up(folder: Path) -> None:
    with running(folder, KEYS) as cache:
        missing = f"/media/out/tenant-a/vid/1/{'0' * 64}.mp4"
        for path, status, code in (
            (PATH, 401, "unauthenticated"),
            (missing, 401, "unauthenticated"),
            (signed(in_s=-60), 403, "permission_denied"),
            (signed(key=b"x" * 32), 403, "permission_denied"),
            (signed().replace(SHA, "0" * 64), 403, "permission_denied"),
            (signed(tenant="tenant-b"), 403, "permission_denied"),
            (signed().replace("tenant=tenant-a", "tenant=tenant-b"), 403, "permission_denied"),
            (signed(missing), 404, "not_found"),
        ):
            answer = cache.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        assert cache.files() == {}
        assert cache.http.get(signed()).content == CLIP
        assert cache.http.get(signed(in_s=61)).headers["cache-status"] == "cache-1; hit"
        assert cache.http.head(signed()).status_code == 200


def test_keys_that_are_not_media_are_refused(folder: Path) -> None:
    put(folder, "/media/jobs/tenant-a/vid/spec", b"secret")
    with running(folder, LOOPBACK) as cache:
        for path in (
            "/media/jobs/tenant-a/vid/spec",
            f"/media/out/tenant-a/../tenant-b/{SHA}.mp4",
            f"/media/out/%2e%2e/{SHA}.mp4",
            f"/media/..%2f..%2fetc/{SHA}.mp4",
            f"/media/out/tenant-a/vid/1/{SHA}.mp4%00",
            f"/media/out/tenant-a/vid/1/{SHA}.sh",
            f"/media/out/tenant-a/vid/1/{SHA.upper()}.mp4",
            f"/media//out/tenant-a/vid/1/{SHA}.mp4",
            "/media/out/tenant-a/vid/1/clip.mp4",
        ):
            status, body = raw(cache, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert status in (400, 404), path
            assert json.loads(body)["error"]["code"] in ("invalid_request", "not_found"), path
        assert cache.files() == {}


def raw(cache: Cache, request: bytes) -> tuple[int, bytes]:
    """Status and body of a request sent as it is."""
    with socket.create_connection(cache.address, timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_bodies_encodings_and_other_methods_are_refused(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        assert cache.http.request("GET", PATH, content=b"body").status_code == 400
        assert cache.http.get(PATH, headers={"content-encoding": "gzip"}).status_code == 400
        posted = cache.http.post(PATH, content=b"x")
        assert (posted.status_code, posted.json()["error"]["code"]) == (405, "invalid_request")
        assert cache.http.get("/nothing").json()["error"]["code"] == "not_found"
        assert cache.http.get(PATH).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8080"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_without_keys_a_web_page_gets_nothing(folder: Path, headers: dict[str, str]) -> None:
    with running(folder, LOOPBACK) as cache:
        for path in (PATH, "/metrics", "/nothing"):
            refused = cache.http.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert cache.files() == {}
        assert cache.http.get(PATH, headers={"origin": "http://localhost:3000"}).status_code == 200
    with running(folder, KEYS) as cache:  # a signature is nothing that a browser adds by itself
        assert cache.http.get(signed(), headers=headers).content == CLIP


def test_beyond_the_bound_of_connections_a_request_is_told_when_to_come_back(folder: Path) -> None:
    with running(folder, {**LOOPBACK, "MAX_CONNECTIONS": "2"}) as cache:
        with socket.create_connection(cache.address), socket.create_connection(cache.address):
            status, body = raw(cache, f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())  # it also closes
            assert (status, json.loads(body)["error"]["code"]) == (503, "resource_exhausted")
        while (answer := cache.http.get(PATH)).status_code == 503:  # until the cache has noticed that they left
            assert int(answer.headers["retry-after"]) >= 1
        assert answer.content == CLIP


async def test_concurrent_misses_fetch_once(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        async with httpx.AsyncClient(base_url=cache.http.base_url, timeout=60) as http:
            answers = await asyncio.gather(*(http.get(PATH) for _ in range(12)))
        assert all(answer.content == CLIP for answer in answers)
        assert cache.metric("fetched_bytes_total") == len(CLIP)


def test_wrong_bytes_in_the_store_are_a_502_and_not_kept(folder: Path) -> None:
    wrong = f"/media/out/tenant-a/vid/1/{'a' * 64}.mp4"
    put(folder, wrong, b"not what the name says")
    with running(folder, LOOPBACK) as cache:
        answer = cache.http.get(wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "internal")
        assert cache.files() == {}
        assert [path.name for path in (cache.dir / "quarantine").iterdir()] == ["a" * 64]


def test_an_object_larger_than_the_cache_is_passed_through(folder: Path) -> None:
    with running(folder, {**LOOPBACK, "CAPACITY_BYTES": "1000"}) as cache:
        answer = cache.http.get(PATH)
        assert (answer.status_code, answer.content) == (200, CLIP)
        assert answer.headers["cache-status"] == "cache-1; fwd=miss; stored=?0"
        part = cache.http.get(PATH, headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, CLIP[5:10])
        assert cache.files() == {}


def test_wrong_bytes_passed_through_break_off(folder: Path) -> None:
    wrong = f"/media/out/tenant-a/vid/1/{'a' * 64}.mp4"
    put(folder, wrong, CLIP)
    with running(folder, {**LOOPBACK, "CAPACITY_BYTES": "1000"}) as cache:
        with pytest.raises(httpx.RemoteProtocolError):
            cache.http.get(wrong)
        assert cache.http.get("/healthz").status_code == 200


def test_a_full_disk_passes_through_and_leaves_nothing(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        with running(folder, LOOPBACK, cache_dir=disk / "cache") as cache:
            for _ in range(2):
                answer = cache.http.get(PATH)
                assert (answer.status_code, answer.content) == (200, CLIP)
                assert "stored=?0" in answer.headers["cache-status"]
            assert cache.files() == {}
            small = hashlib.sha256(b"small").hexdigest()
            put(folder, f"/media/out/t/{small}.mp4", b"small")
            assert cache.http.get(f"/media/out/t/{small}.mp4").headers["cache-status"] == "cache-1; fwd=miss; stored"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_bound_is_kept(folder: Path) -> None:
    paths = []
    for number in range(8):
        data = bytes([number]) * 100_000
        paths.append(f"/media/out/t/vid/1/{hashlib.sha256(data).hexdigest()}.mp4")
        put(folder, paths[-1], data)
    with running(folder, {**LOOPBACK, "CAPACITY_BYTES": "350000"}) as cache:
        for path in paths:
            assert len(cache.http.get(path).content) == 100_000
        assert sum(len(data) for data in cache.files().values()) == 300_000
        assert cache.metric("evicted_total") == 5


def test_kill_9_while_filling_then_a_restart_serves_right(folder: Path) -> None:
    key = PATH.removeprefix("/media/")
    command = [sys.executable, "-m", "tests.integration.stalling_cache", str(folder / "cache"), key, str(len(CLIP))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stalled:
        assert stalled.stdout is not None
        assert stalled.stdout.readline() == "half\n"
        stalled.kill()
    assert (folder / "cache" / f"{SHA}.filling").exists()
    with running(folder, LOOPBACK) as cache:
        assert cache.files() == {}
        assert cache.http.get(PATH).content == CLIP
        assert cache.files() == {SHA: CLIP}


def test_kill_9_then_a_file_cut_short_is_fetched_again(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        assert cache.http.get(PATH).status_code == 200
        cache.process.send_signal(signal.SIGKILL)
        cache.process.wait()
    with open(folder / "cache" / SHA, "r+b") as file:
        file.truncate(1000)
    with running(folder, LOOPBACK) as cache:
        answer = cache.http.get(PATH)
        assert (answer.content, answer.headers["cache-status"]) == (CLIP, "cache-1; fwd=miss; stored")
        assert cache.metric("damaged_total") == 1
    with running(folder, LOOPBACK) as cache:
        assert cache.http.get(PATH).headers["cache-status"] == "cache-1; hit"


def test_a_client_that_leaves_in_the_middle_harms_nobody(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        for _ in range(5):
            with socket.create_connection(cache.address, timeout=30) as connection:
                connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                connection.recv(1000)
        assert cache.http.get(PATH).content == CLIP


def test_sigterm_finishes_open_responses_and_exits_0(folder: Path) -> None:
    big = random.Random(2).randbytes(24_000_000)  # more than the sockets between us hold
    path = f"/media/out/t/vid/1/{hashlib.sha256(big).hexdigest()}.mp4"
    put(folder, path, big)
    with running(folder, LOOPBACK) as cache:
        assert cache.http.head(path).status_code == 200
        with cache.http.stream("GET", path) as response:
            pieces = response.iter_raw()
            received = [next(pieces)]
            cache.process.send_signal(signal.SIGTERM)
            wait_until_refused(cache.address)
            received += pieces
        assert b"".join(received) == big
        assert cache.process.wait(timeout=60) == 0


def wait_until_refused(address: tuple[str, int]) -> None:
    """Return when nobody listens there any more."""
    while True:
        try:
            socket.create_connection(address, timeout=30).close()
        except ConnectionError:
            return


def test_a_second_cache_on_the_folder_is_refused(folder: Path) -> None:
    with running(folder, LOOPBACK) as cache:
        values = {"NODE_ID": "cache-2", "STORE_URL": f"file://{folder / 'store'}", "DIR": str(cache.dir), **LOOPBACK}
        environment = {**os.environ, **{f"ADAPTIVEGEN_CACHE_{name}": value for name, value in values.items()}}
        second = subprocess.run(
            [sys.executable, "-m", "cdn_cache"], env=environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert "another media cache uses" in second.stderr
        assert cache.http.get(PATH).content == CLIP
