"""Tells the schedulers whose drafts are there, so that workers are given finals that they can begin.

A hint over core NATS: one that is lost costs a final about a second (`scheduler.decide.flow`).
"""

from __future__ import annotations

import asyncio
from collections import deque

from adaptivegen.bus.base import Bus
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.nodes import DRAFTS_TOLD, DraftsOver, drafts_subject
from adaptivegen.telemetry import get_logger

MAX_WAITING = 1024  # the oldest give way: after a second they are taken to be there anyway


class DraftTelling:
    """The hints of one edge. `run` must be running."""

    def __init__(self, node_id: str, bus: Bus) -> None:
        self._subject = drafts_subject(node_id)
        self._bus = bus
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()

    def over(self, job_id: str) -> None:
        """The job's draft is there, or will never be; returns at once."""
        self._waiting.append(job_id)
        self._wake.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                told = tuple(self._waiting.popleft() for _ in range(min(DRAFTS_TOLD, len(self._waiting))))
                try:
                    await self._bus.publish(self._subject, DraftsOver(job_ids=told).model_dump_json().encode())
                except AdaptiveGenError as exc:
                    get_logger().debug("drafts_not_told", drafts=len(told), error=exc.message)
