"""Cancels asked for at other nodes: stops a draft in the making here when its job was cancelled elsewhere.

Owns one subscription to all cancel hints. A hint is never believed: the manifest in the object store says whether the
job was cancelled. A hint that is lost, or a store that does not answer in time, costs the rest of one draft.
"""

from __future__ import annotations

import asyncio

from adaptivegen.bus.base import Message
from adaptivegen.bus.hearing import hear
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.events import ALL_CANCELS
from adaptivegen.jobs.store import JobStore
from adaptivegen.telemetry import get_logger
from edge_node.draft.desk import DraftDesk

BUFFER = 1024  # hints; most are for jobs whose draft is not made here, and cost nothing
LOOK_DEADLINE_S = 5.0


class Cancels:
    """The cancel hints of one edge. `run` must be running."""

    def __init__(
        self, *, jobs: JobStore, desk: DraftDesk, clock: Clock, look_deadline_s: float = LOOK_DEADLINE_S
    ) -> None:
        self._jobs = jobs
        self._desk = desk
        self._clock = clock
        self._look_deadline_s = look_deadline_s

    async def run(self) -> None:
        """Act on hints until cancelled."""
        await hear(self._jobs.bus, ALL_CANCELS, self._heard, buffer=BUFFER, clock=self._clock)

    async def _heard(self, message: Message) -> None:
        """One hint: `ag.cancel.<job>`."""
        job_id = message.subject.rpartition(".")[2]
        for tenant in self._desk.tenants_of(job_id):
            try:
                async with asyncio.timeout(self._look_deadline_s):
                    manifest = await self._jobs.manifest(tenant, job_id)
                    deleted = manifest is None and await self._jobs.tombstone(tenant, job_id)
            except TimeoutError:
                get_logger().warning("cancel_not_checked", job_id=job_id, error="the object store did not answer")
                continue
            except AdaptiveGenError as exc:
                get_logger().warning("cancel_not_checked", job_id=job_id, code=exc.code, error=exc.message)
                continue
            if deleted or (manifest is not None and manifest.outcome == "cancelled"):
                self._desk.cancel(tenant, job_id)
                get_logger().info("draft_cancelled", job_id=job_id)
