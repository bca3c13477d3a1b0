"""The reconciler: finds jobs the queue or the index has lost and puts them right, from the object store alone.

Decides nothing about placement. Any number may run at once: every action is idempotent (a manifest wins once, a record
changes by compare-and-set, two passes that read the same record queue the same message). How long a job was left alone
is what this process has seen by its own clock: the stamps in records are other machines' clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, InternalError, NotFound
from adaptivegen.jobs.record import JobRecord, apply_manifest, draft_stored, hand_to_cloud, touched
from adaptivegen.jobs.spec import Deleted, DraftManifest, JobSpec, Manifest, pending_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.telemetry import get_logger

OVERDUE = 10  # patiences
UNREADABLE_AFTER = 3  # tries, with pauses of a minute and more, of one job of a store that answers for others
MOST_UNREADABLE = 100  # more are no trouble of theirs
ABANDONED_S = 3600.0  # a marker without a spec for this long belongs to no submission under way
Remedy = Literal["wait", "index", "clear", "upgrade", "check-queue", "finish-draft-in-cloud"]


def remedy(
    record: JobRecord,
    *,
    draft: DraftManifest | None,
    upgrade_asked: bool,
    manifest: Manifest | None,
    quiet_s: float,
    patience_s: float,
) -> Remedy:
    """What a pending job needs. Pure.

    `index`: it has ended, the record does not know. `clear`: it has ended and only the marker is left. `upgrade`: its
    final was asked for, the record does not know. `check-queue`: nobody has touched it for its lease and
    `patience_s` more, so its message may be lost. `finish-draft-in-cloud`: its edge died before the draft was stored.
    """
    if manifest is not None:
        return "clear" if record.ended and record.status == manifest.outcome else "index"
    if draft is not None and record.draft is None:
        return "index"
    if upgrade_asked and not record.want_final:
        return "upgrade"
    if record.ended:
        return "clear"
    lease_s = max(0, record.lease_expires_at_ns - record.updated_at_ns) / 1e9  # both by its holder's clock
    if quiet_s < patience_s + lease_s:
        return "wait"
    return "check-queue" if record.want_final else "finish-draft-in-cloud"


class Listener(Protocol):
    """Hears which jobs are open, as a pass finds them."""

    def begin(self) -> None:
        """A pass begins."""
        ...

    def listed(self, job_id: str) -> None:
        """A job that may be open."""
        ...

    def found(self, spec: JobSpec, record: JobRecord) -> None:
        """One that is."""
        ...

    def end(self) -> None:
        """The pass is over, and all were listed."""
        ...


class Nobody:
    """Listens to nothing."""

    def begin(self) -> None: ...
    def listed(self, job_id: str) -> None: ...
    def found(self, spec: JobSpec, record: JobRecord) -> None: ...
    def end(self) -> None: ...


class Sightings:
    """Since when each pending record is seen unchanged, over the passes of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[JobRecord, float]] = {}
        self._now: dict[tuple[str, str], tuple[JobRecord, float]] = {}

    def begin(self) -> None:
        """A pass begins: what it does not see is forgotten with the next."""
        self._seen, self._now = self._now, {}

    def quiet_s(self, record: JobRecord) -> float:
        """Seconds for which the record has been the same."""
        key, now_s = (record.tenant, record.id), self._clock.monotonic_s()
        before, since_s = self._seen.get(key, (record, now_s))
        since_s = since_s if before == record else now_s
        self._now[key] = (record, since_s)
        return now_s - since_s


@dataclass(slots=True)
class Tally:
    """What one pass did."""

    seen: int = 0
    indexed: int = 0
    cleared: int = 0
    requeued: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Pool:
    """The open finals of one pool as a pass finds them: each should have a message in the queue."""

    open: int = 0
    quiet: list[tuple[float, JobRecord, JobSpec]] = field(default_factory=list)


@dataclass(slots=True)
class _Pass:
    jobs: JobStore
    patience_s: float
    sightings: Sightings
    listener: Listener
    tally: Tally = field(default_factory=Tally)
    pools: dict[str, _Pool] = field(default_factory=dict)

    async def one(self, marked: tuple[str, str, int]) -> None:
        """Put one job right, or leave it for the next pass."""
        tenant, job_id, marked_at_ns = marked
        self.tally.seen += 1
        _tell(lambda: self.listener.listed(job_id))
        try:
            await _reconcile_one(self, tenant, job_id, marked_at_ns)
        except AdaptiveGenError as exc:
            _left(self.tally, exc.code, exc.message, job_id=job_id, tenant=tenant)
        except Exception as exc:  # a bug met by one job must not keep the others from being put right
            _left(self.tally, "internal", repr(exc), job_id=job_id, tenant=tenant)


async def reconcile(
    jobs: JobStore, *, patience_s: float, sightings: Sightings, listener: Listener | None = None
) -> Tally:
    """One pass over all pending jobs; `sightings` are kept over passes. A job that cannot be handled is logged and left
    for the next."""
    run = _Pass(jobs, patience_s, sightings, listener or Nobody())
    sightings.begin()
    _tell(run.listener.begin)
    batch: list[tuple[str, str, int]] = []
    async for marked in jobs.pending():
        batch.append(marked)
        if len(batch) == AT_ONCE:
            await read_all(batch, run.one)
            batch.clear()
    await read_all(batch, run.one)
    _tell(run.listener.end)
    for name, pool in run.pools.items():
        try:
            await _requeue_lost(run, name, pool)
        except AdaptiveGenError as exc:
            _left(run.tally, exc.code, exc.message, pool=name)
    return run.tally


async def reindex(jobs: JobStore, troubles: Troubles | None = None) -> int:
    """Index every job of the object store that the index lacks, unless it is known to be complete; returns how many.

    For a broker that lost its data: until then such a job is found by its id, and listed by nobody, and operators
    cannot purge. So of a few that cannot be read, time and again, it is given up that they be listed; whoever asks for
    one by its id has it indexed. Raises BrokerUnavailable, and a storage error where jobs cannot be listed.
    """
    if await jobs.index.complete():
        return 0
    troubles = troubles or Troubles()
    known = set(await jobs.index.tenants_and_ids())
    found = unread = 0
    whole = True
    async for tenant, job_id in jobs.specs():
        if (tenant, job_id) in known:
            continue
        indexed = await _put_right(jobs, tenant, job_id, troubles)
        found += indexed is True
        unread += indexed is None
        whole = whole and (indexed is not None or troubles.times(_in_index(tenant, job_id)) >= UNREADABLE_AFTER)
    if whole and unread <= MOST_UNREADABLE:
        await jobs.index.set_complete()
    return found


async def _put_right(jobs: JobStore, tenant: str, job_id: str, troubles: Troubles) -> bool | None:
    """Index one job; whether it is listed now, None where that cannot be told. Raises BrokerUnavailable."""
    name, now_s = _in_index(tenant, job_id), jobs.clock.monotonic_s()
    if not troubles.due(name, now_s=now_s):
        return None
    try:
        await jobs.index.put_right(tenant, job_id)
    except BrokerUnavailable:  # nor can the others be: what was found so far says nothing of this one
        raise
    except Deleted:
        return False
    except InternalError as exc:  # damaged: it cannot be listed, and will not be by trying again
        get_logger().warning("reindex_failed", job_id=job_id, tenant=tenant, code=exc.code, error=exc.message)
        return False
    except AdaptiveGenError as exc:
        if troubles.failed(name, exc.message, now_s=now_s):
            get_logger().warning("reindex_failed", job_id=job_id, tenant=tenant, code=exc.code, error=exc.message)
        return None
    troubles.over(name)
    return True


def _in_index(tenant: str, job_id: str) -> str:
    return f"index {tenant}.{job_id}"


async def keep_reconciling(
    jobs: JobStore, *, patience_s: float, interval_s: float, clock: Clock, listener: Listener | None = None
) -> None:
    """A pass every `interval_s`, until cancelled; one that fails is tried again in the next."""
    sightings, troubles = Sightings(clock), Troubles()
    while True:
        try:
            indexed = await reindex(jobs, troubles)
            tally = await reconcile(jobs, patience_s=patience_s, sightings=sightings, listener=listener)
            tally.indexed += indexed
            if tally.indexed or tally.cleared or tally.requeued or tally.failed:
                get_logger().info("reconciled", **asdict(tally))
        except AdaptiveGenError as exc:
            get_logger().warning("reconcile_pass_failed", code=exc.code, error=exc.message)
        except Exception as exc:
            get_logger().error("reconcile_pass_failed", exc_info=exc)
        await clock.sleep(interval_s)


def _tell(what: Callable[[], None]) -> None:
    """Whoever listens must not keep jobs from being put right."""
    try:
        what()
    except Exception as exc:
        get_logger().error("listener_failed", exc_info=exc)


def _left(tally: Tally, code: str, message: str, **what: str) -> None:
    tally.failed += 1
    get_logger().warning("reconcile_failed", code=code, error=message, **what)


async def _reconcile_one(run: _Pass, tenant: str, job_id: str, marked_at_ns: int) -> None:
    jobs, tally = run.jobs, run.tally
    try:
        spec, record = await jobs.spec(tenant, job_id), await jobs.find(tenant, job_id)
    except Deleted:  # its removal has a marker of its own
        await jobs.clear(tenant, job_id)
        tally.cleared += 1
        return
    except NotFound:  # the marker precedes the spec: this submission is under way, or died and was never accepted
        if jobs.clock.now_ns() - marked_at_ns > ABANDONED_S * 1e9:
            await jobs.clear(tenant, job_id)
            tally.cleared += 1
        return
    except InternalError:  # damaged beyond running; a worker has given it its outcome, or will
        if await jobs.manifest(tenant, job_id) is None:
            raise
        await jobs.blob.delete(pending_key(tenant, job_id))
        tally.cleared += 1
        return
    draft, manifest = await jobs.draft(tenant, job_id), await jobs.manifest(tenant, job_id)
    quiet_s = run.sightings.quiet_s(record)
    needed = remedy(
        record,
        draft=draft,
        upgrade_asked=spec.upgrade,
        manifest=manifest,
        quiet_s=quiet_s,
        patience_s=run.patience_s,
    )
    if manifest is None and not record.ended:
        _tell(lambda: run.listener.found(spec, record))
    if manifest is None and record.want_final and not record.ended:
        run.pools.setdefault(spec.decision.pool, _Pool()).open += 1
    match needed:
        case "wait":
            return
        case "index":
            await jobs.change(tenant, job_id, lambda r: _indexed(r, draft, manifest))
            tally.indexed += 1
        case "clear":
            await jobs.clear(tenant, job_id)
            tally.cleared += 1
        case "upgrade":
            await jobs.index_upgrade(spec)
            await jobs.resume(spec)
            tally.requeued += 1
        case "check-queue":
            run.pools[spec.decision.pool].quiet.append((quiet_s, record, spec))
        case "finish-draft-in-cloud":
            now_ns = jobs.clock.now_ns()
            record = await jobs.change(tenant, job_id, lambda r: hand_to_cloud(r, now_ns=now_ns))
            if record.want_final and record.status == "queued":
                await _requeue(run, record, spec)


def _indexed(record: JobRecord, draft: DraftManifest | None, manifest: Manifest | None) -> JobRecord:
    if draft is not None:
        record = draft_stored(record, draft)
    return apply_manifest(record, manifest) if manifest is not None else record


async def _requeue_lost(run: _Pass, name: str, pool: _Pool) -> None:
    """Queue quiet jobs again, as many as the queue is short of: a job that merely waits has its message already.

    Which of them lost theirs is not known, so the longest untouched go first. A wrong guess costs one duplicate, which
    its worker drops; the one guessed then counts as touched, so that every lost one has its turn. Messages of jobs that
    have ended hide a shortage; therefore one job that was quiet for `OVERDUE` patiences goes in any case.
    """
    if not pool.quiet:
        return
    depth = await (await run.jobs.bus.work_queue(name)).depth()
    short = max(0, pool.open - depth.pending - depth.in_flight)
    pool.quiet.sort(key=lambda found: (-found[0], found[1].updated_at_ns))
    if not short and pool.quiet[0][0] >= OVERDUE * run.patience_s:
        short = 1
    for _, record, spec in pool.quiet[:short]:
        await _requeue(run, record, spec)


async def _requeue(run: _Pass, record: JobRecord, spec: JobSpec) -> None:
    token = f"again-{record.updated_at_ns}"
    await run.jobs.enqueue(spec.tenant, spec.id, pool=spec.decision.pool, token=token, trace=spec.trace)
    now_ns = run.jobs.clock.now_ns()
    await run.jobs.change(spec.tenant, spec.id, lambda r: touched(r, now_ns=now_ns))
    run.tally.requeued += 1
    get_logger().info("job_requeued", job_id=spec.id, tenant=spec.tenant)
