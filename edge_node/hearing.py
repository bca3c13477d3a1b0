"""Hears from schedulers how tenants stand with their quotas, and keeps the last of it over restarts.

How old a telling is: by the scheduler's clock and this edge's, which may differ by minutes, but never more than what
needs no second clock. It was written since this edge last looked and did not find it, and the broker keeps none for
longer than `KEPT_S`. So clocks count for nothing while this edge hears, and at a start or after a cut make a telling
as old as they differ, until the next is told, a minute later at most.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.kept_file import remember, remembered
from adaptivegen.standing import BUCKET, KEPT_S, KEY, TELL_EVERY_S, Standings
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from edge_node.quotas import MAX_MODELS, Quotas

KEEP_EVERY_S = 60.0
KEPT = "quotas"  # in the spool's folder


class Kept(BaseModel):
    """What was heard, and when it was written by this edge's clock; what finals were reckoned with then."""

    model_config = ConfigDict(frozen=True)

    as_of_ns: Annotated[int, Field(ge=0)]
    told: Standings
    reckoning: Annotated[dict[str, Annotated[float, Field(ge=0, lt=1e9)]], Field(max_length=MAX_MODELS)] = {}


class QuotaHearing:
    """Feeds one edge's quotas. kept: the file of what was heard last, None where this edge keeps none."""

    def __init__(self, quotas: Quotas, bus: Bus, clock: Clock, kept: Path | None) -> None:
        self._quotas = quotas
        self._bus = bus
        self._clock = clock
        self._kept = kept
        self._revision = 0
        self._looked_s: float | None = None  # when the broker has answered last
        self._kept_s: float | None = None
        self._said = ""
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quotas")
        if kept is not None and (found := remembered(Kept, kept, name="quotas")) is not None:
            quotas.hear(found.told, as_of_ns=min(found.as_of_ns, clock.now_ns()))
            quotas.recall(found.reckoning)

    async def run(self) -> None:
        """Read every few seconds, until cancelled."""
        try:
            while True:
                await self.read()
                await self._clock.sleep(TELL_EVERY_S)
        finally:
            self._disk.shutdown(wait=False)

    async def read(self) -> None:
        """Read now; while it cannot be read what was heard last stands, as long as it may."""
        began_s = self._clock.monotonic_s()
        try:
            entry = await (await self._bus.kv(BUCKET, ttl_s=KEPT_S)).get(KEY)
            if entry is not None and entry.revision != self._revision:
                told = parsed(Standings, entry.value, name="standings")
                self._revision = entry.revision
                self._quotas.hear(told, as_of_ns=self._written_ns(told))
                await self._keep()
            self._looked_s, self._said = began_s, ""
        except AdaptiveGenError as exc:
            if exc.code != self._said:
                get_logger().debug("quotas_not_heard", code=exc.code, error=exc.message)
            self._said = exc.code

    def _written_ns(self, told: Standings) -> int:
        """When a new telling was written, by this edge's clock."""
        now_ns, now_s = self._clock.now_ns(), self._clock.monotonic_s()
        longest_s = KEPT_S if self._looked_s is None else min(KEPT_S, now_s - self._looked_s)
        return now_ns - min(max(0, now_ns - told.at_ns), round(longest_s * 1e9))

    async def _keep(self) -> None:
        """Write it down, now and then: a minute more of age is no matter."""
        now_s, as_of_ns = self._clock.monotonic_s(), self._quotas.as_of_ns
        if self._kept is None or as_of_ns is None:
            return
        if self._kept_s is not None and now_s - self._kept_s < KEEP_EVERY_S:
            return
        self._kept_s = now_s
        found = Kept(as_of_ns=as_of_ns, told=self._quotas.told, reckoning=self._quotas.reckoning)
        data = found.model_dump_json().encode()
        kept = self._kept
        await asyncio.get_running_loop().run_in_executor(self._disk, lambda: remember(kept, data, name="quotas"))
