"""Tells the schedulers how it went when this edge asked another for a draft, so that one that fails is given a rest.

Owns the reports on their way, at most `MAX_TELLING`; a report that cannot be delivered is forgotten.
"""

from __future__ import annotations

import asyncio

from adaptivegen.errors import AdaptiveGenError
from adaptivegen.placement import Attempt
from adaptivegen.process import guarded
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.telemetry import get_logger

MAX_TELLING = 64


class Attempts:
    """The reports of one edge. `run` must be running."""

    def __init__(self, scheduler: PlacementClient) -> None:
        self._scheduler = scheduler
        self._group: asyncio.TaskGroup | None = None
        self._telling = 0

    async def run(self) -> None:
        """Own the reports' tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None  # a group that ends takes no more tasks

    def tell(self, attempt: Attempt) -> None:
        """Report soon; returns at once."""
        if self._group is not None and self._telling < MAX_TELLING:
            self._telling += 1
            self._group.create_task(guarded("attempt", self._tell(attempt)))

    async def _tell(self, attempt: Attempt) -> None:
        try:
            await self._scheduler.report_attempt(attempt)
        except AdaptiveGenError as exc:
            get_logger().debug("attempt_not_told", node=attempt.node_id, error=exc.message)
        finally:
            self._telling -= 1
