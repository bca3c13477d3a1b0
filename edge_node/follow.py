"""What an edge does when a video it accepted ends: bring the final into the cache, tell the scheduler what happened."""

from __future__ import annotations

import asyncio

from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.record import JobRecord
from adaptivegen.placement import Outcome
from adaptivegen.process import guarded
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.telemetry import get_logger
from edge_node.delivery import Delivery
from edge_node.draft.desk import DraftDesk
from edge_node.hub import EventHub

MAX_FOLLOWED = 1024


class Follower:
    """Follows accepted jobs to their end. `run` must be running."""

    def __init__(self, *, hub: EventHub, delivery: Delivery, desk: DraftDesk, scheduler: PlacementClient) -> None:
        self._hub = hub
        self._delivery = delivery
        self._desk = desk
        self._scheduler = scheduler
        self._group: asyncio.TaskGroup | None = None
        self._following: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Own the followers' tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def follow(self, record: JobRecord) -> None:
        """Follow an accepted job, once; beyond the bound it is simply not followed."""
        key = (record.tenant, record.id)
        if self._group is None or key in self._following or len(self._following) >= MAX_FOLLOWED:
            return
        if record.want_final and not record.ended:
            self._following.add(key)
            self._group.create_task(guarded("follow", self._follow(record)))

    async def _follow(self, record: JobRecord) -> None:
        try:
            async for event in self._hub.watch(record.tenant, record.id, after=None):
                record = event.record
            await self._ended(record)
        except AdaptiveGenError as exc:
            get_logger().warning("not_followed", job_id=record.id, error=exc.message)
        finally:
            self._following.discard((record.tenant, record.id))

    async def _ended(self, record: JobRecord) -> None:
        if not record.ended:
            return
        if record.final is not None:
            await self._delivery.prefetch(record.final, tenant=record.tenant)
        times = self._desk.times.get(record.id)
        outcome = Outcome(
            job_id=record.id,
            edge_id=record.edge_id,
            worker_id=record.worker_id,
            plan=record.plan,
            status=record.status,
            first_look_s=times.first_look_s if times else None,
            draft_s=times.draft_s if times else None,
            final_s=(record.completed_at_ns - record.created_at_ns) / 1e9 if record.final else None,
        )
        await self._scheduler.report(outcome)
