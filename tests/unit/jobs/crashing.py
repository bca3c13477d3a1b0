"""Job stores that die between two writes, and the reconciler of a process that finds what they left."""

from collections.abc import Awaitable, Callable

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, StorageFailure
from adaptivegen.jobs.reconcile import Sightings, Tally, reconcile
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobMessage, JobStore
from tests.jobs import JOB_ID, media

PATIENCE_S = 60.0


class Fuse:
    """Lets `count` writes through and fails every one after them, as a crash would."""

    def __init__(self, count: int) -> None:
        self.left = count

    def burn(self, error: type[Exception]) -> None:
        if self.left == 0:
            raise error("the process died here")
        self.left -= 1


class CrashingStore(JobStore):
    """A job store over real parts whose writes go through a fuse."""

    fuse: Fuse

    def light(self, count: int) -> None:
        self.fuse = Fuse(count)
        blob, bus, fuse = self.blob, self.bus, self.fuse

        def fused(method: Callable[..., Awaitable[object]], error: type[Exception]) -> Callable[..., Awaitable[object]]:
            async def call(*args: object, **kwargs: object) -> object:
                fuse.burn(error)
                return await method(*args, **kwargs)

            return call

        class Blob:
            def __getattr__(self, name: str) -> object:
                method = getattr(blob, name)
                return fused(method, StorageFailure) if name in ("put", "put_if_absent", "delete") else method

        class Bus:
            def __getattr__(self, name: str) -> object:
                method = getattr(bus, name)
                return fused(method, BrokerUnavailable) if name in ("kv", "work_queue") else method

        self.blob, self.bus = Blob(), Bus()  # type: ignore[assignment]


def stores() -> tuple[CrashingStore, JobStore, ManualClock, MemoryBus]:
    """A store that crashes, and one on the same parts that does not."""
    clock = ManualClock()
    blob, bus = open_store("memory://"), MemoryBus(clock)
    sound = JobStore(blob=blob, bus=bus, clock=clock)
    return CrashingStore(blob=blob, bus=bus, clock=clock), sound, clock, bus


class Reconciler:
    """The reconciler of one process, over its passes."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._sightings = Sightings(jobs.clock)

    async def run(self) -> Tally:
        """One pass."""
        return await reconcile(self._jobs, patience_s=PATIENCE_S, sightings=self._sightings)

    async def patient(self, clock: ManualClock) -> Tally:
        """A pass that sees what there is, and after the patience one that acts; what the second did."""
        await self.run()
        await clock.advance(PATIENCE_S + 1)
        return await self.run()


async def queued_ids(bus: MemoryBus) -> list[str]:
    """What is in the queue, which is empty, and has lost it, after this."""
    queue = await bus.work_queue("default", ack_wait_s=30)
    found = []
    while (delivery := await queue.pull(timeout_s=0)) is not None:
        found.append(JobMessage.decode(delivery.data).id)
        await delivery.ack()
    return found


HIT = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=0, finished_at_ns=2, final=media("a"), cached=True)
