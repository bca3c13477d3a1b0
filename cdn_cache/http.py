"""The routes of a media cache, on aiohttp. Authorise, look up, send with sendfile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from adaptivegen.blob.base import check_key
from adaptivegen.clock import Clock
from adaptivegen.errors import STATUS, AdaptiveGenError, InternalError, InvalidRequest, StorageFull, StorageReadOnly
from adaptivegen.media.ranges import Answer, answer, etag_of
from adaptivegen.media.signing import verify
from adaptivegen.telemetry import get_logger
from cdn_cache.store.disk import CachedFile, DiskStore

_MEDIA_KEY = re.compile(r"out/([a-z0-9][a-z0-9_-]{0,62})/.+/([0-9a-f]{64})\.mp4|inputs/[^/]+/[0-9a-f]{64}")
CONTENT_TYPE = "video/mp4"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class CacheApi:
    """Builds the application of one cache. Without `keys` reads go unsigned (loopback only)."""

    def __init__(
        self, store: DiskStore, *, node_id: str, keys: dict[str, bytes], clock: Clock, ready: Callable[[], bool]
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._keys = keys
        self._clock = clock
        self._ready = ready
        self._registry = CollectorRegistry()
        self._registry.register(_Counters(store))

    def application(self) -> web.Application:
        """The application, to be run by aiohttp's runner."""
        application = web.Application(middlewares=[_errors_as_json], client_max_size=1024)
        application.router.add_get("/media/{key:.+}", self.media)  # HEAD comes with it
        application.router.add_get("/healthz", self.healthz)
        application.router.add_get("/readyz", self.readyz)
        application.router.add_get("/metrics", self.metrics)
        return application

    async def media(self, request: web.Request) -> web.StreamResponse:
        """A media object, whole or one range."""
        if request.can_read_body or request.headers.get(hdrs.CONTENT_ENCODING):
            raise InvalidRequest("a media request has no body", param="body")
        key = check_key(request.match_info["key"])
        match = _MEDIA_KEY.fullmatch(key)
        if match is None or match[2] is None:
            raise InvalidRequest.field("key", key, "out/<tenant>/.../<sha256>.mp4")
        self._authorise(request, tenant=match[1])
        sha256 = match[2]
        with self._store.reading(sha256):
            try:
                file, how = await self._store.get(key, sha256)
            except (StorageFull, StorageReadOnly) as exc:
                get_logger().warning("not_cached", key=key, code=exc.code, error=exc.message)
                return await self._from_origin(request, key, sha256)
            decided = _decide(request, sha256, file.size_bytes)
            response = self._response(decided, sha256, "hit" if how == "hit" else f"fwd=miss{_collapsed(how)}")
            await response.prepare(request)
            if request.method == hdrs.METH_GET and decided.range.length:
                await _send_file(request, response, file, decided)
            await response.write_eof()
            return response

    async def _from_origin(self, request: web.Request, key: str, sha256: str) -> web.StreamResponse:
        """Pass through what cannot be kept."""
        size_bytes = await self._store.origin_size(key)
        decided = _decide(request, sha256, size_bytes)
        response = self._response(decided, sha256, "fwd=miss; stored=?0")
        await response.prepare(request)
        if request.method == hdrs.METH_GET and decided.range.length:
            async for chunk in self._store.stream_origin(key, start=decided.range.start, end=decided.range.end):
                await response.write(chunk)
        await response.write_eof()
        return response

    def _authorise(self, request: web.Request, *, tenant: str) -> None:
        """Before any look-up; the signature is no part of the cache key."""
        if self._keys:
            signed = verify(request.path, request.query, now_s=self._clock.now_ns() / 1e9, keys=self._keys)
            if signed != tenant:
                raise InvalidRequest.field("tenant", signed, "the tenant in the path")

    def _response(self, decided: Answer, sha256: str, status: str) -> web.StreamResponse:
        response = web.StreamResponse(status=decided.status)
        headers = response.headers
        headers[hdrs.ETAG] = etag_of(sha256)
        headers[hdrs.ACCEPT_RANGES] = "bytes"
        headers[hdrs.CACHE_CONTROL] = "private, max-age=31536000, immutable"
        headers["Cache-Status"] = f"{self._node_id}; {status}"
        if decided.status == 416:
            headers[hdrs.CONTENT_RANGE] = f"bytes */{decided.range.size}"
        elif decided.status == 206:
            headers[hdrs.CONTENT_RANGE] = decided.range.content_range
        if decided.status != 304:
            headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
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
        return web.Response(body=generate_latest(self._registry), content_type="text/plain")


def _decide(request: web.Request, sha256: str, size_bytes: int) -> Answer:
    return answer(
        size=size_bytes,
        etag=etag_of(sha256),
        range_header=request.headers.get(hdrs.RANGE),
        if_range=request.headers.get(hdrs.IF_RANGE),
        if_none_match=request.headers.get(hdrs.IF_NONE_MATCH),
    )


def _collapsed(how: str) -> str:
    return "; collapsed" if how == "joined" else ""


async def _send_file(request: web.Request, response: web.StreamResponse, file: CachedFile, decided: Answer) -> None:
    """The range of a file by the kernel's sendfile (stock asyncio has it)."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    await response.write(b"")  # headers first
    handle = await asyncio.get_running_loop().run_in_executor(None, _open, file.path)
    try:
        loop = asyncio.get_running_loop()
        await loop.sendfile(transport, handle, decided.range.start, decided.range.length)
    finally:
        handle.close()


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AdaptiveGenError as exc:
        return web.json_response({"error": exc.body()}, status=STATUS[type(exc)].http)
    except web.HTTPException as exc:
        error = InvalidRequest(f"{exc.reason}: {request.method} {request.path[:200]}", param="path")
        return web.json_response({"error": error.body()}, status=exc.status)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as exc:
        get_logger().error("unexpected_error", path=request.path, exc_info=exc)
        return web.json_response({"error": InternalError(type(exc).__name__).body()}, status=500)


class _Counters(Collector):
    """The store's counts for Prometheus."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store

    def collect(self) -> list[Metric]:
        """Read them when scraped."""
        counts = self._store.counts
        return [
            CounterMetricFamily(f"adaptivegen_cache_{name}", f"Objects: {name}", value=getattr(counts, name))
            for name in ("hits", "misses", "joined", "evicted", "damaged")
        ]
