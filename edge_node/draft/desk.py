"""The draft desk: has the drafts of accepted jobs made, stores them, and hands them to the workers that refine them.

Owns the drafts in the making and a bounded number of finished ones. A draft that fails never fails a job that has a
final to come: the worker is told there is none and starts from noise.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    InternalError,
    NodeUnavailable,
    NotFound,
    PermissionDenied,
    platform_fault,
)
from adaptivegen.generation.messages import Step
from adaptivegen.jobs.clips import media_of
from adaptivegen.jobs.events import make_event, terminal_event
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import DraftManifest, Failure, JobSpec, Manifest
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import end, guarded
from adaptivegen.rpc.draft import MadeDraft
from adaptivegen.telemetry import get_logger, span
from edge_node.draft.places import DraftPlaces, Made
from edge_node.hub import EventHub
from edge_node.sides import Jobs

MAX_TIMES = 1024
KEPT_DRAFTS = 64  # finished drafts held in memory for workers; later ones come from the object store


@dataclass(slots=True)
class _Entry:
    """One draft: its token, and the draft once finished."""

    token: str
    made: asyncio.Future[MadeDraft]
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class DraftTimes:
    """Seconds from acceptance to the first look and to the complete draft, as this edge saw them; `made_by`: the edge
    that drafted; late: see `Made`.

    draft_model: the version of the model that was to draft; made_with: the one that did; failed_with: the one with
    which the first attempt that failed was made; node_s: seconds of the model, for so many pixels of all frames.
    """

    first_look_s: float | None
    draft_s: float | None
    made_by: str = ""
    late: bool = False
    draft_model: str = ""
    made_with: str = ""
    failed_with: str = ""
    node_s: float = 0.0
    pixels: float = 0.0


@dataclass(slots=True)
class _Clocked:
    began_s: float
    first_look_s: float | None = None
    failed_with: str = ""
    looks: asyncio.Queue[Step] = field(default_factory=lambda: asyncio.Queue(64))

    def failed(self, version: str) -> None:
        """An attempt with this version has failed."""
        self.failed_with = self.failed_with or version


class DraftDesk:
    """All drafts of one edge. `run` must be running. over: is told of each job whose draft is there for a worker, or
    will never be; shelter: where a draft goes whose job's store has failed, or the failure again."""

    def __init__(
        self,
        *,
        node_id: str,
        places: DraftPlaces,
        jobs: Jobs,
        hub: EventHub,
        clock: Clock,
        observe: Callable[[DraftTimes], None],
        over: Callable[[str], None] = lambda job_id: None,
        shelter: Callable[[JobSpec, AdaptiveGenError], Awaitable[JobStore]] | None = None,
    ) -> None:
        self._node_id = node_id
        self._places = places
        self._jobs = jobs
        self._hub = hub
        self._clock = clock
        self._observe = observe
        self._over = over
        self._shelter = shelter
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._group: asyncio.TaskGroup | None = None
        self.times: OrderedDict[str, DraftTimes] = OrderedDict()

    async def run(self) -> None:
        """Own the drafts' tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def begin(self, spec: JobSpec, record: JobRecord, start_mp4: bytes | None) -> None:
        """Start the draft of an accepted job; returns at once. Does nothing where it was begun before."""
        if (spec.tenant, spec.id) in self._entries:
            return
        group = self._open_group()
        future: asyncio.Future[MadeDraft] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # read, so that nobody warns
        future.add_done_callback(lambda _: self._over(spec.id))
        entry = _Entry(token=spec.draft_token, made=future)
        self._entries[spec.tenant, spec.id] = entry
        entry.task = group.create_task(guarded("draft", self._draft(spec, record, entry, start_mp4)))
        entry.task.add_done_callback(lambda _: future.cancel())  # also one cancelled before it began
        self._forget_old()

    def cancel(self, tenant: str, job_id: str) -> None:
        """Stop a draft in the making; the model is free within a step."""
        entry = self._entries.get((tenant, job_id))
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    def forget(self, tenant: str, job_id: str) -> None:
        """Stop a draft in the making, or let go of a finished one: its video was deleted."""
        self.cancel(tenant, job_id)
        self._entries.pop((tenant, job_id), None)

    def tenants_of(self, job_id: str) -> list[str]:
        """Whose drafts of this id are in the making: one at most, unless ids collide."""
        return [tenant for (tenant, held), entry in self._entries.items() if held == job_id and not entry.made.done()]

    def drafting(self, tenant: str, job_id: str) -> bool:
        """Whether the job's draft is in the making, or on its way into the store."""
        entry = self._entries.get((tenant, job_id))
        return entry is not None and entry.task is not None and not entry.task.done()

    @property
    def active(self) -> int:
        """Drafts not finished yet."""
        return sum(1 for entry in self._entries.values() if not entry.made.done())

    async def wait_for(self, tenant: str, job_id: str, token: str) -> MadeDraft:
        """A draft made here, when it is finished. Raises NotFound or PermissionDenied."""
        entry = self._entries.get((tenant, job_id))
        if entry is None:
            raise NotFound(f"no draft of {job_id!r} here", param="job_id")
        if not hmac.compare_digest(entry.token.encode(), token.encode()):
            raise PermissionDenied(f"not the draft token of {job_id!r}", param="token")
        try:
            return await asyncio.shield(entry.made)
        except asyncio.CancelledError:
            if entry.made.cancelled():
                raise NotFound(f"the draft of {job_id!r} was cancelled") from None
            raise

    async def drain(self) -> None:
        """Wait for the drafts in the making."""
        tasks = {entry.task for entry in self._entries.values() if entry.task and not entry.task.done()}
        if tasks:
            await asyncio.wait(tasks)

    # ---- one draft --------------------------------------------------------------------------------------------

    async def _draft(self, spec: JobSpec, record: JobRecord, entry: _Entry, start_mp4: bytes | None) -> None:
        timing = _Clocked(began_s=self._clock.monotonic_s())
        try:
            with span("edge.draft", carrier=spec.trace, job_id=spec.id):
                made = await self._make(spec, record, timing, start_mp4)
                if not entry.made.done():  # a waiting worker may start before the draft is stored
                    entry.made.set_result(MadeDraft(made.generated.mp4, made.version))
                await self._store(spec, made, timing)
        except asyncio.CancelledError:
            entry.made.cancel()
            raise
        except AdaptiveGenError as exc:
            await self._failed(spec, entry, exc, timing)
        except Exception as exc:  # a bug met by one draft must not leave its worker waiting and its job open
            get_logger().error("unexpected_error", job_id=spec.id, exc_info=exc)
            await self._failed(spec, entry, InternalError(f"{type(exc).__name__}: {exc}"), timing)

    async def _make(self, spec: JobSpec, record: JobRecord, timing: _Clocked, start_mp4: bytes | None) -> Made:
        """Have it made, telling each look as it comes."""
        await self._hub.publish(make_event("draft.started", record, producer=self._node_id, now_ns=self._now_ns()))

        def on_step(step: Step) -> None:
            if step.look_jpeg and timing.first_look_s is None:
                timing.first_look_s = self._clock.monotonic_s() - timing.began_s
            if not timing.looks.full():
                timing.looks.put_nowait(step)

        telling = self._open_group().create_task(guarded("looks", self._tell_looks(record, timing.looks)))
        try:
            group = self._open_group()
            made = await self._places.make(spec, start_mp4, on_step, group=group, failed=timing.failed)
        finally:
            await end(telling)
        while not timing.looks.empty():
            await self._tell(record, timing.looks.get_nowait())
        return made

    def _open_group(self) -> asyncio.TaskGroup:
        if self._group is None:
            raise NodeUnavailable("the draft desk is not open")
        return self._group

    async def _tell_looks(self, record: JobRecord, looks: asyncio.Queue[Step]) -> None:
        while True:
            await self._tell(record, await looks.get())

    async def _tell(self, record: JobRecord, step: Step) -> None:
        event = make_event(
            "draft.look",
            self._hub.newest(record),
            producer=self._node_id,
            now_ns=self._now_ns(),
            step=step.step,
            steps=step.steps,
            look_jpeg=step.look_jpeg,
        )
        if step.look_jpeg:
            await self._hub.publish(event)

    async def _store(self, spec: JobSpec, made: Made, timing: _Clocked) -> None:
        """Upload and index the draft, and say that it is there."""
        generated = made.generated
        media = media_of(generated, spec, epoch=0)
        now_ns = self._now_ns()
        manifest = DraftManifest(
            media=media,
            steps=made.steps,
            completed_at_ns=now_ns,
            made_by=made.edge_id,
            made_with=made.version,
            notes=(made.note,) if made.note else (),
        )
        try:
            record = await self._keep(self._jobs.of(spec.tenant, spec.id), spec, manifest, generated.mp4)
        except AdaptiveGenError as exc:
            if self._shelter is None:
                raise
            record = await self._keep(await self._shelter(spec, exc), spec, manifest, generated.mp4)
            await self._hub.moved(spec.tenant, spec.id)
        draft_s = self._clock.monotonic_s() - timing.began_s
        times = DraftTimes(
            first_look_s=timing.first_look_s,
            draft_s=draft_s,
            made_by=made.edge_id,
            late=made.late,
            draft_model=spec.draft_model,
            made_with=made.version,
            failed_with=timing.failed_with,
            node_s=(generated.generate_ms + generated.encode_ms) / 1e3,
            pixels=float(generated.width * generated.height * generated.frames),
        )
        self._timed(spec, times)
        self._observe(times)
        await self._hub.publish(make_event("draft.completed", record, producer=self._node_id, now_ns=self._now_ns()))
        if record.ended:
            await self._hub.publish(terminal_event(record, producer=self._node_id, now_ns=self._now_ns()))
        get_logger().info("draft_stored", job_id=spec.id, draft_s=round(draft_s, 3), made_by=made.edge_id)

    def _timed(self, spec: JobSpec, times: DraftTimes) -> None:
        self.times[spec.id] = times
        while len(self.times) > MAX_TIMES:
            self.times.popitem(last=False)

    @staticmethod
    async def _keep(jobs: JobStore, spec: JobSpec, manifest: DraftManifest, mp4: bytes) -> JobRecord:
        await jobs.blob.put(manifest.media.key, mp4)
        return await jobs.store_draft(spec.tenant, spec.id, manifest)

    async def _failed(self, spec: JobSpec, entry: _Entry, error: AdaptiveGenError, timing: _Clocked) -> None:
        """Tell a waiting worker that there is no draft; a job that was only a draft ends."""
        get_logger().warning("draft_failed", job_id=spec.id, code=error.code, error=error.message)
        if timing.failed_with and spec.id not in self.times:
            times = DraftTimes(timing.first_look_s, None, draft_model=spec.draft_model, failed_with=timing.failed_with)
            self._timed(spec, times)
        if not entry.made.done():
            entry.made.set_exception(NotFound(f"the draft of {spec.id!r} failed: {error.message}"))
        if platform_fault(error):
            return  # the draft could not be kept; the reconciler has the job finished in the cloud
        try:
            record = await self._jobs.find(spec.tenant, spec.id)
            if not (record.want_final or record.ended or record.draft):  # only a draft, and it is not there
                await self._fail(spec, error)
        except AdaptiveGenError as exc:
            get_logger().warning("failure_not_stored", job_id=spec.id, error=exc.message)  # the reconciler will see

    async def _fail(self, spec: JobSpec, error: AdaptiveGenError) -> None:
        """A job that was only a draft ends with it."""
        manifest = Manifest(
            id=spec.id,
            tenant=spec.tenant,
            outcome="failed",
            epoch=0,
            finished_at_ns=self._now_ns(),
            error=Failure(code=error.code, message=error.message),
        )
        record, _ = await self._jobs.of(spec.tenant, spec.id).finish(manifest)
        await self._hub.publish(terminal_event(record, producer=self._node_id, now_ns=self._now_ns()))

    def _forget_old(self) -> None:
        finished = [key for key, entry in self._entries.items() if entry.made.done()]
        for key in finished[: max(0, len(finished) - KEPT_DRAFTS)]:
            del self._entries[key]

    def _now_ns(self) -> int:
        return self._clock.now_ns()
