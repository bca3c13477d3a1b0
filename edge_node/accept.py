"""How an edge accepts a request: looks it up, has it placed, makes it durable, begins its draft.

Decides the order of these, and that what cannot go to the centre goes into the spool, where the edge has one; and what
an idempotency key that this edge has seen means then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, Conflict, NotFound, ResourceExhausted
from adaptivegen.ids import check_idempotency_key, new_video_id
from adaptivegen.jobs.events import EventType, make_event
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.sharing import hold, unlist
from adaptivegen.jobs.spec import ContentEntry, Deleted, DraftManifest, JobSpec, Manifest, input_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.uploads import job_of, submit
from adaptivegen.media.upload import Target, UploadLimits, decode_upload
from adaptivegen.placement import Decision
from adaptivegen.request import GenerationRequest, Reference, parse_request
from adaptivegen.telemetry import get_logger
from edge_node.draft.desk import DraftDesk
from edge_node.hub import EventHub
from edge_node.placing import EdgeIdentity, Models, Placing
from edge_node.sides import Partition, Sides
from edge_node.spool.rules import is_cut, not_known_here, spooled_note
from edge_node.spool.spool import Envelope

MAX_CONCURRENT_UPLOADS = 2
Result = TypeVar("Result")


@dataclass(slots=True)
class Asked:
    """One request on its way in. id: the video's, an earlier attempt's where `earlier`; request: without seed and
    upload until `prepared`; models: from then on the versions that are to make it; told: the centre may have the
    job."""

    tenant: str
    id: str
    models: Models
    request: GenerationRequest
    upload: bytes | None
    key: str = ""
    body: str = ""
    earlier: bool = False
    prepared: bool = False
    start_mp4: bytes | None = None
    spec: JobSpec | None = None
    told: bool = False


class Acceptor:
    """The way in at one edge. on_accepted: is told of each accepted job, its decision, and whether its time counts from
    now; on_repeat: of each that the centre's earlier final answers."""

    def __init__(
        self,
        *,
        identity: EdgeIdentity,
        sides: Sides,
        partition: Partition | None,
        placing: Placing,
        hub: EventHub,
        desk: DraftDesk,
        clock: Clock,
        rng: random.Random,
        upload_limits: UploadLimits,
        on_accepted: Callable[[JobRecord, Decision, bool], None],
        on_repeat: Callable[[JobRecord], None],
    ) -> None:
        self._on_repeat = on_repeat
        self._identity = identity
        self._sides = sides
        self._centre = sides.centre
        self._partition = partition
        self._placing = placing
        self._hub = hub
        self._desk = desk
        self._clock = clock
        self._rng = rng
        self._upload_limits = upload_limits
        self._on_accepted = on_accepted
        self._uploads = asyncio.Semaphore(MAX_CONCURRENT_UPLOADS)
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")

    async def create(
        self, tenant: str, model: str, values: Mapping[str, object], *, upload: bytes | None, key: str | None
    ) -> JobRecord:
        """Accept a request; the job is durable when this returns. Same key and body: the same video."""
        card = self._placing.versions.stable(model)
        request = parse_request(values, card, reference=_placeholder(upload)).model_copy(update={"model": model})
        models = Models(card, self._placing.drafts.serving)
        asked = Asked(tenant, new_video_id(now_ns=self._clock.now_ns(), rng=self._rng), models, request, upload)
        if key is not None:
            loop = asyncio.get_running_loop()  # an upload may have megabytes
            asked.key = check_idempotency_key(key)
            asked.body = await loop.run_in_executor(self._hashing, _body_digest, values, upload)
        held = self._partition
        if held is None:
            return await self._at_centre(asked)
        if asked.key and held.spool.bound(tenant, asked.key, asked.body) is not None:
            return await self._here(asked, held, why=held.reach.why)
        why = held.reach.why
        if not held.reach.cut_off:
            try:
                return await self._at_centre(asked)
            except AdaptiveGenError as exc:
                if not is_cut(exc):
                    raise
                why = exc.code
                get_logger().warning("centre_not_reached", job_id=asked.id, code=exc.code, error=exc.message)
        return await self._here(asked, held, why=why)

    async def _call(self, work: Awaitable[Result]) -> Result:
        """A call of the centre: with a spool to fall back on, within a bound."""
        return await (work if self._partition is None else self._partition.reach.call(work))

    async def _prepare(self, asked: Asked) -> None:
        """Decode the upload in a child, draw the seed: once, wherever the job goes then."""
        if asked.prepared:
            return
        if asked.upload is not None:
            asked.request, asked.start_mp4 = await self._decode(asked.tenant, asked.request, asked.upload)
        if asked.request.seed is None:
            asked.request = asked.request.model_copy(update={"seed": self._rng.getrandbits(63)})
        asked.models = self._placing.models(asked.request, asked.tenant)
        asked.prepared = True

    async def _decode(self, tenant: str, request: GenerationRequest, upload: bytes) -> tuple[GenerationRequest, bytes]:
        """The decoded clip; the original is not kept."""
        if self._uploads.locked():
            raise ResourceExhausted(f"{MAX_CONCURRENT_UPLOADS} uploads are being decoded", retry_after_s=1.0)
        target = Target(width=request.width, height=request.height, frames=request.frames, fps=request.fps)
        async with self._uploads:
            decoded = await decode_upload(upload, target, limits=self._upload_limits)
        sha256 = hashlib.sha256(decoded.mp4).hexdigest()
        reference = Reference(kind=decoded.kind, sha256=sha256, key="")
        return request.model_copy(update={"reference": reference}), decoded.mp4

    async def _put_upload(self, asked: Asked, jobs: JobStore) -> None:
        """Store the decoded upload as the job's own, under one key wherever this attempt goes."""
        reference = asked.request.reference
        if asked.start_mp4 is None or reference is None:
            return
        if job_of(reference.key) != (asked.tenant, asked.id):
            key = input_key(asked.tenant, asked.id, reference.sha256, now_ns=self._clock.now_ns())
            reference = reference.model_copy(update={"key": key})
            asked.request = asked.request.model_copy(update={"reference": reference})
        await jobs.blob.put(reference.key, asked.start_mp4)

    def _content_key(self, asked: Asked) -> str:
        return self._placing.content_key(asked.request, asked.models)

    # ---- at the centre ----------------------------------------------------------------------------------------

    async def _at_centre(self, asked: Asked) -> JobRecord:
        jobs, tenant = self._centre, asked.tenant
        if asked.key and (met := await self._reserve(asked)) is not None:
            return met
        await self._prepare(asked)
        key = self._content_key(asked)
        decision, known = await self._decided(asked, key)
        await self._keep_key(asked, asked.id)  # not before: who is refused may send it again, also in a cut
        if known is None:
            await self._call(self._hub.open(tenant, asked.id))  # first: who is refused here leaves nothing behind
            await self._call(self._put_upload(asked, jobs))  # a repeat has no use for its upload
        spec = asked.spec = self._placing.spec(tenant, asked.request, asked.models, key, decision)
        if known is not None:
            asked.told = True
            record = await self._call(self._hit(jobs, spec, known))
            self._on_repeat(record)
            if self._partition is not None:
                self._partition.known.want(tenant, key, known, jobs.blob)
            return record
        asked.told = True
        spec, record = await self._call(submit(jobs, spec))
        return await self._begun(spec, record, asked.start_mp4, timed=True)

    async def _decided(self, asked: Asked, key: str) -> tuple[Decision, ContentEntry | None]:
        """The decision, and the final that the video is answered with where that is a hit: it is held from then on.
        One whose last video is being deleted is as good as none."""
        jobs, tenant = self._centre, asked.tenant
        known = await self._call(jobs.content(tenant, key))
        decision = await self._decide(asked, content_known=known is not None)
        if known is None or decision.plan != "hit":
            return decision, None
        if await self._call(hold(jobs, tenant, asked.id, known.final)):
            return decision, known
        await self._call(unlist(jobs, tenant, key, known.id))
        return await self._decide(asked, content_known=False), None

    async def _decide(self, asked: Asked, *, content_known: bool) -> Decision:
        query = self._placing.query(asked.tenant, asked.id, asked.request, asked.models, content_known=content_known)
        return await self._placing.decide(query.model_copy(update={"keeps_id": bool(asked.key)}))

    async def _reserve(self, asked: Asked) -> JobRecord | None:
        """Bind the key; the record where an earlier attempt has the job already, None where the job is to be made."""
        jobs, mine = self._centre, asked.id
        held = await self._call(jobs.reserve(tenant=asked.tenant, key=asked.key, job_id=mine, body_digest=asked.body))
        if held == mine:
            return None
        await self._keep_key(asked, held)
        asked.id, asked.earlier = held, True
        try:
            spec = await self._call(jobs.spec(asked.tenant, held))
        except Deleted as exc:  # sent again after that: nothing brings the video back
            said = f"idempotency key {asked.key!r} is of video {held}, which was deleted; use another"
            raise Conflict(said, param="idempotency_key") from exc
        except NotFound:  # the first attempt died before it was durable, or is under way: whoever writes the spec first
            asked.earlier = False  # decides, and the other goes on with that
            return None
        return await self._start(spec, await self._call(jobs.resume(spec)), None, timed=False)

    async def _keep_key(self, asked: Asked, held: str) -> None:
        """Remember whose a key is, before anybody is told of the video."""
        if asked.key and self._partition is not None:
            await self._partition.spool.seen.keep(asked.tenant, asked.key, held, asked.body)

    async def _hit(self, jobs: JobStore, spec: JobSpec, known: ContentEntry) -> JobRecord:
        """Answer with an earlier final: a job that is complete as soon as it exists, and never queued."""
        now_ns = self._clock.now_ns()
        manifest = Manifest(
            id=spec.id,
            tenant=spec.tenant,
            outcome="completed",
            epoch=0,
            finished_at_ns=now_ns,
            final=known.final,
            plan="hit",
            cached=True,
            notes=(f"the same request was rendered as {known.id}",),
        )
        draft = DraftManifest(media=known.draft, steps=0, completed_at_ns=now_ns) if known.draft else None
        record = await jobs.record_hit(spec, draft, manifest)
        get_logger().info("job_hit", job_id=spec.id, of=known.id)
        return record

    # ---- in the spool -----------------------------------------------------------------------------------------

    async def _here(self, asked: Asked, held: Partition, *, why: str) -> JobRecord:
        """Keep the job here until the centre is back. Raises ResourceExhausted where there is no room, Unavailable for
        a key whose job this edge knows of and cannot read."""
        for prepared in (False, True):  # while an upload is decoded the job of an earlier attempt may come, or go on
            if prepared:
                await self._prepare(asked)
            earlier = await self._earlier(asked, held)
            if earlier is not None:
                return earlier
        async with held.spool.lock(asked.tenant, asked.id):  # it is not handed over before its draft is begun
            return await self._keep(asked, held, why=why)

    async def _earlier(self, asked: Asked, held: Partition) -> JobRecord | None:
        """The job of an earlier attempt with the same key, where this edge knows of one."""
        seen = held.spool.seen.find(asked.tenant, asked.key) if asked.key else None
        if seen is not None and seen.body != asked.body:
            raise Conflict(f"idempotency key {asked.key!r} was used with another body", param="idempotency_key")
        if asked.earlier or (seen is not None and seen.id != asked.id):
            first_id = seen.id if seen is not None else asked.id
            try:
                return await self._sides.find(asked.tenant, first_id)
            except NotFound as exc:
                raise not_known_here(first_id, exc.code) from exc
        bound = held.spool.bound(asked.tenant, asked.key, asked.body) if asked.key and not asked.told else None
        if bound is not None:
            if held.spool.state(asked.tenant, bound) != "absent":
                return await self._sides.find(asked.tenant, bound)
            asked.id, asked.spec = bound, None  # another of this key is on its way in: the first spec decides
        return None

    async def _keep(self, asked: Asked, held: Partition, *, why: str) -> JobRecord:
        """Take it into the spool, and start on it. Raises QuotaExceeded, PermissionDenied, ResourceExhausted."""
        known = await held.known.find(asked.tenant, self._content_key(asked))
        decision = self._alone(asked, known is not None, why=why)
        envelope = Envelope(
            tenant=asked.tenant,
            id=asked.id,
            key=asked.key,
            body=asked.body,
            why=why,
            spooled_at_ns=self._clock.now_ns(),
            begun=asked.told,
        )
        await held.spool.admit(envelope, needed_bytes=len(asked.start_mp4 or b""))
        try:
            spec, record = await self._spool(asked, held, known, decision, why=why)
        finally:
            held.spool.settle(envelope)
        get_logger().info("job_spooled", job_id=spec.id, plan=spec.decision.plan, why=why, jobs=len(held.spool))
        if record.ended:
            return record
        try:
            await self._hub.moved(spec.tenant, spec.id)
            await self._hub.open(spec.tenant, spec.id)
        except ResourceExhausted as exc:  # the job is accepted: its streams may find a place later
            get_logger().warning("events_not_kept", job_id=spec.id, error=exc.message)
        return await self._begun(spec, record, asked.start_mp4, timed=False)

    def _alone(self, asked: Asked, known: bool, *, why: str) -> Decision:
        """This edge's own decision. What the centre may have already was admitted there."""
        tenant, placing = asked.tenant, self._placing
        query = placing.query(tenant, asked.id, asked.request, asked.models, content_known=known)
        reason = f"cut off from broker or store ({why})"
        if known:
            return placing.known(query, why=reason)
        decide = placing.alone if asked.spec is not None else placing.alone_within_quota
        return decide(query, why=reason)

    async def _spool(
        self, asked: Asked, held: Partition, known: ContentEntry | None, decision: Decision, *, why: str
    ) -> tuple[JobSpec, JobRecord]:
        jobs, tenant = held.spool.jobs, asked.tenant
        await self._put_upload(asked, jobs)
        key = self._content_key(asked)
        spec = asked.spec or self._placing.spec(tenant, asked.request, asked.models, key, decision)
        changes = {"decision": decision, "want_final": decision.plan != "draft"}
        spec = spec.model_copy(update={**changes, "notes": (*spec.notes, spooled_note(self._identity.node_id, why))})
        if known is not None:
            return spec, await self._hit(jobs, spec, known)
        return await submit(jobs, spec)

    # ---- then -------------------------------------------------------------------------------------------------

    async def _begun(self, spec: JobSpec, record: JobRecord, start_mp4: bytes | None, *, timed: bool) -> JobRecord:
        """Say that a job was accepted, and start on it."""
        self._note(record, spec.decision)
        await self.publish("queued", record)
        get_logger().info("job_accepted", job_id=spec.id, plan=spec.decision.plan, decided_by=spec.decision.decided_by)
        return await self._start(spec, record, start_mp4, timed=timed)

    async def _start(self, spec: JobSpec, record: JobRecord, start_mp4: bytes | None, *, timed: bool) -> JobRecord:
        """Begin the draft of a durable job where it is this edge's to make and not made yet, and follow the job.

        timed: it was submitted just now, and its final does not wait in a spool.
        """
        mine = spec.decision.edge_id == self._identity.node_id and spec.decision.makes_draft
        if mine and record.draft is None and not record.ended:
            await self.begin_draft(spec, record, start_mp4)
        self._on_accepted(record, spec.decision, timed)
        return record

    async def begin_draft(self, spec: JobSpec, record: JobRecord, start_mp4: bytes | None = None) -> None:
        """Start the draft of a durable job; its upload is read where it is not given."""
        if start_mp4 is None and spec.request.reference is not None:
            start_mp4 = await self._sides.of(spec.tenant, spec.id).blob.get(spec.request.reference.key)
        self._desk.begin(spec, record, start_mp4)

    def _note(self, record: JobRecord, decision: Decision) -> None:
        """What was decided here counts for its tenant's quota."""
        here = self._sides.of(record.tenant, record.id) is not self._centre
        self._placing.accepted(record.tenant, record.id, decision, here=here)

    def accepted(self, record: JobRecord, decision: Decision, *, timed: bool) -> None:
        """A job goes on by a new decision."""
        self._note(record, decision)
        self._on_accepted(record, decision, timed)

    async def handed(self, envelope: Envelope, spec: JobSpec, record: JobRecord) -> None:
        """The centre has a job that was spooled here: its watchers hear of it there."""
        self._placing.handed(envelope.id)
        await self._hub.moved(spec.tenant, spec.id)
        if not record.ended:
            await self.publish("queued", record)

    async def publish(self, kind: EventType, record: JobRecord) -> None:
        """Tell an event of this edge."""
        now_ns = self._clock.now_ns()
        await self._hub.publish(make_event(kind, record, producer=self._identity.node_id, now_ns=now_ns))


def _placeholder(upload: bytes | None) -> Reference | None:
    """Stands for an upload while the other fields are checked: nobody's CPU is spent on a request that is refused."""
    return Reference(kind="video", sha256="", key="") if upload is not None else None


def _body_digest(values: Mapping[str, object], upload: bytes | None) -> str:
    """What an idempotency key is bound to."""
    text = json.dumps(dict(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode() + b"\0" + (upload or b"")).hexdigest()
