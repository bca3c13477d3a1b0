"""Composition of a media cache: its parts, their order of start and of drain. No decisions."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack

from aiohttp import web

from adaptivegen.blob.store import open_store
from adaptivegen.broker import open_bus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.source import BROKER, open_discovery
from adaptivegen.jobs.purges import Purge, PurgeNames, listen
from adaptivegen.local_only import own_names
from adaptivegen.process import end, retry_until
from adaptivegen.serving import bind
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from cdn_cache.eviction.lru import Lru
from cdn_cache.http import CacheApi
from cdn_cache.settings import CacheSettings
from cdn_cache.store.disk import DiskStore

LOOKED = ".purged"  # in the folder: up to which day this cache has looked
KEEP_ALIVE_S = 30.0  # also the time a connection has to send the head of a request


async def serve(
    settings: CacheSettings, *, clock: Clock, stop: asyncio.Event, keep_alive_s: float = KEEP_ALIVE_S
) -> None:
    """Run the cache until `stop`, then finish open responses. Runs on stock asyncio, which has sendfile. Raises
    SettingsInvalid, or what the folder and the store raise at start."""
    configure_logging("cache", settings.node_id, settings.log_level)
    get_logger().info("starting", **describe(settings))
    tls = _tls(settings)
    listener = bind(settings.host, settings.http_port)
    url = f"{'https' if tls else 'http'}://{settings.advertised(int(listener.getsockname()[1]))}"
    async with AsyncExitStack() as resources:
        blob = open_store(settings.store_url)
        resources.push_async_callback(blob.close)
        store = DiskStore(settings.dir, Lru(settings.capacity_bytes), blob)
        keys = settings.signing_key_map()
        api = CacheApi(
            store,
            node_id=settings.node_id,
            keys=keys,
            local_names=own_names(settings.host, settings.advertise_host),
            clock=clock,
            ready=lambda: not stop.is_set(),
            crowded=lambda: runner.server is not None and len(runner.server.connections) > settings.max_connections,
        )
        runner = web.AppRunner(
            api.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=settings.drain_grace_s,
            keepalive_timeout=keep_alive_s,
        )
        async with asyncio.TaskGroup() as group:
            opened = asyncio.Event()
            running = group.create_task(store.run(opened))
            await opened.wait()
            await runner.setup()
            await web.SockSite(runner, listener, ssl_context=tls).start()
            names = PurgeNames(blob, path=settings.dir / LOOKED, clock=clock, drop=store.drop, drop_all=store.drop_all)
            others = [
                group.create_task(names.run()),
                group.create_task(_with_broker(settings, url, store, clock=clock, stop=stop)),
            ]
            get_logger().info("ready", address=url)
            await stop.wait()
            closing = group.create_task(runner.cleanup())  # the doors close at once, open responses may end
            await end(*others)
            await closing
            await end(running)
    get_logger().info("stopped")


async def _with_broker(
    settings: CacheSettings, url: str, store: DiskStore, *, clock: Clock, stop: asyncio.Event
) -> None:
    """Stay listed for edges that are told of no cache, and hear of purges; the cache serves whether the broker is there
    or not, and without one still looks into what was purged."""
    told = bool(settings.nats_servers())
    by_broker = settings.discovery == BROKER
    if by_broker and not told:
        return
    bus = open_bus(settings)

    async def heard(purge: Purge) -> None:
        await store.drop(purge.sha256)

    try:
        discovery = open_discovery(settings.discovery, bus, clock, settings.consul())
        here = Endpoint("cache", settings.node_id, http_url=url)
        async with asyncio.TaskGroup() as group:
            if not by_broker:
                group.create_task(discovery.register(here))
            if told and await retry_until(bus.start, stop=stop, clock=clock, what="broker"):
                group.create_task(listen(bus, heard, clock=clock))
                if by_broker:
                    group.create_task(discovery.register(here))
    finally:
        await bus.close()


def _tls(settings: CacheSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as exc:
        limit = f"a certificate (PEM) with its private key in tls_key ({exc})"
        raise settings.refuse("tls_cert", limit) from exc
    return context
