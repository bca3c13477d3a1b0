"""Where an edge sends clients for media: to the cache while it answers, by a URL that is good there and for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from adaptivegen.clock import ManualClock
from adaptivegen.errors import PermissionDenied
from adaptivegen.media.signing import verify
from edge_node.delivery import PROBE_EVERY_S, Delivery
from tests.jobs import media

KEYS = {"new": b"n" * 32, "old": b"o" * 32}
PATH = f"/media/{media().key}"


class Cache(httpx.AsyncBaseTransport):
    """A media cache, as far as an edge sees it: answers with `status`, fails with `error`, or hangs."""

    def __init__(self) -> None:
        self.status = 200
        self.error: Exception | None = None
        self.hangs = False
        self.says = ""  # in Cache-Status
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        headers = {"cache-status": f"cache-1; {self.says}"} if self.says else {}
        return httpx.Response(self.status, content=b"{}", headers=headers)


class Edge:
    """A delivery before a scripted cache."""

    def __init__(self, keys: dict[str, bytes], url: str) -> None:
        self.clock = ManualClock()
        self.cache = Cache()
        self.delivery = Delivery(
            url, keys=keys, ttl_s=60.0, clock=self.clock, ca=None, deadline_s=0.01, transport=self.cache
        )

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await asyncio.sleep(0)

    async def probe_again(self) -> None:
        """Let the next probe come, and end."""
        asked = len(self.cache.asked)
        await self.clock.advance(PROBE_EVERY_S)
        await self.until(lambda: len(self.cache.asked) > asked)
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def running(keys: dict[str, bytes] | None = None, *, url: str = "http://cache:80/") -> AsyncIterator[Edge]:
    edge = Edge(KEYS if keys is None else keys, url)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(edge.delivery.run())
        if url:
            await edge.until(lambda: edge.delivery.cache_reachable)
        yield edge
        task.cancel()
    await edge.delivery.close()


async def test_a_signed_url_lets_its_tenant_read_that_file_in_the_cache() -> None:
    async with running() as edge:
        location = edge.delivery.cache_location(media(), tenant="acme")
        assert location is not None
        parts = urlsplit(location)
        assert (parts.scheme, parts.netloc, parts.path) == ("http", "cache:80", PATH)
        query = dict(parse_qsl(parts.query))
        assert query["kid"] == "new"  # the first key signs
        now_s = edge.clock.now_ns() / 1e9
        assert verify(PATH, query, now_s=now_s + 59, keys=KEYS) == "acme"
        with pytest.raises(PermissionDenied, match="expired"):
            verify(PATH, query, now_s=now_s + 70, keys=KEYS)


async def test_without_keys_the_url_is_plain() -> None:
    async with running({}) as edge:
        assert edge.delivery.cache_location(media(), tenant="local") == f"http://cache:80{PATH}"


@pytest.mark.parametrize("trouble", ["not ready", "no connection", "silence"])
async def test_a_cache_that_does_not_answer_well_is_left_out_until_it_does(trouble: str) -> None:
    async with running() as edge:
        edge.cache.status = 503 if trouble == "not ready" else 200
        edge.cache.error = httpx.ConnectError("refused") if trouble == "no connection" else None
        edge.cache.hangs = trouble == "silence"
        await edge.clock.advance(PROBE_EVERY_S)
        await edge.until(lambda: not edge.delivery.cache_reachable)
        assert edge.delivery.cache_location(media(), tenant="acme") is None
        edge.cache.status, edge.cache.error, edge.cache.hangs = 200, None, False
        while not edge.delivery.cache_reachable:
            await edge.probe_again()
        assert edge.delivery.cache_location(media(), tenant="acme") is not None


async def test_before_the_first_answer_the_edge_serves_itself() -> None:
    edge = Edge(KEYS, "http://cache:80")
    assert edge.delivery.cache_location(media(), tenant="acme") is None
    await edge.delivery.prefetch(media(), tenant="acme")
    assert edge.cache.asked == []
    await edge.delivery.close()


async def test_without_a_cache_nothing_is_asked() -> None:
    async with running(url="") as edge:
        for _ in range(5):
            await asyncio.sleep(0)
        assert (edge.cache.asked, edge.delivery.cache_reachable) == ([], False)


async def test_a_fresh_final_is_brought_into_the_cache_by_asking_for_one_byte() -> None:
    async with running() as edge:
        edge.cache.status = 206
        await edge.delivery.prefetch(media(), tenant="acme")
        request = edge.cache.asked[-1]
        assert (request.url.path, request.headers["range"]) == (PATH, "bytes=0-0")
        assert verify(PATH, dict(request.url.params), now_s=edge.clock.now_ns() / 1e9, keys=KEYS) == "acme"


@pytest.mark.parametrize("trouble", [None, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("garbage")])
async def test_a_prefetch_that_fails_is_logged_and_nobodys_error(trouble: Exception | None) -> None:
    async with running() as edge:
        edge.cache.status, edge.cache.error = 507, trouble
        with capture_logs() as logged:
            await edge.delivery.prefetch(media(), tenant="acme")
    assert [entry["event"] for entry in logged] == ["prefetch_failed"]


class Caches(httpx.AsyncBaseTransport):
    """Several media caches; `up` names the hosts that answer."""

    def __init__(self) -> None:
        self.up: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.url.host in self.up else 503)


async def test_the_first_registered_cache_that_answers_is_used_and_kept_while_it_answers() -> None:
    caches = Caches()
    delivery = Delivery("", keys={}, ttl_s=60.0, clock=ManualClock(), ca=None, transport=caches)

    async def used() -> str | None:
        await delivery.look()
        location = delivery.cache_location(media(), tenant="t")
        return urlsplit(location).hostname if location else None

    assert await used() is None
    delivery.offer(["http://a:1/", "http://b:1"])
    assert await used() is None
    caches.up = {"b"}
    assert await used() == "b"
    caches.up = {"a", "b"}
    assert await used() == "b"
    caches.up = {"a"}
    assert await used() == "a"
    delivery.offer(["http://b:1"])
    caches.up = set()
    assert await used() is None
    await delivery.close()


@pytest.mark.parametrize(
    ("says", "there", "ways"),
    [
        ("fwd=miss; stored", False, ["store.get"]),
        ("fwd=miss; collapsed", False, []),  # another had begun it: the time is not the whole
        ("hit", True, []),
        ("", None, []),
    ],
)
async def test_what_was_fetched_tells_of_the_way_from_the_store(says: str, there: bool | None, ways: list[str]) -> None:
    async with running() as edge:
        edge.cache.status, edge.cache.says = 206, says
        assert await edge.delivery.prefetch(media(), tenant="acme") is there
        assert list(edge.delivery.ways) == ways


async def test_repeats_are_counted_by_whether_they_were_in_the_cache() -> None:
    async with running() as edge:
        edge.cache.status = 206
        for says in ("hit", "hit", "fwd=miss; stored", ""):
            edge.cache.says = says
            await edge.delivery.repeat(media(), tenant="acme")
        edge.cache.error = httpx.ReadTimeout("slow")
        await edge.delivery.repeat(media(), tenant="acme")
        assert (edge.delivery.repeats_cached, edge.delivery.repeats_fetched) == (2, 1)


async def test_the_way_to_another_cache_is_another() -> None:
    async with running() as edge:
        edge.cache.status, edge.cache.says = 206, "fwd=miss; stored"
        await edge.delivery.prefetch(media(), tenant="acme")
        assert edge.delivery.ways
        edge.cache.status = 200
        edge.delivery.offer(["http://other:80"])
        await edge.delivery.look()
        assert edge.delivery.ways == {}
