"""What cannot be read keeps nothing else from being removed, is said once, and is tried again less and less often."""

import pytest
from structlog.testing import capture_logs

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import StorageFailure
from adaptivegen.jobs import sharing
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import Manifest, Media, job_key, media_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.sweep import SETTLED_S, Sweep
from adaptivegen.jobs.troubles import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST, Troubles
from tests.jobs import make_spec

A, B, C = (f"vid_01hzzzzzzzzzzzzzzzzzzzzzz{digit}" for digit in "012")


class Ill:
    """A store of which some objects cannot be read; `reads` counts the tries of each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.blob = open_store("memory://")
        self.jobs = JobStore(blob=self.blob, bus=MemoryBus(self.clock), clock=self.clock)
        self.keys: set[str] = set()
        self.reads: list[float] = []
        self._get = self.blob.get
        self.blob.get = self.get  # type: ignore[method-assign]

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if key in self.keys:
            self.reads.append(self.clock.monotonic_s())
            raise StorageFailure("input/output error")
        return await self._get(key, start=start, end=end)

    async def make(self, job_id: str, *, tenant: str = "t", of: str = "") -> None:
        """A finished video; a repeat, without a note, where it is `of` another."""
        await self.jobs.submit(make_spec(job_id=job_id, tenant=tenant))
        sha256 = f"{(of or job_id)[-1]}" * 64
        key = media_key(tenant, of or job_id, 1, sha256)
        await self.blob.put(key, b"a clip!")
        final = Media(key=key, sha256=sha256, size_bytes=7, width=8, height=8, frames=1, fps=1)
        await self.jobs.finish(
            Manifest(id=job_id, tenant=tenant, outcome="completed", epoch=1, finished_at_ns=3, final=final)
        )

    async def media(self) -> set[str]:
        return {meta.key.split("/")[2] async for meta in self.blob.list("out/")}

    async def marked(self) -> set[str]:
        return {meta.key.partition(".")[2] async for meta in self.blob.list("deleting/")}

    async def passes(self, sweep: Sweep, *, seconds: float, every_s: float = 10.0) -> None:
        for _ in range(round(seconds / every_s)):
            await sweep.sweep()
            await self.clock.advance(every_s)


@pytest.fixture
def ill() -> Ill:
    return Ill()


async def test_a_job_that_can_never_be_read_holds_up_the_media_of_its_tenant_alone(ill: Ill) -> None:
    await ill.make(A, tenant="ill")
    await ill.make(B, tenant="ill", of=A)  # a repeat of an earlier version
    await ill.make(C)
    ill.keys = {job_key("ill", B, "manifest")}
    await remove(ill.jobs, "t", C)
    await remove(ill.jobs, "ill", A)
    sweep = Sweep(ill.jobs, clock=ill.clock)
    with capture_logs() as logs:
        await ill.passes(sweep, seconds=4 * SETTLED_S)
    assert await ill.media() == {A}
    assert await ill.marked() == {A}
    assert [log["job_id"] for log in logs if log["event"] == "repeat_not_read"] == [B]
    assert not [log for log in logs if log["event"] in ("sweep_failed", "removal_not_done")]
    ill.keys.clear()
    await ill.passes(sweep, seconds=LONGEST_PAUSE_S)
    assert await ill.marked() == set()
    assert await ill.media() == {A}  # the repeat refers to it
    await remove(ill.jobs, "ill", B)
    assert await ill.media() == set()


async def test_which_jobs_were_not_read_is_known_to_the_next_sweep(ill: Ill) -> None:
    await ill.make(A)
    await ill.make(B, of=A)
    ill.keys = {job_key("t", B, "manifest")}
    assert await sharing.note_repeats(ill.jobs) == (0, 1)
    assert await sharing.held(ill.jobs, "t", A) == "unclear"
    assert await sharing.held(ill.jobs, "other", C) == "no"
    ill.keys.clear()
    assert await sharing.note_repeats(ill.jobs) == (1, 0)
    assert await sharing.held(ill.jobs, "t", A) == "yes"
    assert await sharing.note_repeats(ill.jobs) == (0, 0)


async def test_a_store_of_which_too_much_cannot_be_read_is_not_taken_for_gone_through(
    ill: Ill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MOST_UNREAD", 1)
    for job_id in (A, B):
        await ill.make(job_id)
        ill.keys.add(job_key("t", job_id, "manifest"))
    sweep = Sweep(ill.jobs, clock=ill.clock)
    with capture_logs() as logs:
        await ill.passes(sweep, seconds=FIRST_PAUSE_S + 10)
    assert [log["part"] for log in logs if log["event"] == "sweep_failed"] == ["repeats"]
    assert await sharing.held(ill.jobs, "other", C) == "unclear"
    assert len(ill.reads) == 4  # of two jobs, twice: at once, and after a pause


async def test_a_removal_that_cannot_go_on_is_said_once_and_tried_less_and_less_while_others_are_done(
    ill: Ill,
) -> None:
    for job_id in (A, B):
        await ill.make(job_id)
        await ill.blob.put(f"deleting/t.{job_id}", b"")  # whoever began it died at once
    ill.keys = {job_key("t", A, "manifest")}
    sweep = Sweep(ill.jobs, clock=ill.clock)
    await sharing.note_repeats(ill.jobs)
    await ill.blob.put(sharing.COMPLETE, b"")
    ill.reads.clear()
    with capture_logs() as logs:
        await ill.passes(sweep, seconds=3 * 3600.0)
    assert await ill.marked() == {A}
    assert [log["job_id"] for log in logs if log["event"] == "removal_not_done"] == [A]
    pauses = [after - before for before, after in zip(ill.reads, ill.reads[1:], strict=False)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= FIRST_PAUSE_S and pauses[-1] > 20 * FIRST_PAUSE_S
    ill.keys.clear()
    await ill.passes(sweep, seconds=LONGEST_PAUSE_S + 2 * SETTLED_S)
    assert await ill.marked() == set()


async def test_a_damaged_list_of_a_closed_jobs_clips_does_not_keep_them(ill: Ill) -> None:
    await sharing.note_repeats(ill.jobs)
    await ill.make(A)
    await ill.blob.put(job_key("t", A, "closed"), b"{")
    assert (await remove(ill.jobs, "t", A)).freed_bytes == 7
    assert await ill.media() == set()


def test_troubles_are_bounded_and_news_once() -> None:
    troubles = Troubles()
    assert troubles.failed("a", "full", now_s=0.0)
    assert not troubles.failed("a", "full", now_s=100.0)
    assert troubles.failed("a", "gone", now_s=200.0)
    assert (troubles.times("a"), troubles.due("a", now_s=439.0), troubles.due("a", now_s=440.0)) == (3, False, True)
    for number in range(MOST):
        troubles.failed(str(number), "", now_s=0.0)
    assert (troubles.times("a"), troubles.times("0")) == (0, 1)
    troubles.over("0")
    assert troubles.due("0", now_s=0.0)
