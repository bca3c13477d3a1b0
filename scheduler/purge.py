"""Purges that operators order: which videos are meant, batch by batch, and what is done with each.

Keeps nothing between two batches: where one ended is its answer, and whoever goes on says so. A scheduler that dies in
the middle of one leaves deletions that the sweep completes, and the batch can be asked for again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound, Unavailable
from adaptivegen.ids import check_name, check_sha256, check_video_id, made_at_ns
from adaptivegen.jobs import purges
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import JobSpec, Media, owner_of
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.uploads import uploads_of
from adaptivegen.models.card import ModelCard
from adaptivegen.rpc.admin_rows import LONGEST_AGE_S, Purged, PurgeOrder
from adaptivegen.telemetry import get_logger
from scheduler.numbered import check_reason

DEFAULT_BATCH, MAX_BATCH, MAX_IDS = 200, 1000, 500
MAX_EXAMINED = 5000  # jobs of one batch
BATCH_S = 5.0  # after which no more is begun in it
_DIGEST = re.compile(r"[0-9a-f]{64}")
Kind = Literal["caches", "videos"]
Name = tuple[str, str]  # tenant, id


class Purger:
    """Carries out one batch at a time. cards: of the models that are known here, by name."""

    def __init__(self, jobs: JobStore, cards: Callable[[], Mapping[str, ModelCard]], *, clock: Clock) -> None:
        self._jobs = jobs
        self._cards = cards
        self._clock = clock

    def check(self, order: PurgeOrder) -> PurgeOrder:
        """The order, with its defaults; raises InvalidRequest, also where nothing is said of which videos."""
        if not (order.ids or order.tenant or order.content_key or order.model or order.older_than_s is not None):
            raise InvalidRequest("say which videos: ids, tenant, content_key, model or older_than_s", param="ids")
        if len(order.ids) > MAX_IDS:
            raise InvalidRequest.field("ids", f"{len(order.ids)} ids", f"at most {MAX_IDS}")
        for job_id in order.ids:
            check_video_id(job_id, field="ids")
        for field, value in (("tenant", order.tenant), ("model", order.model)):
            if value and not (field == "model" and _DIGEST.fullmatch(value)):
                check_name(value, field=field)
        if order.content_key:
            check_sha256(order.content_key, field="content_key")
        if order.older_than_s is not None and not 0 <= order.older_than_s <= LONGEST_AGE_S:
            raise InvalidRequest.field("older_than_s", order.older_than_s, f"0 to {LONGEST_AGE_S:.0f}")
        if order.after:
            check_video_id(order.after, field="after")
        if not 0 <= order.limit <= MAX_BATCH:
            raise InvalidRequest.field("limit", order.limit, f"0 (the default, {DEFAULT_BATCH}) to {MAX_BATCH}")
        check_reason(order.reason)
        self._models(order)
        return order

    def _models(self, order: PurgeOrder) -> frozenset[str]:
        """Names of the versions that are meant; raises InvalidRequest for a digest that no model here has."""
        if not _DIGEST.fullmatch(order.model):
            return frozenset(filter(None, (order.model,)))
        names = frozenset(name for name, card in self._cards().items() if card.digest == order.model)
        if not names:
            raise InvalidRequest.field("model", order.model, "a name, or the digest of a model that is known here")
        return names

    async def run(self, order: PurgeOrder, kind: Kind, *, by: str) -> Purged:
        """One batch of a checked order. Unknown ids are passed over. Raises BrokerUnavailable, a storage error,
        and Unavailable while not every video is listed: those would be missed."""
        began_s, limit = self._clock.monotonic_s(), order.limit or DEFAULT_BATCH
        await self._check_complete()
        candidates, models = await self._candidates(order), self._models(order)
        await self._check_complete()  # the broker may have lost the list while it was read
        examined = videos = freed_bytes = failed = 0
        while examined < min(len(candidates), MAX_EXAMINED) and videos + failed < limit:
            if examined and self._clock.monotonic_s() - began_s > BATCH_S:
                break
            some = candidates[examined : examined + min(AT_ONCE, limit - videos - failed)]
            examined += len(some)
            matching = [name for name in await read_all(some, lambda name: self._match(name, order, models)) if name]
            done = await self._purge(matching, kind, order, by=by)
            videos += sum(1 for size in done if size is not None)
            failed += sum(1 for size in done if size is None)
            freed_bytes += sum(size or 0 for size in done)
        last = candidates[examined - 1][1] if 0 < examined < len(candidates) else ""
        return Purged(examined, videos, freed_bytes, failed, last)

    async def _check_complete(self) -> None:
        if not await self._jobs.index.complete():
            raise Unavailable(
                "videos are being listed anew, so that some would be missed; try again", retry_after_s=10.0
            )

    async def _candidates(self, order: PurgeOrder) -> list[Name]:
        """Jobs that may be meant, oldest first, without a look at them."""
        index = self._jobs.index
        if order.tenant:
            names = [(order.tenant, job_id) for job_id in await index.ids(order.tenant)]
        else:
            names = await index.tenants_and_ids()
        if order.ids:
            wanted = set(order.ids)
            names = [name for name in names if name[1] in wanted]
            missing = wanted - {job_id for _, job_id in names}
            if missing and not order.after:
                get_logger().info("not_purged_unknown", ids=sorted(missing)[:20], missing=len(missing))
        if order.older_than_s is not None:
            before_ns = self._clock.now_ns() - round(order.older_than_s * 1e9)
            names = [name for name in names if made_at_ns(name[1]) <= before_ns]
        return [name for name in names if name[1] > order.after]

    async def _match(self, name: Name, order: PurgeOrder, models: frozenset[str]) -> Name | None:
        """The name where the job is meant; None where it is not, or is gone."""
        if not (order.content_key or models):
            return name
        try:
            spec = await self._jobs.spec(*name)
            if order.content_key and spec.content_key != order.content_key:
                return None
            if models and models.isdisjoint(_made_with(spec, await self._jobs.find(*name))):
                return None
        except NotFound:
            return None
        except AdaptiveGenError as exc:
            get_logger().warning("not_examined", job_id=name[1], tenant=name[0], code=exc.code, error=exc.message)
            return None
        return name

    async def _purge(self, names: Sequence[Name], kind: Kind, order: PurgeOrder, *, by: str) -> list[int | None]:
        """Bytes of each, None where it failed."""
        if kind == "videos" and not order.dry_run:
            return await read_all(names, lambda name: self._delete(name, by=by))
        found = await read_all(names, self._record)
        if kind == "caches" and not order.dry_run:
            await self._forget([record for record in found if record is not None])
        sizes: list[int | None] = []
        for record in found:
            clips = _clips(record) if record is not None else []
            own = [clip for clip in clips if kind == "caches" or (record and owner_of(clip) == record.id)]
            sizes.append(sum(clip.size_bytes for clip in own) if record is not None else None)
        if kind == "videos":
            uploaded = await read_all(names, self._uploaded)
            both = zip(sizes, uploaded, strict=True)
            sizes = [size + more if size is not None and more is not None else None for size, more in both]
        return sizes

    async def _uploaded(self, name: Name) -> int | None:
        """Bytes of the uploads that go with a video; None where they cannot be listed."""
        try:
            return sum(meta.size_bytes for meta in await uploads_of(self._jobs, *name))
        except AdaptiveGenError as exc:
            get_logger().warning("not_purged", job_id=name[1], tenant=name[0], code=exc.code, error=exc.message)
            return None

    async def _delete(self, name: Name, *, by: str) -> int | None:
        try:
            return (await remove(self._jobs, *name, by=by)).freed_bytes
        except NotFound:
            return 0  # its tenant was faster
        except AdaptiveGenError as exc:
            get_logger().warning("not_purged", job_id=name[1], tenant=name[0], code=exc.code, error=exc.message)
            return None

    async def _record(self, name: Name) -> JobRecord | None:
        try:
            return await self._jobs.find(*name)
        except AdaptiveGenError as exc:
            get_logger().warning("not_purged", job_id=name[1], tenant=name[0], code=exc.code, error=exc.message)
            return None

    async def _forget(self, records: Sequence[JobRecord]) -> None:
        """Have the caches let go of these, also those that do not hear it now."""
        shas = {clip.sha256 for record in records for clip in _clips(record)}
        await purges.note(self._jobs.blob, shas, clock=self._clock)
        for tenant in sorted({record.tenant for record in records}):
            own = [record for record in records if record.tenant == tenant]
            digests = tuple(sorted({clip.sha256 for record in own for clip in _clips(record)}))
            videos = tuple(record.id for record in own)
            await purges.tell(self._jobs.bus, purges.Purge(tenant=tenant, videos=videos, sha256=digests))


def told(done: Purged) -> str:
    """What the audit log says of a batch."""
    rest = f", {done.failed} failed" if done.failed else ""
    return f"done: {done.videos} videos, {done.bytes} bytes{rest}{', more to come' if done.next else ''}"


def target(order: PurgeOrder) -> str:
    """What the audit log says was meant."""
    age = f"older than {order.older_than_s:g} s" if order.older_than_s is not None else ""
    what = (order.tenant, order.content_key, order.model, age, f"{len(order.ids)} ids" if order.ids else "")
    return ", ".join(filter(None, what))


def _made_with(spec: JobSpec, record: JobRecord) -> set[str]:
    """The versions that made what is there of a video; jobs of before say only which were to."""
    draft = record.drafted_with or spec.draft_model
    final = record.made_with or spec.cloud_model
    return {name for name, clip in ((draft, record.draft), (final, record.final)) if clip is not None}


def _clips(record: JobRecord) -> list[Media]:
    return [clip for clip in (record.draft, record.final) if clip is not None]
