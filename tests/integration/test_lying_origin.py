"""The media cache in front of an object store, spoken to over HTTP as S3, that lies about its bytes or their number."""

import asyncio
import hashlib
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from obstore.store import S3Store

from adaptivegen.blob.store import ObjectStore
from adaptivegen.clock import SystemClock
from adaptivegen.local_only import NAMES
from adaptivegen.serving import bind
from cdn_cache.eviction.lru import Lru
from cdn_cache.http import CacheApi
from cdn_cache.store.disk import DiskStore

CLIP = random.Random(1).randbytes(2_500_000)
SHA = hashlib.sha256(CLIP).hexdigest()
KEY = f"out/t/vid/1/{SHA}.mp4"
PATH = f"/media/{KEY}"
FLIPPED = CLIP[:-9] + bytes([CLIP[-9] ^ 1]) + CLIP[-8:]
LIES = ["flipped", "short", "short but consistent", "long", "says more", "says less"]


class Origin(ThreadingHTTPServer):
    """A bucket with one object; `lie` says how it answers."""

    lie = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    def said_bytes(self) -> int:
        return len(CLIP) + {"says more": 10, "says less": -10}.get(self.lie, 0)

    def body(self) -> bytes:
        bodies = {"flipped": FLIPPED, "short": CLIP[:-100_000], "short but consistent": CLIP[:-100_000]}
        return bodies.get(self.lie, CLIP + b"more" if self.lie == "long" else CLIP)


class Handler(BaseHTTPRequestHandler):
    server: Origin

    def do_HEAD(self) -> None:
        self._head(self.server.said_bytes())

    def do_GET(self) -> None:
        body = self.server.body()
        self._head(len(CLIP) if self.server.lie == "short" else len(body))
        self.wfile.write(body)

    def _head(self, length: int) -> None:
        self.send_response(200 if self.path.endswith(KEY) else 404)
        self.send_header("content-length", str(length))
        self.send_header("etag", f'"{SHA}"')
        self.send_header("last-modified", "Sat, 21 Nov 2026 08:00:00 GMT")
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def cache(folder: Path, origin: Origin, *, capacity_bytes: int = 10**8) -> AsyncIterator[httpx.AsyncClient]:
    bucket = S3Store(
        "bucket",
        endpoint=f"http://127.0.0.1:{origin.server_address[1]}",
        region="test",
        skip_signature=True,
        client_options={"allow_http": True},
    )
    store = DiskStore(folder, Lru(capacity_bytes), ObjectStore("s3://bucket", bucket, deadline_s=10.0, root=None))
    api = CacheApi(
        store,
        node_id="cache-1",
        keys={},
        local_names=NAMES,
        clock=SystemClock(),
        ready=lambda: True,
        crowded=lambda: False,
    )
    listener = bind("127.0.0.1", 0)
    runner = web.AppRunner(api.application(), access_log=None)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        opened = asyncio.Event()
        running = group.create_task(store.run(opened))
        await opened.wait()
        await runner.setup()
        await web.SockSite(runner, listener).start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
        await runner.cleanup()
        running.cancel()


async def get(client: httpx.AsyncClient, wanted: str | None) -> tuple[int, bytes] | str:
    """Status and bytes, or that the transfer broke."""
    try:
        answer = await client.get(PATH, headers={"range": wanted} if wanted else {})
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return "broken"
    return answer.status_code, answer.content


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_a_failure_is_not_kept_and_is_over_when_the_origin_is_honest(
    origin: Origin, tmp_path: Path, lie: str
) -> None:
    async with cache(tmp_path, origin) as client:
        origin.lie = lie
        for wanted in (None, "bytes=0-9"):
            found = await get(client, wanted)
            assert found[0] in (502, 503), found[0]
            assert kept(tmp_path) == set()
        origin.lie = ""
        assert await get(client, "bytes=0-9") == (206, CLIP[:10])
        assert await get(client, None) == (200, CLIP)
        assert kept(tmp_path) == {SHA}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_that_is_passed_through_is_seen_as_a_broken_transfer(
    origin: Origin, tmp_path: Path, lie: str
) -> None:
    async with cache(tmp_path, origin, capacity_bytes=1000) as client:
        origin.lie = lie
        for wanted in (None, "bytes=0-9", "bytes=1000000-", "bytes=-20"):
            assert await get(client, wanted) == "broken", wanted
        origin.lie = ""
        assert await get(client, "bytes=0-9") == (206, CLIP[:10])
        assert await get(client, None) == (200, CLIP)
        assert kept(tmp_path) == set()
