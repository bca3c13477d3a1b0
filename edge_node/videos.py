"""What an edge does with a client's request, whatever the wire: validate, look up, place, make durable, draft, deliver.

Decides the order of these and nothing about plans (the scheduler does, or `alone`). Implements `VideoBackend`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Conflict,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ResourceExhausted,
)
from adaptivegen.experience import Experience
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.ids import check_idempotency_key, check_video_id, new_token, new_video_id
from adaptivegen.jobs.events import JobEvent, make_event
from adaptivegen.jobs.rating import rating_of
from adaptivegen.jobs.record import JobRecord, upgrade
from adaptivegen.jobs.spec import ContentEntry, DraftManifest, JobSpec, Manifest, Media, input_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.media.upload import Target, UploadLimits, decode_upload
from adaptivegen.models.card import ModelCard
from adaptivegen.placement import Decision, PlacementQuery, Placer, on_query, refusal_of
from adaptivegen.request import GenerationRequest, Reference, content_key, parse_request
from adaptivegen.rpc.video import Variant
from adaptivegen.telemetry import carry, get_logger
from edge_node.alone import decide_alone
from edge_node.draft.desk import DraftDesk
from edge_node.hub import EventHub
from edge_node.versions import Versions

MAX_LIST = 100
MAX_CONCURRENT_UPLOADS = 2


@dataclass(frozen=True, slots=True)
class EdgeIdentity:
    """Who this edge is and what it offers."""

    node_id: str
    grpc_address: str
    pool: str
    default_model: str


class Videos:
    """The application service of one edge."""

    def __init__(
        self,
        *,
        identity: EdgeIdentity,
        jobs: JobStore,
        hub: EventHub,
        desk: DraftDesk,
        runner: ModelRunner,
        draft_card: ModelCard,
        versions: Versions,
        placer: Placer,
        clock: Clock,
        rng: random.Random,
        max_waiting_drafts: int,
        borrows: bool,
        upload_limits: UploadLimits,
        on_accepted: Callable[[JobRecord, Decision, bool], None],
    ) -> None:
        self._identity = identity
        self._jobs = jobs
        self._hub = hub
        self._desk = desk
        self._runner = runner
        self._draft_card = draft_card
        self._versions = versions
        self._placer = placer
        self._clock = clock
        self._rng = rng
        self._max_waiting_drafts = max_waiting_drafts
        self._borrows = borrows
        self._upload_limits = upload_limits
        self._on_accepted = on_accepted
        self._uploads = asyncio.Semaphore(MAX_CONCURRENT_UPLOADS)
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")

    # ---- create -----------------------------------------------------------------------------------------------

    async def create(
        self, tenant: str, values: Mapping[str, object], *, upload: bytes | None, idempotency_key: str | None
    ) -> JobRecord:
        """Accept a request; the job is durable when this returns. Same key and body: the same video."""
        line = self._model_name(values)
        stable = self._versions.stable(line)
        request = parse_request(values, stable, reference=_placeholder(upload)).model_copy(update={"model": line})
        job_id = new_video_id(now_ns=self._clock.now_ns(), rng=self._rng)
        if idempotency_key is not None:
            loop = asyncio.get_running_loop()  # an upload may have megabytes
            body = await loop.run_in_executor(self._hashing, _body_digest, values, upload)
            held = await self._jobs.reserve(
                tenant=tenant, key=check_idempotency_key(idempotency_key), job_id=job_id, body_digest=body
            )
            if held != job_id:
                job_id = held
                try:
                    spec = await self._jobs.spec(tenant, job_id)
                except NotFound:  # the first attempt died before it was durable, or is under way: whoever writes the
                    pass  # spec first decides, and the other goes on with that
                else:
                    return await self._start(spec, await self._jobs.resume(spec), None, fresh=False)
        start_mp4 = None
        if upload is not None:
            request, start_mp4 = await self._take_upload(tenant, request, upload)
        if request.seed is None:
            request = request.model_copy(update={"seed": self._rng.getrandbits(63)})
        card = self._versions.of(request)
        key = content_key(request, cloud_digest=card.digest, draft_digest=self._draft_card.digest)
        known = await self._jobs.content(tenant, key)
        query = self._query(tenant, job_id, request, card, content_known=known is not None)
        query = query.model_copy(update={"keeps_id": idempotency_key is not None})
        spec = self._spec(tenant, request, card, key, await self._decide(query, card))
        if spec.decision.plan == "hit" and known is not None:
            return await self._hit(spec, known)
        return await self._submit(spec, start_mp4)

    def _model_name(self, values: Mapping[str, object]) -> str:
        name = values.get("model") or self._identity.default_model
        if not isinstance(name, str):
            raise InvalidRequest.field("model", name, "the name of a model")
        return name

    async def _take_upload(
        self, tenant: str, request: GenerationRequest, upload: bytes
    ) -> tuple[GenerationRequest, bytes]:
        """Decode an upload in a child and keep the decoded clip; the original is not kept."""
        if self._uploads.locked():
            raise ResourceExhausted(f"{MAX_CONCURRENT_UPLOADS} uploads are being decoded", retry_after_s=1.0)
        target = Target(width=request.width, height=request.height, frames=request.frames, fps=request.fps)
        async with self._uploads:
            decoded = await decode_upload(upload, target, limits=self._upload_limits)
        sha256 = hashlib.sha256(decoded.mp4).hexdigest()
        reference = Reference(kind=decoded.kind, sha256=sha256, key=input_key(tenant, sha256))
        await self._jobs.blob.put(reference.key, decoded.mp4)
        return request.model_copy(update={"reference": reference}), decoded.mp4

    def _can_draft(self) -> bool:
        return self._runner.ready and self._runner.queued < self._max_waiting_drafts

    def _query(
        self, tenant: str, job_id: str, request: GenerationRequest, card: ModelCard, *, content_known: bool
    ) -> PlacementQuery:
        return PlacementQuery(
            job_id=job_id,
            tenant=tenant,
            edge_id=self._identity.node_id,
            intent=request.intent,
            draft_model=self._draft_card.name,
            cloud_model=card.name,
            width=request.width,
            height=request.height,
            frames=request.frames,
            final_steps=request.steps or 0,
            content_known=content_known,
            has_reference=request.reference is not None,
            requested_plan=request.plan,
            session=request.session,
            draft_digest=self._draft_card.digest if self._borrows else "",
            tier=request.service_tier,
            deadline_s=request.deadline_s,
            allow_reduced=request.allow_reduced,
        )

    async def _decide(self, query: PlacementQuery, cloud_card: ModelCard) -> Decision:
        """Ask the scheduler; when none answers in time, or with anything but a decision on this job, decide alone.

        Only what the client did wrong is the client's to hear, and a refusal: raises its error."""
        try:
            decision = on_query(await self._placer.place(query), query)
        except (InvalidRequest, ModelNotFound):
            raise
        except AdaptiveGenError as exc:
            get_logger().warning("deciding_alone", job_id=query.job_id, code=exc.code, error=exc.message)
            return decide_alone(
                query,
                draft_card=self._draft_card,
                cloud_card=cloud_card,
                can_draft=self._can_draft(),
                pool=self._identity.pool,
                why=f"no scheduler answered ({exc.message})",
                now_ns=self._clock.now_ns(),
            )
        if (refusal := refusal_of(decision)) is not None:
            get_logger().info("refused", job_id=query.job_id, tenant=query.tenant, code=refusal.code)
            raise refusal
        return decision

    def _spec(self, tenant: str, request: GenerationRequest, card: ModelCard, key: str, decision: Decision) -> JobSpec:
        return JobSpec(
            id=decision.job_id,
            tenant=tenant,
            created_at_ns=self._clock.now_ns(),
            request=request,
            content_key=key,
            draft_model=self._draft_card.name,
            cloud_model=card.name,
            draft_steps=self._draft_card.limits.steps_default,
            decision=decision,
            edge_grpc_address=self._identity.grpc_address,
            draft_token=new_token(prefix="dt", rng=self._rng, bits=160),
            want_final=decision.plan != "draft",
            trace=carry(),
        )

    async def _submit(self, spec: JobSpec, start_mp4: bytes | None) -> JobRecord:
        await self._hub.open(spec.tenant, spec.id)
        spec, record = await self._jobs.submit(spec)
        await self._publish("queued", record)
        get_logger().info("job_accepted", job_id=spec.id, plan=spec.decision.plan, decided_by=spec.decision.decided_by)
        return await self._start(spec, record, start_mp4, fresh=True)

    async def _start(self, spec: JobSpec, record: JobRecord, start_mp4: bytes | None, *, fresh: bool) -> JobRecord:
        """Begin the draft of a durable job where it is this edge's to make and not made yet, and follow the job.

        fresh: it was submitted just now, and not met again.
        """
        mine = spec.decision.edge_id == self._identity.node_id and spec.decision.makes_draft
        if mine and record.draft is None and not record.ended:
            if start_mp4 is None and spec.request.reference is not None:
                start_mp4 = await self._jobs.blob.get(spec.request.reference.key)
            self._desk.begin(spec, record, start_mp4)
        self._on_accepted(record, spec.decision, fresh)
        return record

    async def _hit(self, spec: JobSpec, known: ContentEntry) -> JobRecord:
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
        record = await self._jobs.record_hit(spec, draft, manifest)
        get_logger().info("job_hit", job_id=spec.id, of=known.id)
        return record

    # ---- the rest ---------------------------------------------------------------------------------------------

    async def get(self, tenant: str, video_id: str) -> JobRecord:
        """The state of a video; raises NotFound."""
        return await self._jobs.find(tenant, check_video_id(video_id))

    async def list(
        self, tenant: str, *, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[JobRecord], bool]:
        """Up to `limit` videos after `after` in the order asked for, and whether there are more."""
        if not 1 <= limit <= MAX_LIST:
            raise InvalidRequest.field("limit", limit, f"1 to {MAX_LIST}")
        ids = await self._jobs.index.ids(tenant)
        if not ascending:
            ids.reverse()
        if after is not None:
            check_video_id(after, field="after")
            ids = [name for name in ids if (name > after if ascending else name < after)]
        found = [await self._listed(tenant, name) for name in ids[:limit]]
        return [record for record in found if record is not None], len(ids) > limit

    async def _listed(self, tenant: str, video_id: str) -> JobRecord | None:
        """The record, or None for one that cannot be read: it must not hide the others."""
        try:
            return await self._jobs.find(tenant, video_id)
        except (NotFound, InternalError) as exc:
            get_logger().warning("video_not_listed", job_id=video_id, code=exc.code, error=exc.message)
            return None

    async def cancel(self, tenant: str, video_id: str) -> JobRecord:
        """End an unfinished video: its draft stops here, its final within a step wherever it runs."""
        record = await self._jobs.cancel(tenant, check_video_id(video_id))
        self._desk.cancel(tenant, video_id)
        await self._publish("cancelled", record)
        return record

    async def upgrade(self, tenant: str, video_id: str) -> JobRecord:
        """Ask for the final of a draft; raises Conflict where there is none to upgrade."""
        record = await self._jobs.find(tenant, check_video_id(video_id))
        spec = await self._jobs.spec(tenant, video_id)
        if record.want_final:  # asked for before; that attempt may have died before its message was queued
            upgrade(record, plan=record.plan, eta_s=0.0, now_ns=0)  # refuses a failed or cancelled one
            return record if record.ended else await self._jobs.resume(spec)
        upgrade(record, plan="refine", eta_s=0.0, now_ns=0)  # refuses what cannot be upgraded, before it has a place
        if record.draft is None:
            raise Conflict(f"video {video_id} has no draft yet; only a draft can be upgraded")
        card = self._versions.still(spec.request.model, spec.cloud_model)
        query = self._query(tenant, video_id, spec.request, card, content_known=False)
        wanted = {"requested_plan": "refine", "intent": "render", "draft_known": True, "keeps_id": True}
        decision = await self._decide(query.model_copy(update=wanted), card)
        record = await self._jobs.ask_final(spec.model_copy(update={"decision": decision}))
        await self._publish("queued", record)
        self._on_accepted(record, decision, True)
        return record

    def watch(self, tenant: str, video_id: str, *, after: str | None) -> AsyncIterator[JobEvent]:
        """Events of a video until it ends; raises NotFound when first read."""
        return self._hub.watch(tenant, check_video_id(video_id), after=after)

    def stream(self, tenant: str, video_id: str, *, after: str | None) -> AsyncGenerator[JobEvent | None, None]:
        """As `watch`, with None in every quiet while, so that a stream can show that it lives."""
        return self._hub.stream(tenant, check_video_id(video_id), after=after)

    async def media(self, tenant: str, video_id: str, variant: Variant) -> Media:
        """Where a variant's bytes are; raises Conflict while they are not there yet."""
        record = await self.get(tenant, video_id)
        media = record.final if variant == "video" else record.draft
        if media is None:
            name = "final" if variant == "video" else "draft"
            raise Conflict(f"video {video_id} is {record.status} and has no {name} yet", param="variant")
        return media

    def read(self, media: Media, *, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes [start, end) from the object store."""
        return self._jobs.blob.stream(media.key, start=start, end=media.size_bytes if end is None else end)

    async def rate(self, tenant: str, video_id: str, said: Experience) -> None:
        """Store how a person found a video; raises InvalidRequest, NotFound."""
        said.check()
        record = await self.get(tenant, video_id)
        rating = rating_of(said, record, await self._jobs.spec(tenant, video_id), at_ns=self._clock.now_ns())
        await self._jobs.blob.put(rating.key, rating.encode())

    async def _publish(self, kind: str, record: JobRecord) -> None:
        event = make_event(
            "queued" if kind == "queued" else "cancelled",
            record,
            producer=self._identity.node_id,
            now_ns=self._clock.now_ns(),
        )
        await self._hub.publish(event)


def _placeholder(upload: bytes | None) -> Reference | None:
    """Stands for an upload while the other fields are checked: nobody's CPU is spent on a request that is refused."""
    return Reference(kind="video", sha256="", key="") if upload is not None else None


def _body_digest(values: Mapping[str, object], upload: bytes | None) -> str:
    """What an idempotency key is bound to."""
    text = json.dumps(dict(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode() + b"\0" + (upload or b"")).hexdigest()
