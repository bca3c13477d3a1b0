"""The routes of a media cache, on aiohttp. Authorise, look up, send with the kernel's sendfile.

Once an answer has begun nothing but its bytes may follow: a failure in the middle aborts the connection, so that the
client sees a body that is too short and never one that is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adaptivegen.blob.base import check_key
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StorageFull,
    StorageReadOnly,
)
from adaptivegen.local_only import check_local
from adaptivegen.media.ranges import Answer, answer, etag_of
from adaptivegen.media.signing import verify
from adaptivegen.telemetry import get_logger
from cdn_cache.store.disk import CachedFile, CorruptObject, DiskStore

CONTENT_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "jpg": "image/jpeg", "png": "image/png"}
FULL_RETRY_S = 2.0
SEND_GRACE_S = 30.0
SLOWEST_READER_BYTES_PER_S = 16 * 1024  # a reader slower than this is cut off
_MEDIA_KEY = re.compile(r"out/([a-z0-9][a-z0-9_-]{0,62})/(?:[^/]+/)*([0-9a-f]{64})\.([a-z0-9]+)")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class CacheApi:
    """Builds the application of one cache. Without `keys` reads go unsigned (loopback only): then only requests of this
    machine are answered, by `local_names` (`adaptivegen.local_only`). While it is `crowded` every answer is a 503."""

    def __init__(
        self,
        store: DiskStore,
        *,
        node_id: str,
        keys: dict[str, bytes],
        local_names: frozenset[str],
        clock: Clock,
        ready: Callable[[], bool],
        crowded: Callable[[], bool],
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._keys = keys
        self._local_names = local_names
        self._clock = clock
        self._ready = ready
        self._crowded = crowded
        self._counters = _Counters(store)
        self._registry = CollectorRegistry()
        self._registry.register(self._counters)

    def application(self) -> web.Application:
        """The application, to be run by aiohttp's runner."""
        application = web.Application(
            middlewares=[_errors_as_json, self._refuse_crowd, self._refuse_pages], client_max_size=1024
        )
        application.router.add_get("/media/{key:.+}", self.media)  # HEAD comes with it
        application.router.add_get("/healthz", self.healthz)
        application.router.add_get("/readyz", self.readyz)
        application.router.add_get("/metrics", self.metrics)
        return application

    @web.middleware
    async def _refuse_crowd(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """More connections than this cache takes: each is answered once, and ended."""
        if not self._crowded():
            return await handler(request)
        full = ResourceExhausted("this cache has as many connections as it takes", retry_after_s=FULL_RETRY_S)
        headers = {hdrs.RETRY_AFTER: f"{FULL_RETRY_S:.0f}"}
        response = web.json_response({"error": full.body()}, status=503, headers=headers)
        response.force_close()
        return response

    @web.middleware
    async def _refuse_pages(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What a web page made a browser send, where nothing but the address says who asks."""
        if not self._keys:
            hosts, origins = request.headers.getall(hdrs.HOST, ()), request.headers.getall(hdrs.ORIGIN, ())
            check_local(hosts=tuple(hosts), origins=tuple(origins), names=self._local_names)
        return await handler(request)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """A media object, whole or one range."""
        if request.can_read_body or request.headers.get(hdrs.CONTENT_ENCODING):
            raise InvalidRequest("a media request has no body and no Content-Encoding", param="body")
        key = check_key(request.match_info["key"])
        match = _MEDIA_KEY.fullmatch(key)
        if match is None or match[3] not in CONTENT_TYPES:
            raise InvalidRequest.field("key", key, f"out/<tenant>/.../<sha256>.({'|'.join(CONTENT_TYPES)})")
        tenant, sha256, kind = match.groups()
        self._authorise(request, tenant=tenant)
        try:
            async with self._store.reading(key, sha256) as cached:
                decided = _decide(request, sha256, cached.size_bytes)
                status = {"hit": "hit", "miss": "fwd=miss; stored", "joined": "fwd=miss; collapsed"}[cached.how]
                response = self._response(decided, sha256, kind, status)
                await response.prepare(request)
                if request.method == hdrs.METH_GET and decided.range.length:
                    async with _all_or_abort(request, decided.range.length):
                        await _send_file(request, cached, decided)
                        self._counters.sent_bytes += decided.range.length
                return response
        except (StorageFull, StorageReadOnly) as exc:  # only before the answer began
            get_logger().warning("not_cached", key=key, code=exc.code, error=exc.message)
        return await self._from_origin(request, key, sha256, kind)

    async def _from_origin(self, request: web.Request, key: str, sha256: str, kind: str) -> web.StreamResponse:
        """Pass through what cannot be kept."""
        size_bytes = await self._store.origin_size(key)
        decided = _decide(request, sha256, size_bytes)
        wanted = decided.range
        response = self._response(decided, sha256, kind, "fwd=miss; stored=?0")
        await response.prepare(request)
        if request.method == hdrs.METH_GET and wanted.length:
            async with _all_or_abort(request, wanted.length):
                pieces = self._store.stream_origin(
                    key, sha256, start=wanted.start, end=wanted.end, size_bytes=size_bytes
                )
                async for piece in pieces:
                    await response.write(piece)
                self._counters.sent_bytes += wanted.length
        return response

    def _authorise(self, request: web.Request, *, tenant: str) -> None:
        """Before any look-up; the signature is no part of the cache key."""
        if self._keys:
            signed = verify(request.path, request.query, now_s=self._clock.now_ns() / 1e9, keys=self._keys)
            if signed != tenant:
                raise PermissionDenied("the URL is signed for another tenant than the path's", param="tenant")

    def _response(self, decided: Answer, sha256: str, kind: str, status: str) -> web.StreamResponse:
        response = web.StreamResponse(status=decided.status)
        headers = response.headers
        headers[hdrs.ETAG] = etag_of(sha256)
        headers[hdrs.ACCEPT_RANGES] = "bytes"
        headers[hdrs.CACHE_CONTROL] = "private, max-age=31536000, immutable"
        headers["Cache-Status"] = f"{self._node_id}; {status}"
        headers["X-Content-Type-Options"] = "nosniff"
        if decided.status in (206, 416):
            headers[hdrs.CONTENT_RANGE] = decided.range.content_range
        if decided.status != 304:
            headers[hdrs.CONTENT_TYPE] = CONTENT_TYPES[kind]
            response.content_length = decided.range.length
        return response

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process lives."""
        return web.json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 when requests are welcome, else 503."""
        ready = self._ready()
        return web.json_response({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text."""
        return web.Response(body=generate_latest(self._registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


def _decide(request: web.Request, sha256: str, size_bytes: int) -> Answer:
    return answer(
        size=size_bytes,
        etag=etag_of(sha256),
        range_header=request.headers.get(hdrs.RANGE),
        if_range=request.headers.get(hdrs.IF_RANGE),
        if_none_match=request.headers.get(hdrs.IF_NONE_MATCH),
    )


@asynccontextmanager
async def _all_or_abort(request: web.Request, length: int) -> AsyncIterator[None]:
    """The sending of `length` bytes: too slow a reader or a failure on our side aborts the connection."""
    try:
        async with asyncio.timeout(SEND_GRACE_S + length / SLOWEST_READER_BYTES_PER_S):
            yield
    except (AdaptiveGenError, TimeoutError, OSError, RuntimeError) as exc:  # RuntimeError: asyncio, closing transport
        if not isinstance(exc, ConnectionError):  # that is a client that left, which clients do
            get_logger().warning("answer_aborted", path=request.path, error=f"{type(exc).__name__}: {exc}")
        if request.transport is not None:
            request.transport.abort()


async def _send_file(request: web.Request, cached: CachedFile, decided: Answer) -> None:
    """A range of a file by the kernel's sendfile (stock asyncio has it; over TLS asyncio copies)."""
    if request.transport is None:
        raise ConnectionResetError("the client has gone")
    wanted = decided.range
    sent = await asyncio.get_running_loop().sendfile(request.transport, cached.file, wanted.start, wanted.length)
    if sent != wanted.length:
        raise InternalError(f"the cached file ended after {sent} of {wanted.length} bytes")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CorruptObject as exc:
        return web.json_response({"error": exc.body()}, status=502)
    except AdaptiveGenError as exc:
        headers = {hdrs.RETRY_AFTER: f"{exc.retry_after_s:.0f}"} if exc.retry_after_s else {}
        return web.json_response({"error": exc.body()}, status=STATUS[type(exc)].http, headers=headers)
    except web.HTTPException as exc:
        kind = NotFound if exc.status == 404 else InvalidRequest
        error = kind(f"{exc.reason}: {request.method} {request.path[:200]}", param="path")
        allow = {hdrs.ALLOW: exc.headers[hdrs.ALLOW]} if hdrs.ALLOW in exc.headers else {}
        return web.json_response({"error": error.body()}, status=exc.status, headers=allow)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as exc:
        get_logger().error("unexpected_error", path=request.path, exc_info=exc)
        return web.json_response({"error": InternalError(type(exc).__name__).body()}, status=500)


class _Counters(Collector):
    """The store's counts for Prometheus."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store
        self.sent_bytes = 0

    def collect(self) -> list[Metric]:
        """Read them when scraped."""
        counts = self._store.counts
        names = ("hits", "misses", "joined", "evicted", "purged", "damaged", "corrupt", "fetched_bytes")
        metrics: list[Metric] = [
            CounterMetricFamily(f"adaptivegen_cache_{name}", f"Since the start: {name}", value=getattr(counts, name))
            for name in names
        ]
        metrics.append(CounterMetricFamily("adaptivegen_cache_sent_bytes", "Body bytes sent", value=self.sent_bytes))
        metrics.append(GaugeMetricFamily("adaptivegen_cache_used_bytes", "Bytes on disk", value=self._store.used_bytes))
        return metrics
