"""The parts of an edge that has a spool, and how they are wired. No decisions."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    DeadlineExceeded,
    InternalError,
    StorageReadOnly,
    StoreUnsafe,
)
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import retry_until
from adaptivegen.telemetry import get_logger
from edge_node.draft.desk import DraftDesk
from edge_node.follow import Follower
from edge_node.quotas import Quotas
from edge_node.settings import EdgeSettings
from edge_node.sides import Partition
from edge_node.spool.blobs import ProvenStore
from edge_node.spool.drain import Drainer
from edge_node.spool.known import Known
from edge_node.spool.reach import Reach
from edge_node.spool.rules import SpoolLimits, is_cut
from edge_node.spool.spool import Envelope, Spool
from edge_node.videos import Videos

IDENTITY = "store"  # in the spool's folder: which store this edge has proven
START_S = 5.0  # that an edge with a spool waits for the store at its start
INDEXED_AFTER_S = 0.5  # a worker tells of a final before it indexes it
INDEX_LOOKS = 6


async def first_reach(settings: EdgeSettings, rng: random.Random) -> tuple[BlobStore, AdaptiveGenError | None]:
    """The object store, opened and tested; with a spool also without that, and then why.

    Raises SettingsInvalid, StoreUnsafe, and without a spool what the store raises.
    """
    if settings.spool_dir is None:
        blob = open_store(settings.store_url)
        await selftest(blob, rng)
        return blob, None
    store = ProvenStore(settings.store_url, rng, identity=settings.spool_dir / IDENTITY)
    try:
        async with asyncio.timeout(START_S):
            await store.prove()
    except TimeoutError:
        return store, DeadlineExceeded(f"the object store {store.url} did not answer in {START_S:g} s")
    except StoreUnsafe:
        raise
    except AdaptiveGenError as exc:
        if not (is_cut(exc) or isinstance(exc, StorageReadOnly)):  # also a mount point with nothing mounted there
            raise
        return store, exc
    return store, None


async def first_connect(
    settings: EdgeSettings, bus: Bus, *, stop: asyncio.Event, clock: Clock
) -> tuple[bool, AdaptiveGenError | None]:
    """Whether to go on, and why the broker was not reached: with a spool it is tried once, else until `stop`."""
    if settings.spool_dir is None:
        return await retry_until(bus.start, stop=stop, clock=clock, what="broker"), None
    try:
        await bus.start()
    except BrokerUnavailable as exc:
        return True, exc
    return True, None


async def open_partition(
    settings: EdgeSettings,
    centre: JobStore,
    quotas: Quotas,
    *,
    lost: AdaptiveGenError | None,
    clock: Clock,
    rng: random.Random,
    resources: AsyncExitStack,
) -> Partition | None:
    """Spool, known finals and the way to the centre; None without `spool_dir`. quotas: for which the spool's jobs
    count; lost: why the centre was not reached at the start. Raises AlreadyRunning, StoreUnsafe, StorageFailure."""
    if settings.spool_dir is None:
        return None
    limits = SpoolLimits(max_jobs=settings.spool_max_jobs, max_bytes=settings.spool_max_bytes)
    spool = Spool(settings.spool_dir, limits=limits, clock=clock)
    resources.push_async_callback(spool.close)
    await spool.open(rng)
    await count_spooled(spool, quotas, node_id=settings.node_id)
    known = Known(settings.spool_dir / "known", max_bytes=settings.known_max_bytes)
    await known.open()
    resources.push_async_callback(known.close)

    async def prove() -> None:
        if isinstance(centre.blob, ProvenStore):
            await centre.blob.prove()

    reach = Reach(centre, prove=prove, node_id=settings.node_id, clock=clock, budget_s=settings.reach_s)
    if lost is not None:
        reach.trip(lost)
    return Partition(spool, reach, known)


async def count_spooled(spool: Spool, quotas: Quotas, *, node_id: str) -> None:
    """What a former life of this edge has accepted alone counts for its tenants' quotas; schedulers count the rest."""
    for envelope in spool.held:
        with suppress(InternalError):  # damaged, as was said at the start
            spec, record = await spool.jobs.spec(*envelope.name), await spool.jobs.find(*envelope.name)
            if spec.decision.decided_by != node_id:
                continue
            chosen = spec.decision.chosen()
            gpu_s = chosen.gpu_s if chosen is not None else 0.0
            quotas.accepted(spec.tenant, spec.id, gpu_s, here=True, now_ns=envelope.spooled_at_ns)
            if record.ended:
                quotas.ended(spec.id)


def drainer(
    partition: Partition,
    videos: Videos,
    desk: DraftDesk,
    follower: Follower,
    node_id: str,
    rng: random.Random,
) -> Drainer:
    """What empties the spool."""

    async def handed(envelope: Envelope, spec: JobSpec, record: JobRecord) -> None:
        await videos.acceptor.handed(envelope, spec, record)
        follower.follow(record, spec.decision, fresh=False)  # in its former life this edge did

    async def begin_draft(spec: JobSpec, record: JobRecord) -> None:
        await videos.acceptor.begin_draft(spec, record)
        follower.follow(record, spec.decision, fresh=False)

    return Drainer(
        spool=partition.spool,
        reach=partition.reach,
        centre=videos.centre,
        clock=videos.centre.clock,
        node_id=node_id,
        again=videos.placing.again,
        rng=rng,
        drafting=desk.drafting,
        handed=handed,
        gone=videos.placing.gone,
        begin_draft=begin_draft,
    )


class Keeper:
    """Keeps the finals of jobs that ended, as the content index has them: what is not in it no repeat may be answered
    with."""

    def __init__(self, known: Known, centre: JobStore) -> None:
        self._known = known
        self._centre = centre

    async def keep(self, record: JobRecord) -> None:
        """Keep the final of a completed job, unless its content key has none, or it cannot be read."""
        try:
            spec = await self._centre.spec(record.tenant, record.id)
            for _ in range(INDEX_LOOKS):
                entry = await self._centre.content(record.tenant, spec.content_key)
                if entry is not None:
                    await self._known.remember(record.tenant, spec.content_key, entry, self._centre.blob)
                    return
                await self._centre.clock.sleep(INDEXED_AFTER_S)
        except AdaptiveGenError as exc:
            get_logger().info("final_not_kept", job_id=record.id, code=exc.code, error=exc.message)
