"""The idempotency keys that an edge has seen, over its lives: bounded, expiring, and whole after a crash."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adaptivegen.clock import ManualClock
from adaptivegen.ids import new_video_id
from adaptivegen.jobs.store import IDEMPOTENCY_TTL_S
from edge_node.spool.seen import KEEP_S, MAX_LINE_BYTES, Seen, SeenKeys
from tests.jobs import JOB_ID

OTHER_ID = new_video_id(now_ns=5, rng=random.Random(1))


@asynccontextmanager
async def life(folder: Path, clock: ManualClock, *, max_keys: int = 4) -> AsyncIterator[SeenKeys]:
    made = SeenKeys(folder / "seen", clock=clock, max_keys=max_keys)
    await made.open()
    yield made
    await made.close()


def lines(folder: Path) -> int:
    """Lines on the disk, all together."""
    return sum(len(path.read_bytes().splitlines()) for path in (folder / "seen").iterdir())


async def test_a_key_is_known_to_the_next_life_for_as_long_as_the_centre_remembers_it(tmp_path: Path) -> None:
    clock = ManualClock()
    async with life(tmp_path, clock) as seen:
        await seen.keep("t", "k", JOB_ID, "body")
        await seen.keep("t", "k2", JOB_ID, "body")
    await clock.advance(IDEMPOTENCY_TTL_S - 1)
    async with life(tmp_path, clock) as seen:
        found = seen.find("t", "k")
        assert found is not None and (found.id, found.body) == (JOB_ID, "body")
        assert seen.find("other", "k") is None
        await seen.keep("t", "k", JOB_ID, "body")  # a resend does not make it younger
        await seen.keep("t", "k2", OTHER_ID, "body")  # the centre has bound it anew
        await clock.advance(1)
        assert seen.find("t", "k") is None
        known = seen.find("t", "k2")
        assert known is not None and known.id == OTHER_ID


async def test_memory_and_disk_are_bounded_and_the_latest_stay(tmp_path: Path) -> None:
    clock = ManualClock()
    async with life(tmp_path, clock) as seen:
        for number in range(50):
            await seen.keep("t", f"k{number}", JOB_ID, "body")
        assert [number for number in range(50) if seen.find("t", f"k{number}")][-4:] == [46, 47, 48, 49]
    assert 4 <= lines(tmp_path) <= 9
    async with life(tmp_path, clock) as seen:
        assert 4 <= len([number for number in range(50) if seen.find("t", f"k{number}")]) <= 8
        assert seen.find("t", "k49") is not None


async def test_keys_that_come_together_are_all_on_the_disk_when_they_are_answered(tmp_path: Path) -> None:
    clock = ManualClock()
    async with life(tmp_path, clock, max_keys=100) as seen:
        await asyncio.gather(*(seen.keep("t", f"k{number}", JOB_ID, "body") for number in range(20)))
        async with life(tmp_path, clock, max_keys=100) as other:  # what is there if this process is killed now
            assert all(other.find("t", f"k{number}") for number in range(20))


async def test_lines_that_are_damaged_are_passed_over_and_spoil_no_other(tmp_path: Path) -> None:
    clock = ManualClock()
    async with life(tmp_path, clock) as seen:
        await seen.keep("t", "k", JOB_ID, "body")
    path = tmp_path / "seen" / "new"
    whole = path.read_bytes()
    strange = Seen(tenant="t", key="s", id="../../etc", body="body", at_ns=1).encode()
    long = b"x" * (MAX_LINE_BYTES + 1) + b"\n"
    path.write_bytes(b"\xff\x00\n" + strange + long + whole + whole[: len(whole) // 2])  # a write was cut off
    async with life(tmp_path, clock, max_keys=10) as seen:
        assert seen.find("t", "k") is not None and seen.find("t", "s") is None
        await seen.keep("t", "k2", JOB_ID, "body")
    async with life(tmp_path, clock, max_keys=10) as seen:
        assert seen.find("t", "k") is not None and seen.find("t", "k2") is not None


async def test_a_disk_that_refuses_costs_the_next_life_only(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "seen").write_text("no folder")
    async with life(tmp_path, clock) as seen:
        await seen.keep("t", "k", JOB_ID, "body")
        assert seen.find("t", "k") is not None
        (tmp_path / "seen").unlink()
        await seen.keep("t", "k2", JOB_ID, "body")
    async with life(tmp_path, clock) as seen:
        assert seen.find("t", "k") is None
        assert seen.find("t", "k2") is not None


async def test_a_disk_that_hangs_costs_one_request_its_wait_and_gets_what_came_meanwhile_when_it_answers(
    tmp_path: Path,
) -> None:
    clock, loop = ManualClock(), asyncio.get_running_loop()
    async with life(tmp_path, clock, max_keys=100) as seen:
        folder = tmp_path / "seen"
        folder.mkdir()
        os.mkfifo(folder / "new")  # nobody reads it: who opens it hangs
        began_s = loop.time()
        await seen.keep("t", "k", JOB_ID, "body")
        waited_s = loop.time()
        assert waited_s - began_s >= 0.9 * KEEP_S
        for number in range(5):
            await seen.keep("t", f"k{number}", JOB_ID, "body")
        assert loop.time() - waited_s < KEEP_S
        pipe = os.open(folder / "new", os.O_RDONLY | os.O_NONBLOCK)
        (folder / "new").unlink()
        async with asyncio.timeout(10):
            while not ((folder / "new").exists() and lines(tmp_path) >= 5):
                await asyncio.sleep(0.01)
        os.close(pipe)
        await seen.keep("t", "last", JOB_ID, "body")
        async with life(tmp_path, clock, max_keys=100) as other:
            assert [other.find("t", f"k{number}") is not None for number in range(5)] == [True] * 5
            assert other.find("t", "last") is not None


async def test_what_came_while_the_disk_hung_is_written_also_where_the_edge_ends_first(tmp_path: Path) -> None:
    clock = ManualClock()
    folder = tmp_path / "seen"
    async with life(tmp_path, clock, max_keys=100) as seen:
        folder.mkdir()
        os.mkfifo(folder / "new")
        for number in range(2):
            await seen.keep("t", f"k{number}", JOB_ID, "body")
    pipe = os.open(folder / "new", os.O_RDONLY | os.O_NONBLOCK)
    (folder / "new").unlink()
    async with asyncio.timeout(10):
        while not ((folder / "new").exists() and lines(tmp_path)):
            await asyncio.sleep(0.01)
    os.close(pipe)
    async with life(tmp_path, clock, max_keys=100) as other:
        assert other.find("t", "k1") is not None
