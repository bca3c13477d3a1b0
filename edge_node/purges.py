"""What an edge lets go of when videos are deleted, or caches purged: drafts in memory, finals kept for repeats.

Owns one subscription to the hints, and, where finals are kept on disk, the look into what was purged while this edge
did not hear. A hint is not believed where it would stop work: the tombstone in the object store says so.
"""

from __future__ import annotations

from adaptivegen.clock import Clock
from adaptivegen.jobs.purges import Purge, PurgeNames, listen
from adaptivegen.jobs.store import JobStore
from edge_node.draft.desk import DraftDesk
from edge_node.sides import Partition

LOOKED = "purged"  # in the spool's folder: up to which day this edge has looked


class Purges:
    """The purges of one edge. `run` must be running, and `names.run` where there are names to look into."""

    def __init__(self, *, jobs: JobStore, desk: DraftDesk, partition: Partition | None, clock: Clock) -> None:
        self._jobs = jobs
        self._desk = desk
        self._known = known = partition.known if partition is not None else None
        self._clock = clock
        self.names: PurgeNames | None = None
        if partition is not None and known is not None:
            path = partition.spool.folder / LOOKED
            self.names = PurgeNames(jobs.blob, path=path, clock=clock, drop=known.drop, drop_all=known.drop_all)

    async def run(self) -> None:
        """Act on hints until cancelled."""
        await listen(self._jobs.bus, self._heard, clock=self._clock)

    async def _heard(self, purge: Purge) -> None:
        for job_id in purge.videos:
            drafting = self._desk.drafting(purge.tenant, job_id)
            if not drafting or await self._jobs.tombstone(purge.tenant, job_id) is not None:
                self._desk.forget(purge.tenant, job_id)
        if self._known is not None:
            await self._known.drop(purge.sha256)
