"""What an edge does with a client's request, whatever the wire. Implements `VideoBackend`.

How a request is accepted is `accept`'s to say, plans are the scheduler's (or `alone`'s), where a video is, `sides`'.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from adaptivegen.clock import Clock
from adaptivegen.errors import Conflict, InternalError, InvalidRequest, NotFound, Unavailable
from adaptivegen.experience import Experience
from adaptivegen.ids import check_video_id
from adaptivegen.jobs.events import JobEvent
from adaptivegen.jobs.rating import rating_of
from adaptivegen.jobs.record import JobRecord, upgrade
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import Media
from adaptivegen.jobs.store import JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.placement import Decision, Placer
from adaptivegen.rpc.video import Page, Variant
from adaptivegen.telemetry import get_logger
from edge_node.accept import Acceptor
from edge_node.draft.desk import DraftDesk
from edge_node.draft.models import DraftModels
from edge_node.hub import EventHub
from edge_node.placing import EdgeIdentity as EdgeIdentity
from edge_node.placing import Placing
from edge_node.quotas import Quotas
from edge_node.sides import Partition, Sides
from edge_node.spool.rules import RETRY_S
from edge_node.versions import Versions

MAX_LIST = 100


class Videos:
    """The application service of one edge."""

    def __init__(
        self,
        *,
        identity: EdgeIdentity,
        jobs: JobStore,
        hub: EventHub,
        desk: DraftDesk,
        versions: Versions,
        drafts: DraftModels,
        placer: Placer,
        clock: Clock,
        rng: random.Random,
        max_waiting_drafts: int,
        borrows: bool,
        quotas: Quotas,
        upload_limits: UploadLimits,
        on_accepted: Callable[[JobRecord, Decision, bool], None],
        on_repeat: Callable[[JobRecord], None] = lambda record: None,
        partition: Partition | None = None,
    ) -> None:
        self._identity = identity
        self._sides = sides = Sides(jobs, partition)
        self._hub = hub
        self._desk = desk
        self._clock = clock
        self.placing = Placing(
            identity=identity,
            versions=versions,
            drafts=drafts,
            placer=placer,
            clock=clock,
            rng=rng,
            max_waiting_drafts=max_waiting_drafts,
            borrows=borrows,
            quotas=quotas,
        )
        self.acceptor = Acceptor(
            identity=identity,
            sides=sides,
            partition=partition,
            placing=self.placing,
            hub=hub,
            desk=desk,
            clock=clock,
            rng=rng,
            upload_limits=upload_limits,
            on_accepted=on_accepted,
            on_repeat=on_repeat,
        )

    @property
    def centre(self) -> JobStore:
        """Where videos are while this edge is not cut off."""
        return self._sides.centre

    async def create(
        self, tenant: str, values: Mapping[str, object], *, upload: bytes | None, idempotency_key: str | None
    ) -> JobRecord:
        """Accept a request; the job is durable when this returns. Same key and body: the same video."""
        name = values.get("model") or self._identity.default_model
        if not isinstance(name, str):
            raise InvalidRequest.field("model", name, "the name of a model")
        return await self.acceptor.create(tenant, name, values, upload=upload, key=idempotency_key)

    async def get(self, tenant: str, video_id: str) -> JobRecord:
        """The state of a video; raises NotFound."""
        return await self._sides.find(tenant, check_video_id(video_id))

    async def list(self, tenant: str, *, after: str | None, limit: int, ascending: bool) -> Page:
        """Up to `limit` videos after `after` in the order asked for."""
        if not 1 <= limit <= MAX_LIST:
            raise InvalidRequest.field("limit", limit, f"1 to {MAX_LIST}")
        ids, partial = await self._sides.ids(tenant)
        if not ascending:
            ids.reverse()
        if after is not None:
            check_video_id(after, field="after")
            ids = [name for name in ids if (name > after if ascending else name < after)]
        found = [await self._listed(tenant, name) for name in ids[:limit]]
        return Page([record for record in found if record is not None], has_more=len(ids) > limit, partial=partial)

    async def _listed(self, tenant: str, video_id: str) -> JobRecord | None:
        """The record, or None for one that cannot be read: it must not hide the others."""
        try:
            return await self._sides.find(tenant, video_id)
        except (NotFound, InternalError) as exc:
            get_logger().warning("video_not_listed", job_id=video_id, code=exc.code, error=exc.message)
            return None

    async def cancel(self, tenant: str, video_id: str) -> JobRecord:
        """End an unfinished video: its draft stops here, its final within a step wherever it runs."""
        record = await self._sides.cancel(tenant, check_video_id(video_id))
        self._desk.cancel(tenant, video_id)
        self.placing.ended(video_id)  # nobody follows what a former life has spooled
        await self.acceptor.publish("cancelled", record)
        return record

    async def delete(self, tenant: str, video_id: str) -> None:
        """Delete a video with all that is stored of it; one that is not finished is cancelled first. Once deleted it is
        not found, and deleting it again is no error. Raises NotFound for one that never was, and Unavailable where the
        centre cannot be asked, or does not have it yet."""
        async with self._sides.changing(tenant, check_video_id(video_id)) as jobs:
            if jobs is not self._sides.centre:
                waits = "waits at this edge to be handed over; it can be deleted then"
                raise Unavailable(f"video {video_id} {waits}", param="id", retry_after_s=RETRY_S)
            done = await remove(jobs, tenant, video_id)
        self._desk.forget(tenant, video_id)
        if done.cancelled is not None:
            await self.acceptor.publish("cancelled", done.cancelled)

    async def upgrade(self, tenant: str, video_id: str) -> JobRecord:
        """Ask for the final of a draft; raises Conflict where there is none to upgrade."""
        async with self._sides.changing(tenant, check_video_id(video_id)) as jobs:
            record, decision = await self._upgrade(jobs, tenant, video_id)
        if decision is not None:
            await self.acceptor.publish("queued", record)
            self.acceptor.accepted(record, decision, timed=jobs is self._sides.centre)
        return record

    async def _upgrade(self, jobs: JobStore, tenant: str, video_id: str) -> tuple[JobRecord, Decision | None]:
        """The record, and the decision where this has asked for the final."""
        record = await jobs.find(tenant, video_id)
        spec = await jobs.spec(tenant, video_id)
        if record.want_final:  # asked for before; that attempt may have died before its message was queued
            upgrade(record, plan=record.plan, eta_s=0.0, now_ns=0)  # refuses a failed or cancelled one
            return (record if record.ended else await jobs.resume(spec)), None
        upgrade(record, plan="refine", eta_s=0.0, now_ns=0)  # refuses what cannot be upgraded, before it has a place
        if record.draft is None:
            raise Conflict(f"video {video_id} has no draft yet; only a draft can be upgraded")
        models = self.placing.still(spec, record.drafted_with)
        query = self.placing.query(tenant, video_id, spec.request, models, content_known=False)
        wanted = {"requested_plan": "refine", "intent": "render", "draft_known": True, "keeps_id": True}
        query = query.model_copy(update=wanted)
        if jobs is self._sides.centre:
            decision = await self.placing.decide(query)
        else:
            decision = self.placing.alone_within_quota(query, why="cut off from broker or store")
        changes = {"decision": decision, "cloud_model": models.cloud.name, "draft_model": models.draft.name}
        if (models.cloud.name, models.draft.name) != (spec.cloud_model, spec.draft_model):  # another final, then
            changes["content_key"] = self.placing.content_key(spec.request, models)
        return await jobs.ask_final(spec.model_copy(update=changes)), decision

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

    def only_here(self, media: Media) -> bool:
        """Whether a media cache has no way to these bytes, and this edge has them."""
        return self._sides.only_here(media)

    def read(self, media: Media, *, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes [start, end), from this edge's disk where it has them, else from the object store."""
        return self._sides.blob_of(media).stream(media.key, start=start, end=media.size_bytes if end is None else end)

    async def rate(self, tenant: str, video_id: str, said: Experience) -> None:
        """Store how a person found a video; raises InvalidRequest, NotFound."""
        said.check()
        async with self._sides.changing(tenant, check_video_id(video_id)) as jobs:
            record, spec = await jobs.find(tenant, video_id), await jobs.spec(tenant, video_id)
            rating = rating_of(said, record, spec, at_ns=self._clock.now_ns())
            await jobs.blob.put(rating.key, rating.encode())
