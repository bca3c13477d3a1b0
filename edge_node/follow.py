"""What an edge does when a video it accepted ends: bring the final into the cache, keep it for repeats, tell the
scheduler what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Media
from adaptivegen.placement import Decision, Outcome
from adaptivegen.process import guarded
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.telemetry import get_logger
from edge_node.delivery import Delivery
from edge_node.draft.desk import DraftDesk, DraftTimes
from edge_node.hub import EventHub

MAX_FOLLOWED = 1024


class Follower:
    """Follows jobs to their end, those accepted elsewhere, too. `run` must be running. node_id: of this edge;
    draft_line: its draft model; keep, ended: are told of finals, and of the ids of all that ended."""

    def __init__(
        self,
        *,
        node_id: str,
        hub: EventHub,
        delivery: Delivery,
        desk: DraftDesk,
        scheduler: PlacementClient,
        clock: Clock,
        draft_line: str,
        keep: Callable[[JobRecord], Awaitable[None]] | None = None,
        ended: Callable[[str], None] = lambda job_id: None,
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._draft_line = draft_line
        self._hub = hub
        self._delivery = delivery
        self._desk = desk
        self._scheduler = scheduler
        self._keep = keep
        self._over = ended
        self._group: asyncio.TaskGroup | None = None
        self._following: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Own the followers' tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def follow(self, record: JobRecord, decision: Decision, *, fresh: bool) -> None:
        """Follow an accepted job to its end, once; beyond the bound it is simply not followed.

        fresh: it was accepted just now, so that its time counts from here; a job that is met again is only followed.
        """
        key = (record.tenant, record.id)
        if self._group is None or record.ended or key in self._following or len(self._following) >= MAX_FOLLOWED:
            return
        begun_s = self._clock.monotonic_s() if fresh else None
        self._following.add(key)
        self._group.create_task(guarded("follow", self._follow(record, decision, begun_s)))

    def repeat(self, record: JobRecord) -> None:
        """A request was answered with an earlier final: it is brought into the cache, unless too much is followed."""
        key = (record.tenant, record.id)
        if self._group is None or record.final is None or len(self._following) >= MAX_FOLLOWED:
            return
        self._following.add(key)
        self._group.create_task(guarded("repeat", self._repeat(key, record.final)))

    async def _repeat(self, key: tuple[str, str], final: Media) -> None:
        try:
            await self._delivery.repeat(final, tenant=key[0])
        finally:
            self._following.discard(key)

    async def _follow(self, record: JobRecord, decision: Decision, begun_s: float | None) -> None:
        drafted = record.draft is not None  # before: this decision did not make it
        try:
            async for event in self._hub.watch(record.tenant, record.id, after=None):
                record = event.record
            if record.ended:
                await self._ended(record, decision, begun_s=begun_s, drafted=drafted)
        except AdaptiveGenError as exc:
            get_logger().warning("not_followed", job_id=record.id, error=exc.message)
        finally:
            self._following.discard((record.tenant, record.id))

    async def _ended(self, record: JobRecord, decision: Decision, *, begun_s: float | None, drafted: bool) -> None:
        """Report how it went. The final's time ends when it is in the cache, where there is one."""
        took_s = self._since(begun_s)
        self._over(record.id)
        if record.final is not None and await self._delivery.prefetch(record.final, tenant=record.tenant) is not None:
            took_s = self._since(begun_s)
        times = self._desk.times.get(record.id) if took_s is not None and not drafted else None
        final = record.final if took_s is not None else None
        outcome = Outcome(
            job_id=record.id,
            edge_id=decision.edge_id,
            worker_id=record.worker_id,
            plan=record.plan,
            status=record.status,
            decided_by=decision.decided_by,
            decided_at_ns=decision.decided_at_ns,
            final_s=took_s if record.final else None,
            **(self._of_draft(times, record.draft) if times else {}),
            tenant=record.tenant,
            gpu_s=record.gpu_s,
            line=record.model,
            cloud_model=record.cloud_model,
            made_with=record.made_with,
            failed_with=record.failed_with,
            pixels=_pixels(record.final),
            session=record.session,
            final_bytes=float(final.size_bytes) if final is not None else 0.0,
            final_steps=record.final_steps if final is not None else 0,
        )
        try:
            if (
                decision.edge_id == self._node_id
            ):  # else it is for another edge to tell, which has seen how long it took
                await self._scheduler.report(outcome)
        finally:  # also where no scheduler hears of it
            if self._keep is not None and record.final is not None:
                await self._keep(record)

    def _since(self, begun_s: float | None) -> float | None:
        """By this machine's clock: the worker's may be minutes off."""
        return self._clock.monotonic_s() - begun_s if begun_s is not None else None

    def _of_draft(self, times: DraftTimes, draft: Media | None) -> dict[str, Any]:
        """What an outcome says of a draft that this decision had made, or tried to."""
        return {
            "first_look_s": times.first_look_s,
            "draft_s": times.draft_s,
            "drafted_by": times.made_by,
            "draft_late": times.late,
            "draft_line": self._draft_line,
            "draft_model": times.draft_model,
            "drafted_with": times.made_with,
            "draft_failed_with": times.failed_with,
            "draft_node_s": times.node_s,
            "draft_pixels": times.pixels,
            "draft_bytes": float(draft.size_bytes) if draft is not None else 0.0,
        }


def _pixels(media: Media | None) -> float:
    """Of all frames."""
    return float(media.width * media.height * media.frames) if media is not None else 0.0
