"""The parts of an edge node and how they are wired to one another. No decisions, no order of start or drain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.desired import DesiredModels
from adaptivegen.discovery.base import Endpoint
from adaptivegen.errors import AdaptiveGenError, ModelNotFound
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.runner import Finished, ModelRunner
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.store import JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.models.card import ModelCard
from adaptivegen.models.pushed import PushedModels
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
from edge_node.draft.models import DraftModels
from edge_node.draft.places import DraftPlaces
from edge_node.draft.telling import DraftTelling
from edge_node.follow import Follower
from edge_node.hearing import KEPT, QuotaHearing
from edge_node.hub import EventHub
from edge_node.metrics import EdgeMetrics
from edge_node.partition import Keeper, drainer, first_reach, open_partition
from edge_node.placing import EdgeIdentity
from edge_node.purges import Purges
from edge_node.quotas import Quotas
from edge_node.settings import EdgeSettings
from edge_node.sides import Partition, Sides
from edge_node.spool.drain import Drainer
from edge_node.spool.rules import CutOff, sheltered_note
from edge_node.versions import Versions
from edge_node.videos import Videos


@dataclass(frozen=True, slots=True)
class Edge:
    """The parts of one edge that run, serve or are drained."""

    desired: DesiredModels
    drafts: DraftModels
    hub: EventHub
    attempts: Attempts
    places: DraftPlaces
    lending: Lending
    telling: DraftTelling
    desk: DraftDesk
    cancels: Cancels
    purges: Purges
    delivery: Delivery
    follower: Follower
    hearing: QuotaHearing
    scheduler: PlacementClient
    videos: Videos
    metrics: EdgeMetrics
    partition: Partition | None
    drain: Drainer | None

    def cut(self) -> CutOff | None:
        """What is said while this edge is cut off; None while it is not."""
        return self.partition.cut() if self.partition is not None else None


@dataclass(frozen=True, slots=True)
class Base:
    """What an edge has before it knows a broker: whatever is wrong here is said at once."""

    callers: Authenticator
    blob: BlobStore
    lost: AdaptiveGenError | None = None  # why the store was not reached, where this edge has a spool


async def prepare(settings: EdgeSettings, *, rng: random.Random, resources: AsyncExitStack) -> Base:
    """Check models, keys and store; what has to be closed goes to `resources`.

    Raises SettingsInvalid, StoreUnsafe, and what the store raises.
    """
    _card(settings, "cloud_model")
    _card(settings, "draft_model")
    callers = _authenticator(settings)
    blob, lost = await first_reach(settings, rng)
    resources.push_async_callback(blob.close)
    return Base(callers, blob, lost)


def pushed_models(settings: EdgeSettings, base: Base) -> PushedModels:
    """What this edge can fetch of models."""
    return PushedModels(base.blob, settings.library(), settings.models_dir, max_bytes=settings.models_max_bytes)


async def load(
    settings: EdgeSettings,
    desired: DesiredModels,
    pushed: PushedModels,
    child: Sequence[str],
    *,
    clock: Clock,
    resources: AsyncExitStack,
) -> DraftModels:
    """The versions of the draft model, of which the one that serves is loaded; where that cannot be had here, the one
    that this edge was started with: an edge that drafts by an older version is better than none.

    Raises what the model raises."""
    library, finished, line = settings.library(), Finished(), settings.draft_model

    def open_runner(card: ModelCard) -> ModelRunner:
        return ModelRunner(
            child[0],
            [*child[1:], card.name, str(settings.threads), str(library.folder(card.name))],
            clock=clock,
            max_waiting=settings.most_queued,
            finished=finished,
        )

    kept = ModelSet(lambda: desired.of(line).wanted(settings.node_id), library.card, open_runner, clock, pushed.ensure)
    resources.push_async_callback(kept.close)
    await kept.start(or_else=line)
    return DraftModels(line, desired, library, kept)


async def build(
    settings: EdgeSettings,
    base: Base,
    endpoint: Endpoint,
    desired: DesiredModels,
    drafts: DraftModels,
    *,
    bus: Bus,
    lost: AdaptiveGenError | None,
    clock: Clock,
    rng: random.Random,
    stop: asyncio.Event,
    resources: AsyncExitStack,
) -> Edge:
    """Wire the parts of the edge at `endpoint`; what has to be closed goes to `resources`. lost: why broker or store
    were not reached. Raises SettingsInvalid, and what the spool raises."""
    jobs, quotas = JobStore(blob=base.blob, bus=bus, clock=clock), Quotas()
    hearing = QuotaHearing(quotas, bus, clock, settings.spool_dir / KEPT if settings.spool_dir is not None else None)
    partition = await open_partition(settings, jobs, quotas, lost=lost, clock=clock, rng=rng, resources=resources)
    sides, metrics = Sides(jobs, partition), EdgeMetrics()
    hub = EventHub(node_id=settings.node_id, jobs=sides, clock=clock)
    delivery, scheduler = _peers(settings, clock=clock, resources=resources)
    attempts = Attempts(scheduler)
    places = _places(settings, drafts, clock=clock, resources=resources, attempted=attempts.tell)
    lending, telling = _lending(settings, drafts, jobs, clock=clock, stop=stop), DraftTelling(settings.node_id, bus)
    desk = _desk(settings, places, sides, hub, metrics, telling, clock=clock)
    follower = Follower(
        node_id=settings.node_id,
        hub=hub,
        delivery=delivery,
        desk=desk,
        scheduler=scheduler,
        clock=clock,
        draft_line=drafts.line,
        keep=Keeper(partition.known, jobs).keep if partition is not None else None,
        ended=quotas.ended,
    )
    videos = Videos(
        identity=_identity(settings, endpoint),
        jobs=jobs,
        hub=hub,
        desk=desk,
        versions=Versions(desired, settings.library()),
        drafts=drafts,
        placer=scheduler,
        clock=clock,
        rng=rng,
        max_waiting_drafts=settings.max_waiting_drafts,
        borrows=settings.borrows,
        quotas=quotas,
        upload_limits=UploadLimits(max_bytes=settings.max_upload_bytes),
        on_accepted=partial(_accepted, metrics, follower),
        on_repeat=follower.repeat,
        partition=partition,
    )
    cancels = Cancels(jobs=jobs, desk=desk, clock=clock)
    drain = _drain(settings, partition, videos, desk, follower, metrics, rng=rng)
    purges = Purges(jobs=jobs, desk=desk, partition=partition, clock=clock)
    drafting = (drafts, hub, attempts, places, lending, telling, desk, cancels, purges)
    return Edge(desired, *drafting, delivery, follower, hearing, scheduler, videos, metrics, partition, drain)


def _drain(
    settings: EdgeSettings,
    partition: Partition | None,
    videos: Videos,
    desk: DraftDesk,
    follower: Follower,
    metrics: EdgeMetrics,
    *,
    rng: random.Random,
) -> Drainer | None:
    """What empties the spool, where there is one."""
    if partition is None:
        return None
    drain = drainer(partition, videos, desk, follower, settings.node_id, rng)
    metrics.watch_partition(partition, drain)
    return drain


def _desk(
    settings: EdgeSettings,
    places: DraftPlaces,
    sides: Sides,
    hub: EventHub,
    metrics: EdgeMetrics,
    telling: DraftTelling,
    *,
    clock: Clock,
) -> DraftDesk:
    desk = DraftDesk(
        node_id=settings.node_id,
        places=places,
        jobs=sides,
        hub=hub,
        clock=clock,
        observe=metrics.observe,
        over=telling.over,
        shelter=partial(sides.shelter, note=sheltered_note(settings.node_id)),
    )
    metrics.watch(desk)
    return desk


def _accepted(metrics: EdgeMetrics, follower: Follower, record: JobRecord, decision: Decision, fresh: bool) -> None:
    metrics.accepted.inc()
    follower.follow(record, decision, fresh=fresh)


def _lending(
    settings: EdgeSettings, drafts: DraftModels, jobs: JobStore, *, clock: Clock, stop: asyncio.Event
) -> Lending:
    return Lending(
        node_id=settings.node_id,
        jobs=jobs,
        models=drafts,
        clock=clock,
        max_waiting=settings.most_lent,
        accepting=lambda: not stop.is_set(),
    )


def _places(
    settings: EdgeSettings,
    drafts: DraftModels,
    *,
    clock: Clock,
    resources: AsyncExitStack,
    attempted: Callable[[Attempt], None],
) -> DraftPlaces:
    peers = DraftClient(tls=client_tls(settings))
    resources.push_async_callback(peers.close)
    return DraftPlaces(
        node_id=settings.node_id,
        models=drafts,
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
        return settings.library().card(getattr(settings, field))
    except ModelNotFound as exc:
        raise settings.refuse(field, ", ".join(settings.library().names())) from exc


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
