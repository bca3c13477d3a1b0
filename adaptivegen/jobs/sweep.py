"""The sweep: goes on with removals that died, and removes what nobody refers to.

Several parts, each on its own: what cannot be done for one of them, or for one object, is said once, tried again after
pauses that grow, and keeps nothing else from being done. Any number of sweeps may run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from adaptivegen.batches import read_all
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, NotFound
from adaptivegen.jobs.purges import forget_old
from adaptivegen.jobs.removal import Removed, remove
from adaptivegen.jobs.sharing import note_repeats
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.jobs.uploads import UploadSweep
from adaptivegen.telemetry import get_logger

SETTLED_S = 60.0  # after it nobody works for a deleted video any more: a lease is half of that
PRUNE_EVERY_S = 6 * 3600.0


class Sweep:
    """The passes of one process."""

    def __init__(self, jobs: JobStore, *, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._troubles = Troubles()
        self._uploads = UploadSweep(jobs, self._troubles)
        self._since: dict[str, float] = {}  # when each marker was seen first, or tried last
        self._pruned_at_s: float | None = None
        self._noted = False

    async def run(self, *, interval_s: float) -> None:
        """A pass every `interval_s`, until cancelled. The first over a store of many uploads takes long, so they have
        passes of their own."""
        async with asyncio.TaskGroup() as group:
            for one_pass in (self.sweep, self.sweep_uploads):
                group.create_task(self._repeat(one_pass, interval_s))

    async def _repeat(self, one_pass: Callable[[], Awaitable[int]], interval_s: float) -> None:
        while True:
            await one_pass()
            await self._clock.sleep(interval_s)

    async def sweep_uploads(self) -> int:
        """One pass over the uploads where that is due; returns how many were removed."""
        return await self._part("uploads", self._uploads.run_if_due)

    async def sweep(self) -> int:
        """One pass over all else; returns how many removals are done with it."""
        if not self._noted and self._troubles.due("repeats", now_s=self._clock.monotonic_s()):
            await self._part("repeats", self._note_repeats)
        finished = await self._part("removals", self._removals)
        await self._part("names", self._prune)
        return finished

    async def _part(self, name: str, work: Callable[[], Awaitable[int]]) -> int:
        """What a part did; 0 where it failed, which is said unless it was said last time."""
        try:
            done = await work()
        except Exception as exc:  # also a bug of one part: it must not end the others
            self._failed("sweep_failed", name, exc, part=name)
            return 0
        self._troubles.over(name)
        return done

    def _failed(self, event: str, name: str, exc: Exception, **what: str) -> None:
        """Say what failed, once."""
        now_s = self._clock.monotonic_s()
        if isinstance(exc, AdaptiveGenError):
            if self._troubles.failed(name, exc.message, now_s=now_s):
                get_logger().warning(event, code=exc.code, error=exc.message, **what)
        elif self._troubles.failed(name, repr(exc), now_s=now_s):
            get_logger().error(event, exc_info=exc, **what)

    async def _note_repeats(self) -> int:
        noted, unread = await note_repeats(self._jobs, self._troubles)
        if noted:
            get_logger().info("repeats_noted", repeats=noted)
        self._noted = not unread
        return noted

    async def _removals(self) -> int:
        """Go on with those that were marked a while ago."""
        marked = [meta.key async for meta in self._jobs.blob.list("deleting/")]
        there = set(marked)
        for key in self._since.keys() - there:
            self._troubles.over(key)
        self._since = {key: since_s for key, since_s in self._since.items() if key in there}
        now_s = self._clock.monotonic_s()
        settled = [key for key in marked if now_s - self._since.setdefault(key, now_s) >= SETTLED_S]
        due = [key for key in settled if self._troubles.due(key, now_s=now_s)]
        self._since |= dict.fromkeys(due, now_s)
        return sum(await read_all(due, self._one))

    async def _one(self, key: str) -> bool:
        """Go on with one removal; whether it is done."""
        tenant, _, job_id = key.removeprefix("deleting/").partition(".")
        try:
            try:
                done = await remove(self._jobs, tenant, job_id)
            except NotFound:  # nothing but the marker
                done = Removed()
            if not done.unclear:
                await self._jobs.blob.delete(key)
        except Exception as exc:  # also a bug met by one video: it must not keep the others from being removed
            self._failed("removal_not_done", key, exc, job_id=job_id, tenant=tenant)
            return False
        self._troubles.over(key)
        return not done.unclear

    async def _prune(self) -> int:
        now_s = self._clock.monotonic_s()
        if self._pruned_at_s is None or now_s - self._pruned_at_s >= PRUNE_EVERY_S:
            self._pruned_at_s = now_s
            await forget_old(self._jobs.blob, now_ns=self._clock.now_ns())
        return 0
