"""Composition of an edge node: its parts, their order of start and of drain. No decisions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.jobs.store import JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.models.registry import load_card
from adaptivegen.nodes import NodeReport
from adaptivegen.process import end, retry_until
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.draft import DraftServicer
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.rpc.server import RpcServer, ServerTls
from adaptivegen.rpc.video import Authenticator, VideoServicer
from adaptivegen.serving import HttpServer, bind
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from edge_node.api.http import HttpApi
from edge_node.auth import ApiKeys, Loopback, read_keys
from edge_node.delivery import Delivery
from edge_node.draft.desk import DraftDesk
from edge_node.follow import Follower
from edge_node.hub import EventHub
from edge_node.metrics import EdgeMetrics
from edge_node.schedulers import find_schedulers
from edge_node.settings import EdgeSettings
from edge_node.videos import EdgeIdentity, Videos


@dataclass(slots=True)
class Edge:
    """The built parts of one edge."""

    settings: EdgeSettings
    blob: BlobStore
    bus: NatsBus
    runner: ModelRunner
    hub: EventHub
    desk: DraftDesk
    delivery: Delivery
    follower: Follower
    scheduler: PlacementClient
    videos: Videos
    metrics: EdgeMetrics
    authenticator: Authenticator
    rpc: RpcServer
    grpc_address: str


async def build(settings: EdgeSettings, *, clock: Clock, rng: random.Random, bus: NatsBus, rpc: RpcServer) -> Edge:
    """Wire the parts of an edge whose gRPC server has its port. Raises what the self-test and the model raise."""
    blob = open_store(settings.store_url)
    await selftest(blob, rng)
    jobs = JobStore(blob=blob, bus=bus, clock=clock)
    card = load_card(settings.draft_model)
    runner = ModelRunner(
        "edge_node.draft.child",
        [settings.draft_model, str(settings.threads)],
        clock=clock,
        max_waiting=settings.max_waiting_drafts,
    )
    await runner.start()
    metrics = EdgeMetrics()
    hub = EventHub(node_id=settings.node_id, jobs=jobs, clock=clock)
    desk = DraftDesk(
        node_id=settings.node_id,
        runner=runner,
        jobs=jobs,
        hub=hub,
        card=card,
        clock=clock,
        observe=metrics.observe,
    )
    metrics.watch(desk)
    delivery = Delivery(
        settings.cache_url,
        keys=settings.signing_key_map(),
        ttl_s=settings.media_url_ttl_s,
        clock=clock,
        ca=settings.tls_client_ca,
    )
    tls = _client_tls(settings)
    scheduler = PlacementClient(settings.schedulers(), clock=clock, budget_s=settings.place_budget_s, tls=tls)
    follower = Follower(hub=hub, delivery=delivery, desk=desk, scheduler=scheduler)
    address = settings.advertised(rpc.port)
    identity = EdgeIdentity(
        node_id=settings.node_id,
        grpc_address=address,
        pool=settings.pool,
        default_model=settings.cloud_model,
    )
    videos = Videos(
        identity=identity,
        jobs=jobs,
        hub=hub,
        desk=desk,
        runner=runner,
        draft_card=card,
        placer=scheduler,
        clock=clock,
        rng=rng,
        max_waiting_drafts=settings.max_waiting_drafts,
        upload_limits=UploadLimits(max_bytes=settings.max_upload_bytes),
        on_accepted=follower.follow,
    )
    return Edge(
        settings=settings,
        blob=blob,
        bus=bus,
        runner=runner,
        hub=hub,
        desk=desk,
        delivery=delivery,
        follower=follower,
        scheduler=scheduler,
        videos=videos,
        metrics=metrics,
        authenticator=_authenticator(settings),
        rpc=rpc,
        grpc_address=address,
    )


async def serve(settings: EdgeSettings, *, clock: Clock, rng: random.Random, stop: asyncio.Event) -> None:
    """Run the edge until `stop`, then drain. Raises SettingsInvalid, ModelNotFound or StoreUnsafe at start."""
    configure_logging("edge", settings.node_id, settings.log_level)
    get_logger().info("starting", **describe(settings))
    bus = NatsBus(settings.nats_servers(), name=settings.node_id)
    if not await retry_until(bus.start, stop=stop, clock=clock, what="broker"):
        return
    rpc = RpcServer(rng=rng)
    rpc.reserve(host=settings.host, port=settings.grpc_port, tls=_server_tls(settings))
    edge = await build(settings, clock=clock, rng=rng, bus=bus, rpc=rpc)
    VideoServicer(edge.videos, edge.authenticator).add_to(rpc)
    DraftServicer(edge.desk.wait_for).add_to(rpc)
    await _run(edge, clock=clock, rng=rng, stop=stop)


async def _run(edge: Edge, *, clock: Clock, rng: random.Random, stop: asyncio.Event) -> None:
    """Serve HTTP and gRPC until `stop`; then close the doors, finish what is open, and stop the parts."""
    settings = edge.settings
    listener = bind(settings.host, settings.http_port)
    http_port = int(listener.getsockname()[1])
    http_url = f"{'https' if settings.tls_cert else 'http'}://{settings.advertised(http_port)}"
    api = HttpApi(
        videos=edge.videos,
        authenticator=edge.authenticator,
        delivery=edge.delivery,
        ready=lambda: edge.runner.ready and not stop.is_set(),
        registry=edge.metrics.registry,
        rng=rng,
        max_upload_bytes=settings.max_upload_bytes,
    )
    web = HttpServer(
        api.application(),
        listener,
        cert=settings.tls_cert,
        key=settings.tls_key,
        drain_s=settings.drain_grace_s,
    )
    heartbeat = Heartbeat(edge.bus, clock, _reporter(edge, http_url, clock.now_ns(), stop))
    await edge.rpc.start()
    discovery = NatsDiscovery(edge.bus, clock)
    endpoint = Endpoint("edge", settings.node_id, http_url=http_url, grpc_address=edge.grpc_address)
    async with asyncio.TaskGroup() as group:
        parts = [
            group.create_task(part)
            for part in (
                edge.hub.run(),
                edge.desk.run(),
                edge.delivery.run(),
                edge.follower.run(),
                edge.runner.keep(),
                discovery.register(endpoint),
                find_schedulers(edge.scheduler, discovery, clock=clock, fixed=bool(settings.schedulers())),
                heartbeat.run(),
            )
        ]
        serving = group.create_task(web.run())
        get_logger().info("ready", address=http_url, grpc_address=edge.grpc_address, model=settings.draft_model)
        await stop.wait()
        await edge.rpc.set_serving(False)
        edge.hub.close()
        web.stop()
        await serving
        await edge.desk.drain()
        await end(*parts)
    await edge.rpc.drain(grace_s=1.0)
    await edge.scheduler.close()
    await edge.delivery.close()
    await edge.runner.close()
    await edge.bus.close()
    await edge.blob.close()
    get_logger().info("stopped")


def _reporter(edge: Edge, http_url: str, started_at_ns: int, stop: asyncio.Event) -> Callable[[], NodeReport]:
    """What the heartbeat says of this edge."""
    profile = edge.desk.card.profile[0] if edge.desk.card.profile else None
    draft_s = sum((profile.text_ms, profile.upsample_ms, profile.encode_ms)) / 1e3 if profile else 1.0
    if profile:
        draft_s += edge.desk.card.limits.steps_default * profile.step_ms / 1e3

    def report() -> NodeReport:
        return NodeReport(
            node_id=edge.settings.node_id,
            kind="edge",
            seq=0,
            sent_at_ns=0,
            started_at_ns=started_at_ns,
            grpc_address=edge.grpc_address,
            http_url=http_url,
            models=(edge.settings.draft_model,),
            ready=edge.runner.ready,
            draining=stop.is_set(),
            capacity=1,
            in_flight=min(1, edge.desk.active),
            queued=max(0, edge.desk.active - 1),
            remaining_s=edge.desk.active * draft_s,
        )

    return report


def _authenticator(settings: EdgeSettings) -> Authenticator:
    if settings.auth == "loopback" or settings.api_keys_file is None:
        return Loopback()
    return ApiKeys(read_keys(settings.api_keys_file), pepper=settings.api_key_pepper.get_secret_value())


def _server_tls(settings: EdgeSettings) -> ServerTls | None:
    """Clients show API keys, workers the job's draft token: no client certificates here."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(cert=settings.tls_cert, key=settings.tls_key)


def _client_tls(settings: EdgeSettings) -> ClientTls | None:
    if settings.tls_client_ca is None:
        return None
    return ClientTls(ca=settings.tls_client_ca, cert=settings.tls_cert, key=settings.tls_key)
