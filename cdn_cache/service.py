"""Composition of a media cache: its parts, their order of start and of drain. No decisions."""

from __future__ import annotations

import asyncio
import ssl

from aiohttp import web

from adaptivegen.blob.store import open_store
from adaptivegen.clock import Clock
from adaptivegen.serving import bind
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from cdn_cache.eviction.lru import Lru
from cdn_cache.http import CacheApi
from cdn_cache.settings import CacheSettings
from cdn_cache.store.disk import DiskStore


async def serve(settings: CacheSettings, *, clock: Clock, stop: asyncio.Event) -> None:
    """Run the cache until `stop`, then finish open responses. Runs on stock asyncio, which has sendfile."""
    configure_logging("cache", settings.node_id, settings.log_level)
    get_logger().info("starting", **describe(settings))
    blob = open_store(settings.store_url)
    store = DiskStore(settings.dir, Lru(settings.capacity_bytes), blob)
    keys = settings.signing_key_map()
    api = CacheApi(store, node_id=settings.node_id, keys=keys, clock=clock, ready=lambda: not stop.is_set())
    listener = bind(settings.host, settings.http_port)
    runner = web.AppRunner(
        api.application(), access_log=None, handle_signals=False, shutdown_timeout=settings.drain_grace_s
    )
    async with asyncio.TaskGroup() as group:
        opened = asyncio.Event()
        running = group.create_task(store.run(opened))
        await opened.wait()
        await runner.setup()
        tls = _tls(settings)
        await web.SockSite(runner, listener, ssl_context=tls).start()
        host, port = listener.getsockname()[:2]
        get_logger().info("ready", address=f"{'https' if tls else 'http'}://{host}:{port}")
        await stop.wait()
        await runner.cleanup()
        running.cancel()
    await blob.close()
    get_logger().info("stopped")


def _tls(settings: CacheSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
