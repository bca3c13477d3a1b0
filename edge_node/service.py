"""The life of an edge node: the order of its start and of its drain. No decisions."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from adaptivegen.broker import open_bus
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.desired import DesiredModels
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.source import open_discovery
from adaptivegen.drain import Grace
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.local_only import own_names
from adaptivegen.models.pushed import PushedModels
from adaptivegen.nodes import TENANTS_TOLD, NodeReport
from adaptivegen.process import end
from adaptivegen.rpc.draft import DraftServicer
from adaptivegen.rpc.placement_client import find_schedulers
from adaptivegen.rpc.server import RpcServer
from adaptivegen.rpc.video import VideoServicer
from adaptivegen.serving import HttpServer, ServingLimits, bind
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from adaptivegen.tls import server_tls
from edge_node.api.body import Bodies
from edge_node.api.http import HttpApi
from edge_node.partition import first_connect
from edge_node.parts import Base, Edge, build, load, prepare, pushed_models
from edge_node.peers import find_caches
from edge_node.settings import EdgeSettings

MODEL_CHILD = ("edge_node.draft.child",)
IN_FORCE = "models"  # in the spool's folder: which versions served when that was read last


async def serve(
    settings: EdgeSettings,
    *,
    clock: Clock,
    rng: random.Random,
    stop: asyncio.Event,
    child: Sequence[str] = MODEL_CHILD,
) -> None:
    """Run the edge until `stop`, then drain. Raises SettingsInvalid, StoreUnsafe or what the model raises at start.

    child: module of the models' processes, and its first arguments."""
    configure_logging("edge", settings.node_id, settings.log_level)
    get_logger().info("starting", **describe(settings))
    if settings.clear_to_strangers and settings.auth == "required":
        get_logger().warning("schedulers_without_tls", missing=settings.variable("tls_client_ca"))
    async with AsyncExitStack() as resources:
        base = await prepare(settings, rng=rng, resources=resources)
        listener = bind(settings.host, settings.http_port)
        resources.callback(listener.close)
        rpc = RpcServer(rng=rng)
        # Clients show API keys, workers the job's draft token: no client certificates here.
        rpc.reserve(host=settings.host, port=settings.grpc_port, tls=server_tls(settings, mutual=False))
        bus = open_bus(settings)
        resources.push_async_callback(bus.close)
        connected, lost = await first_connect(settings, bus, stop=stop, clock=clock)
        if not connected:
            return
        endpoint = _endpoint(settings, listener, rpc)
        kept = settings.spool_dir / IN_FORCE if settings.spool_dir is not None else None
        desired = DesiredModels(bus, clock, kept)
        await desired.read()  # before anything is loaded: what serves may not be what this edge was started with
        pushed = pushed_models(settings, base)
        drafts = await load(settings, desired, pushed, child, clock=clock, resources=resources)
        edge = await build(
            settings,
            base,
            endpoint,
            desired,
            drafts,
            bus=bus,
            lost=lost or base.lost,
            clock=clock,
            rng=rng,
            stop=stop,
            resources=resources,
        )
        VideoServicer(edge.videos, base.callers).add_to(rpc)
        DraftServicer(edge.desk.wait_for, edge.lending.make, clock).add_to(rpc)
        resources.push_async_callback(rpc.drain, grace_s=0)  # a second time after a drain, the first after an error
        web = _web(settings, edge, base, listener, rng=rng, stop=stop)
        await _run(settings, edge, pushed, rpc, web, endpoint, bus=bus, clock=clock, stop=stop)
    get_logger().info("stopped")


async def _run(
    settings: EdgeSettings,
    edge: Edge,
    pushed: PushedModels,
    rpc: RpcServer,
    web: HttpServer,
    endpoint: Endpoint,
    *,
    bus: Bus,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Serve HTTP and gRPC until `stop`. The parts run before the doors open, and after they have closed."""
    discovery = open_discovery(settings.discovery, bus, clock, settings.consul())
    heartbeat = Heartbeat(bus, clock, _reporter(edge, settings, endpoint, clock.now_ns(), stop))
    async with asyncio.TaskGroup() as group:
        parts = [
            group.create_task(part)
            for part in (
                edge.desired.run(),
                pushed.keep_cards(edge.desired.versions, clock),
                pushed.sweep(
                    lambda: {settings.draft_model, *edge.desired.may_be_wanted(), *edge.drafts.kept.needed},
                    clock,
                    keep_days=settings.models_keep_days,
                ),
                edge.hub.run(),
                edge.desk.run(),
                edge.lending.run(),
                edge.telling.run(),
                edge.attempts.run(),
                edge.cancels.run(),
                edge.purges.run(),
                edge.delivery.run(),
                edge.follower.run(),
                edge.hearing.run(),
                edge.drafts.kept.run(),
                find_schedulers(edge.scheduler, discovery, fixed=bool(settings.schedulers())),
                find_caches(edge.delivery, discovery, fixed=bool(settings.cache_url)),
                heartbeat.run(),
                *(() if edge.partition is None else (edge.partition.reach.run(), edge.partition.known.run())),
                *(() if edge.drain is None else (edge.drain.run(),)),
                *(() if edge.purges.names is None else (edge.purges.names.run(),)),
            )
        ]
        await rpc.start()
        serving = group.create_task(web.run())
        listed = group.create_task(discovery.register(endpoint))
        get_logger().info(
            "ready", address=endpoint.http_url, grpc_address=endpoint.grpc_address, model=settings.draft_model
        )
        await stop.wait()
        grace = Grace(clock, settings.drain_grace_s)
        await _close_doors(edge, rpc, web, serving, listed, grace)
        await _finish_drafts(edge, grace)
        await end(*parts)


async def _close_doors(
    edge: Edge,
    rpc: RpcServer,
    web: HttpServer,
    serving: asyncio.Task[None],
    listed: asyncio.Task[None],
    grace: Grace,
) -> None:
    """Take no new call on either door, end the streams, and let the open calls finish within the grace: whatever they
    accept still finds all parts running."""
    web.stop(within_s=grace.left_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(rpc.drain(grace_s=grace.left_s))
        group.create_task(end(listed))
        edge.hub.close()
        await serving


async def _finish_drafts(edge: Edge, grace: Grace) -> None:
    """Wait for the drafts in the making. Those that take longer are given up: their jobs are durable, and go on
    without a draft."""
    try:
        async with asyncio.timeout(grace.left_s):
            await edge.desk.drain()
    except TimeoutError:
        get_logger().warning("drafts_given_up", drafts=edge.desk.active)


def _endpoint(settings: EdgeSettings, listener: socket.socket, rpc: RpcServer) -> Endpoint:
    """Where others reach this edge."""
    scheme = "https" if settings.tls_cert else "http"
    http_url = f"{scheme}://{settings.advertised(int(listener.getsockname()[1]))}"
    return Endpoint("edge", settings.node_id, http_url=http_url, grpc_address=settings.advertised(rpc.port))


def _web(
    settings: EdgeSettings,
    edge: Edge,
    base: Base,
    listener: socket.socket,
    *,
    rng: random.Random,
    stop: asyncio.Event,
) -> HttpServer:
    library = settings.library()
    api = HttpApi(
        videos=edge.videos,
        authenticator=base.callers,
        delivery=edge.delivery,
        ready=lambda: edge.drafts.ready and not stop.is_set(),
        cut=edge.cut,
        registry=edge.metrics.registry,
        rng=rng,
        bodies=Bodies(max_bytes=settings.max_upload_bytes),
        cards=lambda: library.cards().values(),
        local_names=own_names(settings.host, settings.advertise_host) if settings.auth == "loopback" else None,
    )
    limits = ServingLimits(max_connections=settings.max_connections)
    return HttpServer(api.application(), listener, cert=settings.tls_cert, key=settings.tls_key, limits=limits)


def _reporter(
    edge: Edge, settings: EdgeSettings, endpoint: Endpoint, started_at_ns: int, stop: asyncio.Event
) -> Callable[[], NodeReport]:
    """What the heartbeat says of this edge."""
    drafts = edge.drafts

    def report() -> NodeReport:
        return NodeReport(
            node_id=settings.node_id,
            kind="edge",
            seq=0,
            sent_at_ns=0,
            started_at_ns=started_at_ns,
            grpc_address=endpoint.grpc_address or "",
            http_url=endpoint.http_url or "",
            node_class=settings.node_class,
            models=drafts.kept.loaded,
            line=drafts.line,
            refused=drafts.kept.refused,
            ready=drafts.ready,
            draining=stop.is_set(),
            ending=stop.is_set(),
            capacity=1,
            in_flight=drafts.busy,
            queued=drafts.queued,
            waiting=dict(drafts.waiting.most_common(TENANTS_TOLD)),
            drafts_at_most=settings.max_waiting_drafts,
            lent_at_most=settings.most_lent,
            remaining_s=drafts.remaining_s,
            elapsed_s=drafts.elapsed_s,
            finished=drafts.finished,
            failed_in_row=drafts.failed_in_row,
            lends=drafts.digests[0],
            lends_also=drafts.digests[1:],
            links=edge.places.links,
            ways=edge.delivery.ways,
            loading=drafts.kept.loading,
            repeats_cached=edge.delivery.repeats_cached,
            repeats_fetched=edge.delivery.repeats_fetched,
        )

    return report
