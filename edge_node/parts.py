"""The parts of an edge node and how they are wired to one another. No decisions, no order of start or drain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.errors import ModelNotFound
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.store import JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.models.card import ModelCard
from adaptivegen.models.registry import card_names, load_card
from adaptivegen.placement import Attempt, Decision
from adaptivegen.rpc.draft import DraftClient
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.rpc.video import Authenticator
from adaptivegen.tls import client_tls
from edge_node.attempts import Attempts
from edge_node.auth import ApiKeys, Loopback, read_keys
from edge_node.cancels import Cancels
from edge_node.delivery import Delivery
from edge_node.draft.desk import DraftDesk
from edge_node.draft.lend import Lending
from edge_node.draft.places import DraftPlaces
from edge_node.follow import Follower
from edge_node.hub import EventHub
from edge_node.metrics import EdgeMetrics
from edge_node.settings import EdgeSettings
from edge_node.videos import EdgeIdentity, Videos


@dataclass(frozen=True, slots=True)
class Edge:
    """The parts of one edge that run, serve or are drained."""

    runner: ModelRunner
    hub: EventHub
    attempts: Attempts
    places: DraftPlaces
    lending: Lending
    desk: DraftDesk
    cancels: Cancels
    delivery: Delivery
    follower: Follower
    scheduler: PlacementClient
    videos: Videos
    metrics: EdgeMetrics


@dataclass(frozen=True, slots=True)
class Base:
    """What an edge has before it knows a broker: whatever is wrong here is said at once."""

    card: ModelCard
    callers: Authenticator
    blob: BlobStore
    runner: ModelRunner


async def prepare(
    settings: EdgeSettings, child: Sequence[str], *, clock: Clock, rng: random.Random, resources: AsyncExitStack
) -> Base:
    """Check models, keys and store, and load the draft model; what has to be closed goes to `resources`.

    Raises SettingsInvalid, StoreUnsafe, and what the store and the model raise.
    """
    _card(settings, "cloud_model")
    card, callers = _card(settings, "draft_model"), _authenticator(settings)
    blob = open_store(settings.store_url)
    resources.push_async_callback(blob.close)
    await selftest(blob, rng)
    runner = ModelRunner(
        child[0],
        [*child[1:], settings.draft_model, str(settings.threads)],
        clock=clock,
        max_waiting=settings.max_waiting_drafts,
    )
    resources.push_async_callback(runner.close)
    await runner.start()
    return Base(card, callers, blob, runner)


async def build(
    settings: EdgeSettings,
    base: Base,
    endpoint: Endpoint,
    *,
    bus: Bus,
    clock: Clock,
    rng: random.Random,
    stop: asyncio.Event,
    resources: AsyncExitStack,
) -> Edge:
    """Wire the parts of the edge at `endpoint`; what has to be closed goes to `resources`. Raises SettingsInvalid."""
    card, runner = base.card, base.runner
    jobs = JobStore(blob=base.blob, bus=bus, clock=clock)
    metrics = EdgeMetrics()
    hub = EventHub(node_id=settings.node_id, jobs=jobs, clock=clock)
    delivery, scheduler = _peers(settings, clock=clock, resources=resources)
    attempts = Attempts(scheduler)
    places = _places(settings, base, clock=clock, resources=resources, attempted=attempts.tell)
    lending = _lending(settings, base, jobs, clock=clock, stop=stop)
    desk = DraftDesk(
        node_id=settings.node_id,
        places=places,
        jobs=jobs,
        hub=hub,
        card=card,
        clock=clock,
        observe=metrics.observe,
    )
    metrics.watch(desk)
    follower = Follower(hub=hub, delivery=delivery, desk=desk, scheduler=scheduler, clock=clock)

    def accepted(record: JobRecord, decision: Decision, fresh: bool) -> None:
        metrics.accepted.inc()
        follower.follow(record, decision, fresh=fresh)

    videos = Videos(
        identity=_identity(settings, endpoint),
        jobs=jobs,
        hub=hub,
        desk=desk,
        runner=runner,
        draft_card=card,
        placer=scheduler,
        clock=clock,
        rng=rng,
        max_waiting_drafts=settings.max_waiting_drafts,
        borrows=settings.borrows,
        upload_limits=UploadLimits(max_bytes=settings.max_upload_bytes),
        on_accepted=accepted,
    )
    cancels = Cancels(jobs=jobs, desk=desk, clock=clock)
    return Edge(runner, hub, attempts, places, lending, desk, cancels, delivery, follower, scheduler, videos, metrics)


def _lending(settings: EdgeSettings, base: Base, jobs: JobStore, *, clock: Clock, stop: asyncio.Event) -> Lending:
    return Lending(
        node_id=settings.node_id,
        jobs=jobs,
        runner=base.runner,
        card=base.card,
        clock=clock,
        max_waiting=max(1, settings.max_waiting_drafts // 2),  # the other half is for this edge's own
        accepting=lambda: not stop.is_set(),
    )


def _places(
    settings: EdgeSettings,
    base: Base,
    *,
    clock: Clock,
    resources: AsyncExitStack,
    attempted: Callable[[Attempt], None],
) -> DraftPlaces:
    peers = DraftClient(tls=client_tls(settings))
    resources.push_async_callback(peers.close)
    return DraftPlaces(
        node_id=settings.node_id,
        runner=base.runner,
        card=base.card,
        peers=peers,
        clock=clock,
        attempted=attempted,
    )


def _authenticator(settings: EdgeSettings) -> Authenticator:
    if settings.auth == "loopback" or settings.api_keys_file is None:
        return Loopback()
    return ApiKeys(read_keys(settings.api_keys_file), pepper=settings.api_key_pepper.get_secret_value())


def _card(settings: EdgeSettings, field: str) -> ModelCard:
    try:
        return load_card(getattr(settings, field))
    except ModelNotFound as exc:
        raise settings.refuse(field, ", ".join(card_names())) from exc


def _peers(settings: EdgeSettings, *, clock: Clock, resources: AsyncExitStack) -> tuple[Delivery, PlacementClient]:
    """The media cache and the schedulers, as this edge reaches them."""
    tls = client_tls(settings)
    delivery = Delivery(
        settings.cache_url,
        keys=settings.signing_key_map(),
        ttl_s=settings.media_url_ttl_s,
        clock=clock,
        ca=settings.tls_client_ca,
    )
    resources.push_async_callback(delivery.close)
    scheduler = PlacementClient(settings.schedulers(), clock=clock, budget_s=settings.place_budget_s, tls=tls)
    resources.push_async_callback(scheduler.close)
    return delivery, scheduler


def _identity(settings: EdgeSettings, endpoint: Endpoint) -> EdgeIdentity:
    return EdgeIdentity(
        node_id=settings.node_id,
        grpc_address=endpoint.grpc_address or "",
        pool=settings.pool,
        default_model=settings.cloud_model,
    )
