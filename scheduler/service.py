"""Composition of a scheduler: settings in, a running service out. Decides nothing.

It serves as soon as the store has passed its test; the broker may come later, go and come back.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.broker import open_bus
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.source import open_discovery
from adaptivegen.jobs.reconcile import Listener, keep_reconciling
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.sweep import Sweep
from adaptivegen.local_only import own_names
from adaptivegen.models.card import ModelCard
from adaptivegen.process import end, retry_until
from adaptivegen.roles import Roles, everybody_admin, read_roles
from adaptivegen.rpc.admin import AdminServicer
from adaptivegen.rpc.placement import PlacementServicer
from adaptivegen.rpc.server import RpcServer
from adaptivegen.serving import HttpServer, ServingLimits, bind
from adaptivegen.settings import describe
from adaptivegen.speakers import Speakers, read_speakers
from adaptivegen.telemetry import configure_logging, get_logger
from adaptivegen.tls import server_tls
from scheduler.admin import Admin
from scheduler.api.http import AdminHttp
from scheduler.decision_log import DecisionLog
from scheduler.http import HttpApi
from scheduler.metrics import SchedulerMetrics
from scheduler.parts import build
from scheduler.placement import Placement
from scheduler.settings import SchedulerSettings
from scheduler.steady import SteadyTime
from scheduler.surveys import OpenJobSurvey

MAX_CONNECTIONS = 128  # over HTTP; as many as `api.stream` allows are streams of dashboards


async def serve(
    settings: SchedulerSettings,
    *,
    cards: Mapping[str, ModelCard],
    clock: Clock,
    rng: random.Random,
    stop: asyncio.Event,
) -> None:
    """Run the scheduler until `stop`, then drain. Raises SettingsInvalid, StoreUnsafe or a storage error at start."""
    configure_logging("scheduler", settings.node_id, settings.log_level)
    settings.require_mutual_tls()
    roles = _roles(settings)
    tls = server_tls(settings, mutual=True)
    get_logger().info("starting", models=sorted(cards), **describe(settings))
    time = SteadyTime(clock)
    async with AsyncExitStack() as resources:
        blob = open_store(settings.store_url)
        resources.push_async_callback(blob.close)
        if not await retry_until(lambda: selftest(blob, rng), stop=stop, clock=clock, what="object store"):
            return
        bus = open_bus(settings)
        resources.push_async_callback(bus.close)
        jobs = JobStore(blob=blob, bus=bus, clock=clock)
        log = _decision_log(settings, clock, resources)
        made = build(settings, cards, jobs, blob, bus, log, clock=clock, time=time, rng=rng)
        speakers = read_speakers(settings.roles_file) if tls is not None and tls.client_ca is not None else None
        rpc = _server(made.placement, made.admin, roles, speakers, rng)
        port = rpc.reserve(host=settings.host, port=settings.grpc_port, tls=tls)
        listener = bind(settings.host, settings.http_port)
        resources.callback(listener.close)
        web = _web(settings, made.metrics, AdminHttp(made.admin, roles, made.streams), listener, stop=stop)
        await rpc.start()
        resources.push_async_callback(rpc.drain, grace_s=0)  # a second time after a drain, the first after an error
        discovery = open_discovery(settings.discovery, bus, clock, settings.consul())
        parts = [
            *made.running,
            discovery.register(_endpoint(settings, listener, port)),
            _reconcile(jobs, bus, settings, OpenJobSurvey(made.view, time=time), clock=clock, stop=stop),
            Sweep(jobs, clock=clock).run(interval_s=settings.reconcile_interval_s),
            *([log.run()] if log is not None else []),
        ]
        await _run(parts, rpc, web, grace_s=settings.drain_grace_s, stop=stop)
    get_logger().info("stopped")


async def _run(
    parts: Iterable[Coroutine[Any, Any, None]], rpc: RpcServer, web: HttpServer, *, grace_s: float, stop: asyncio.Event
) -> None:
    """Keep the parts running until `stop`; then take no more, and let open calls finish within the grace."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        serving = group.create_task(web.run())
        await stop.wait()
        web.stop(within_s=grace_s)
        draining = group.create_task(rpc.drain(grace_s=grace_s))
        await end(*tasks)
        await draining
        await serving


def _endpoint(settings: SchedulerSettings, listener: socket.socket, grpc_port: int) -> Endpoint:
    """Where others reach this scheduler; says so in the log."""
    scheme = "https" if settings.tls_cert else "http"
    http_url = f"{scheme}://{settings.advertised(int(listener.getsockname()[1]))}"
    get_logger().info("ready", address=f"{settings.host}:{grpc_port}", http_url=http_url)
    return Endpoint("scheduler", settings.node_id, http_url=http_url, grpc_address=settings.advertised(grpc_port))


def _web(
    settings: SchedulerSettings,
    metrics: SchedulerMetrics,
    admin: AdminHttp,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
) -> HttpServer:
    api = HttpApi(
        registry=metrics.registry,
        ready=lambda: not stop.is_set(),
        local_names=own_names(settings.host, settings.advertise_host) if settings.auth == "loopback" else None,
        beside=admin.routes(),
    )
    return HttpServer(
        api.application(),
        listener,
        cert=settings.tls_cert,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
        limits=ServingLimits(max_connections=MAX_CONNECTIONS),
    )


def _roles(settings: SchedulerSettings) -> Roles:
    """Who may ask what; raises SettingsInvalid."""
    if settings.auth == "loopback" and settings.roles_file is None:
        return everybody_admin()
    return read_roles(settings.roles_file)


def _server(
    placement: Placement, admin: Admin, roles: Roles, speakers: Speakers | None, rng: random.Random
) -> RpcServer:
    server = RpcServer(rng=rng)
    PlacementServicer(
        placement.place, placement.observe, placement.attempted, placement.next_job, speakers=speakers
    ).add_to(server)
    AdminServicer(admin, roles).add_to(server)
    return server


def _decision_log(settings: SchedulerSettings, clock: Clock, resources: AsyncExitStack) -> DecisionLog | None:
    """The log, if one is asked for; what waits in it is written at the end."""
    if settings.decision_log is None:
        return None
    log = DecisionLog(
        settings.decision_log, node_id=settings.node_id, clock=clock, max_bytes=settings.decision_log_max_bytes
    )
    resources.push_async_callback(log.close)
    return log


async def _reconcile(
    jobs: JobStore, bus: Bus, settings: SchedulerSettings, listener: Listener, *, clock: Clock, stop: asyncio.Event
) -> None:
    """A pass at once when the broker is there, then one every interval."""
    await retry_until(bus.start, stop=stop, clock=clock, what="broker")
    await keep_reconciling(
        jobs,
        patience_s=settings.reconcile_patience_s,
        interval_s=settings.reconcile_interval_s,
        clock=clock,
        listener=listener,
    )
