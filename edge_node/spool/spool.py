"""The jobs that an edge has accepted while it was cut off, on its own disk.

Owns one folder, held by one process: a job store like the centre's over it, and an envelope per job with what the
centre has to be told on return. A job is in the spool from its spec to its removal; what a crash leaves of one without
a spec (a submission that died, a removal that did) is removed at the next start.

    envelope/<tenant>.<id>   Envelope, before the spec and rewritten before the centre is told anything
    and what adaptivegen.jobs.spec says
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import random
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptivegen.blob.base import check_key
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import storage_error
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AlreadyRunning,
    Conflict,
    InternalError,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    SettingsInvalid,
    StorageFailure,
)
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec, job_key, record_key
from adaptivegen.jobs.store import JOBS_BUCKET, JobStore
from adaptivegen.telemetry import get_logger
from edge_node.spool.blobs import MeteredStore
from edge_node.spool.local_bus import SpoolBus
from edge_node.spool.own_store import open_own
from edge_node.spool.rules import SpoolLimits, State, check_room
from edge_node.spool.seen import SeenKeys

Name = tuple[str, str]  # tenant, id
LOCK = ".lock"
# what a job store and this write; anything else in the folder is not the spool's
KINDS = {"envelope", "pending", "jobs", "out", "content", "ratings", "inputs", "idempotency", "selftest"}


class Envelope(BaseModel):
    """What is known of a spooled job beside the job. key, body: its idempotency key and the digest of its body, empty
    without one; why: the code of the error it was spooled for; begun: the centre may have the job, or parts of it."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    id: str
    key: str = ""
    body: str = ""
    why: str = ""
    spooled_at_ns: int
    begun: bool = False

    @property
    def name(self) -> Name:
        """Tenant and id."""
        return self.tenant, self.id

    def encode(self) -> bytes:
        """JSON as stored."""
        return self.model_dump_json().encode()


class Spool:
    """The spool in `folder`. `open` must have returned before anything else is called."""

    def __init__(self, folder: Path, *, limits: SpoolLimits, clock: Clock) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._lock: int | None = None
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._envelopes: dict[Name, Envelope] = {}
        self._admitted: set[Name] = set()  # on their way in: an envelope and no spec yet
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}  # id and body by tenant and key, also of those admitted
        self._locks: dict[Name, asyncio.Lock] = {}
        self.filled = asyncio.Event()  # set whenever a job has come in
        self.on_job: Callable[[], None] = _nothing
        self.on_refused: Callable[[], None] = _nothing
        self.seen = SeenKeys(folder / "seen", clock=clock)
        self.jobs: JobStore
        self.blob: MeteredStore

    # ---- start and end ----------------------------------------------------------------------------------------

    async def open(self, rng: random.Random) -> None:
        """Take the folder, test it, find the jobs in it. Raises AlreadyRunning, SettingsInvalid for a folder of
        others, StoreUnsafe, StorageFailure."""
        self._hold()
        self.blob = MeteredStore(open_own(self._folder / "jobs"))
        self.jobs = JobStore(blob=self.blob, bus=SpoolBus(self._clock), clock=self._clock)
        await selftest(self.blob, rng)
        await self.seen.open()
        keys = [meta.key for meta in await self.blob.measure() if _own_kind(meta.key)]
        names = {
            (parts[1], parts[2])
            for key in keys
            if len(parts := key.split("/")) == 4 and parts[0] == "jobs" and parts[-1] == "spec"
        }
        for tenant, job_id in sorted(names, key=lambda name: name[1]):
            self._keep(await self._read_envelope(tenant, job_id))
            try:
                await self.jobs.find(tenant, job_id)  # into the index
            except InternalError as exc:  # damaged: it stays where it is, and hides no other
                get_logger().error("spooled_job_unreadable", job_id=job_id, tenant=tenant, error=exc.message)
        await self._sweep(keys, names)
        if names:
            get_logger().info("spool_found", jobs=len(names), bytes=self.blob.total_bytes)

    def _hold(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what tenants asked for is in it
            self._shut()
            lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise storage_error(exc, f"the spool {self._folder}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(lock)
            raise AlreadyRunning(f"another edge uses the spool {self._folder}", param="spool_dir") from exc
        self._lock = lock

    def _shut(self) -> None:
        """Close a folder to others that was there and is open to them, if it is empty or was a spool before: of any
        other, somebody else may have need. Raises OSError, SettingsInvalid."""
        mode = stat.S_IMODE(self._folder.stat().st_mode)
        if not mode & 0o077:
            return
        names = os.listdir(self._folder)
        if names and LOCK not in names:
            said = f"spool_dir is {str(self._folder)!r}, which holds other files and is open to others (mode {mode:o})"
            raise SettingsInvalid(f"{said}; allowed: a folder of this edge alone, with mode 700", param="spool_dir")
        self._folder.chmod(0o700)

    async def _read_envelope(self, tenant: str, job_id: str) -> Envelope:
        """A job whose envelope is damaged is handed over without its key, as one that may have been begun."""
        try:
            return Envelope.model_validate_json(await self.blob.get(_envelope_key(tenant, job_id)))
        except (NotFound, ValidationError) as exc:
            get_logger().error("envelope_unreadable", job_id=job_id, tenant=tenant, error=str(exc).splitlines()[0])
            return Envelope(tenant=tenant, id=job_id, spooled_at_ns=self._clock.now_ns(), begun=True)

    async def _sweep(self, keys: list[str], names: set[Name]) -> None:
        """Remove those of `keys`, all of the spool's own kinds, that belong to no job."""
        inputs = {key for name in names if (key := await self._input_of(*name))}
        for key in keys:
            if not _belongs(key, names, inputs):
                await self.blob.delete(key)

    async def close(self) -> None:
        """Let go of the folder."""
        self._hashing.shutdown(wait=False)
        if self._lock is None:
            return
        try:
            await self.seen.close()
            if hasattr(self, "blob"):  # opening may have failed with the lock taken
                await self.blob.close()
        finally:
            os.close(self._lock)
            self._lock = None

    # ---- what is here -----------------------------------------------------------------------------------------

    @property
    def held(self) -> list[Envelope]:
        """The jobs here, oldest first."""
        return sorted(self._envelopes.values(), key=lambda envelope: envelope.id)

    @property
    def used_bytes(self) -> int:
        """Bytes of all that is here."""
        return self.blob.total_bytes

    @property
    def folder(self) -> Path:
        """Where all that is this edge's own is kept."""
        return self._folder

    def __len__(self) -> int:
        return len(self._envelopes)

    def ids(self, tenant: str) -> list[str]:
        """The tenant's jobs here, oldest first."""
        return sorted(job_id for held, job_id in self._envelopes if held == tenant)

    def state(self, tenant: str, job_id: str) -> State:
        """Whether the job is here, and whether the centre may have it, too."""
        envelope = self._envelopes.get((tenant, job_id))
        return "absent" if envelope is None else "begun" if envelope.begun else "spooled"

    def bound(self, tenant: str, key: str, body: str) -> str | None:
        """The id of the job that an idempotency key was used for here; raises Conflict for another body."""
        job_id, bound_body = self._keys.get((tenant, key), ("", ""))
        if job_id and bound_body != body:
            raise Conflict(f"idempotency key {key!r} was used with another body", param="idempotency_key")
        return job_id or None

    async def digest(self, key: str) -> str:
        """The SHA-256 of an object's bytes; raises NotFound."""
        data = await self.blob.get(key)
        loop = asyncio.get_running_loop()  # an upload may have megabytes
        return await loop.run_in_executor(self._hashing, lambda: hashlib.sha256(data).hexdigest())

    def lock(self, tenant: str, job_id: str) -> asyncio.Lock:
        """Held by whoever changes the job's outcome or hands it over."""
        return self._locks.setdefault((tenant, job_id), asyncio.Lock())

    def check_room(self, needed_bytes: int) -> None:
        """Raise ResourceExhausted where a job that brings so many bytes has no room."""
        jobs = len(self._envelopes) + len(self._admitted - self._envelopes.keys())
        check_room(self._limits, jobs=jobs, used_bytes=self.used_bytes, needed_bytes=needed_bytes)

    # ---- in, and out ------------------------------------------------------------------------------------------

    async def admit(self, envelope: Envelope, *, needed_bytes: int) -> None:
        """Keep a place for a job and write its envelope; `settle` ends that. Raises ResourceExhausted."""
        if envelope.name in self._envelopes:
            self._bind(envelope)
            return
        had_place, had_key = envelope.name in self._admitted, (envelope.tenant, envelope.key) in self._keys
        try:
            self.check_room(needed_bytes)
        except ResourceExhausted:
            self.on_refused()
            raise
        self._admitted.add(envelope.name)
        self._bind(envelope)
        try:
            await self.blob.put(_envelope_key(*envelope.name), envelope.encode())
        except BaseException:  # also where the caller is cancelled: nobody will settle it
            if envelope.name not in self._envelopes:  # else another attempt of the same job got through
                if not had_place:
                    self._admitted.discard(envelope.name)
                if not had_key:
                    self._unbind(envelope)
            raise

    def settle(self, envelope: Envelope) -> None:
        """The submission of an admitted job is over, well or not: with a spec it is a job of the spool."""
        self._admitted.discard(envelope.name)
        if job_key(*envelope.name, "spec") in self.blob.sizes:
            if envelope.name not in self._envelopes:
                self._keep(envelope)
                self.filled.set()
                self.on_job()
        else:
            self._unbind(envelope)

    async def begin(self, name: Name) -> None:
        """Note, durably, that the centre may have the job from now on."""
        envelope = self._envelopes[name]
        if not envelope.begun:
            begun = envelope.model_copy(update={"begun": True})
            await self.blob.put(_envelope_key(*name), begun.encode())
            self._envelopes[name] = begun

    async def remove(self, spec: JobSpec) -> None:
        """Take a job out that the centre has. Its spec goes first: what is left of it is no job."""
        name = spec.tenant, spec.id
        keys = [key for key in self.blob.sizes if _belongs(key, {name}, set()) and key != job_key(*name, "spec")]
        input_key = spec.request.reference.key if spec.request.reference is not None else ""
        await self.blob.delete(job_key(*name, "spec"))
        envelope = self._envelopes.pop(name)
        self._unbind(envelope)
        self._locks.pop(name, None)
        if input_key and input_key not in {await self._input_of(*other) for other in self._envelopes}:
            keys.append(input_key)
        try:
            for key in keys:
                await self.blob.delete(key)
        except StorageFailure as exc:  # swept at the next start
            get_logger().warning("remainder_left", job_id=spec.id, code=exc.code, error=exc.message)
        await (await self.jobs.bus.kv(JOBS_BUCKET)).delete(record_key(*name))

    async def open_drafts(self) -> list[tuple[JobSpec, JobRecord]]:
        """The open jobs here whose draft was to be made here and is not there: after a start."""
        found = []
        for envelope in self.held:
            with suppress(InternalError):  # said at the start
                spec, record = await self.jobs.spec(*envelope.name), await self.jobs.find(*envelope.name)
                if spec.decision.makes_draft and record.draft is None and not record.ended:
                    found.append((spec, record))
        return found

    def _keep(self, envelope: Envelope) -> None:
        self._envelopes[envelope.name] = envelope
        self._bind(envelope)

    def _bind(self, envelope: Envelope) -> None:
        if envelope.key:
            self._keys.setdefault((envelope.tenant, envelope.key), (envelope.id, envelope.body))

    def _unbind(self, envelope: Envelope) -> None:
        key = envelope.tenant, envelope.key
        if self._keys.get(key) == (envelope.id, envelope.body):
            del self._keys[key]

    async def _input_of(self, tenant: str, job_id: str) -> str:
        """The key of a job's upload, empty where it has none."""
        try:
            reference = (await self.jobs.spec(tenant, job_id)).request.reference
        except (NotFound, InternalError):
            return ""
        return reference.key if reference is not None else ""


def _nothing() -> None:
    """Nobody counts."""


def _envelope_key(tenant: str, job_id: str) -> str:
    return f"envelope/{tenant}.{job_id}"


def _own_kind(key: str) -> bool:
    """Whether an object is of a kind that the spool writes."""
    kind, _, rest = key.partition("/")
    try:
        check_key(key)
    except InvalidRequest:
        return False
    return kind in KINDS and bool(rest)


def _belongs(key: str, names: set[Name], inputs: set[str]) -> bool:
    """Whether an object is a part of one of these jobs, or one of these uploads."""
    kind, _, rest = key.partition("/")
    if kind in ("envelope", "pending"):
        tenant, _, job_id = rest.partition(".")
    elif kind in ("jobs", "out", "ratings"):
        tenant, _, rest = rest.partition("/")
        job_id = rest.partition("/")[0]
    else:
        return key in inputs
    return (tenant, job_id) in names
