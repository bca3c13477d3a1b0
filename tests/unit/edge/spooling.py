"""A spool on a real folder, and a centre in memory that dies after so many writes."""

import hashlib
import random
from pathlib import Path

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import DraftManifest, JobSpec, Media, media_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Decision
from edge_node.spool.handover import hand_over
from edge_node.spool.rules import SpoolLimits
from edge_node.spool.spool import Envelope, Spool
from tests.jobs import JOB_ID, make_spec
from tests.unit.jobs.crashing import CrashingStore

LIMITS = SpoolLimits(max_jobs=10, max_bytes=1024**3)
DRAFT_SHA256 = hashlib.sha256(b"draft").hexdigest()
DRAFT_KEY = media_key("t", JOB_ID, 0, DRAFT_SHA256)
DRAFT = DraftManifest(
    media=Media(key=DRAFT_KEY, sha256=DRAFT_SHA256, size_bytes=5, width=8, height=8, frames=1, fps=1),
    steps=4,
    completed_at_ns=5_000_000_000,
)


class Bench:
    """One edge's spool in `folder`, life after life, and the centre."""

    def __init__(self, folder: Path, *, limits: SpoolLimits = LIMITS) -> None:
        self.folder = folder
        self.limits = limits
        self.clock = ManualClock()
        self.bus = MemoryBus(self.clock)
        blob = open_store("memory://")
        self.centre = JobStore(blob=blob, bus=self.bus, clock=self.clock)
        self.dying = CrashingStore(blob=blob, bus=self.bus, clock=self.clock)
        self.asked: list[tuple[str, bool]] = []
        self.decided: Decision | None = None
        self.spool: Spool

    async def start(self) -> Spool:
        """A new life of the edge; what was in memory is gone."""
        if hasattr(self, "spool"):
            await self.spool.close()
        self.spool = Spool(self.folder, limits=self.limits, clock=self.clock)
        await self.spool.open(random.Random(1))
        return self.spool

    async def put(
        self, spec: JobSpec, *, key: str = "", body: str = "b", begun: bool = False, draft: DraftManifest | None = DRAFT
    ) -> None:
        """A spooled job with its draft."""
        envelope = Envelope(
            tenant=spec.tenant, id=spec.id, key=key, body=body, spooled_at_ns=self.clock.now_ns(), begun=begun
        )
        await self.spool.admit(envelope, needed_bytes=0)
        try:
            await self.spool.jobs.submit(spec)
        finally:
            self.spool.settle(envelope)
        if draft is not None:
            await self.spool.blob.put(draft.media.key, b"draft")
            await self.spool.jobs.store_draft(spec.tenant, spec.id, draft)

    async def hand_over(self, centre: JobStore | None = None) -> tuple[JobSpec, JobRecord]:
        """The oldest job, to the centre."""

        async def again(spec: JobSpec, drafted: bool) -> Decision | None:
            self.asked.append((spec.id, drafted))
            return self.decided

        return await hand_over(
            self.spool.held[0], spool=self.spool, centre=centre or self.centre, again=again, node_id="edge-1"
        )

    async def pending(self) -> list[str]:
        return [job_id async for _, job_id, _ in self.centre.pending()]

    def files(self) -> list[str]:
        """Names of all files of the spool but its lock."""
        jobs = self.folder / "jobs"
        return sorted(str(path.relative_to(jobs)) for path in jobs.rglob("*") if path.is_file())


async def bench(folder: Path, *, limits: SpoolLimits = LIMITS) -> Bench:
    """A bench with an open spool."""
    made = Bench(folder, limits=limits)
    await made.start()
    return made


def refine() -> JobSpec:
    """An open job whose final is wanted."""
    return make_spec()


def draft_only() -> JobSpec:
    return make_spec(plan="draft", want_final=False)
