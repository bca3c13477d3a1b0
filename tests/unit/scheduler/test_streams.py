"""Live snapshots: made once a second for all who follow, bounded, and ended."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import ResourceExhausted, Unavailable
from adaptivegen.process import end
from scheduler.api.stream import HEARTBEAT, MAX_STREAMS, MAX_WAITING, Streams
from scheduler.snapshot import InAll, Snapshot


class Taken:
    """Snapshots that are numbered."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    async def take(self) -> Snapshot:
        if self.fails:
            raise RuntimeError("a bug")
        self.count += 1
        return Snapshot("s", self.count, 0, (), (), (), (), (), (), (), (), (), InAll(0, 0, 0, 0, 0))


def at_ns(event: bytes) -> int:
    """Which snapshot an event holds."""
    lines = event.decode().split("\n")
    assert lines[-4] == "event: snapshot" and event.endswith(b"\n\n")
    return int(json.loads(lines[-3].removeprefix("data: "))["at_ns"])


@asynccontextmanager
async def running(taken: Taken) -> AsyncIterator[tuple[Streams, ManualClock, asyncio.Task[None]]]:
    clock = ManualClock()
    streams = Streams(taken.take, clock=clock)
    task = asyncio.get_running_loop().create_task(streams.run())
    await asyncio.sleep(0)
    try:
        yield streams, clock, task
    finally:
        await end(task)


def never() -> None:
    raise AssertionError("nobody is to be cut off here")


async def test_a_stream_begins_at_once_and_goes_on_every_second() -> None:
    async with running(Taken()) as (streams, clock, _), aclosing(streams.follow(never)) as events:
        first = await anext(events)
        assert first.startswith(b"retry: ")
        seen = [at_ns(first)]
        for _ in range(3):
            await clock.advance(1.0)
            seen.append(at_ns(await anext(events)))
        assert seen == [1, 2, 3, 4]


async def test_one_snapshot_is_made_for_all_and_none_for_nobody() -> None:
    taken = Taken()
    async with running(taken) as (streams, clock, _):
        await clock.advance(5.0)
        assert taken.count == 0
        both = [streams.follow(never) for _ in range(2)]
        for events in both:
            assert at_ns(await anext(events)) == 1
        await clock.advance(1.0)
        assert [at_ns(await anext(events)) for events in both] == [2, 2]
        for events in both:
            await events.aclose()
        assert len(streams) == 0
        await clock.advance(5.0)
        assert taken.count == 2


async def test_who_does_not_read_is_cut_off_and_others_are_not() -> None:
    cut: list[str] = []
    async with running(Taken()) as (streams, clock, _):
        slow, quick = streams.follow(lambda: cut.append("slow")), streams.follow(lambda: cut.append("quick"))
        await anext(slow)
        await anext(quick)
        for _ in range(MAX_WAITING + 1):
            assert (cut, len(streams)) == ([], 2)
            await clock.advance(1.0)
            await anext(quick)
        assert (cut, len(streams)) == (["slow"], 1)


async def test_there_are_so_many_streams_and_a_place_that_is_left_is_free() -> None:
    async with running(Taken()) as (streams, _, _):
        opened = [streams.follow(never) for _ in range(MAX_STREAMS)]
        for events in opened:
            await anext(events)
        with pytest.raises(ResourceExhausted) as refused:
            await anext(streams.follow(never))
        assert refused.value.retry_after_s
        await opened[random.Random(1).randrange(MAX_STREAMS)].aclose()
        await anext(streams.follow(never))


async def test_a_snapshot_that_cannot_be_made_is_a_heartbeat() -> None:
    taken = Taken()
    async with running(taken) as (streams, clock, _), aclosing(streams.follow(never)) as events:
        await anext(events)
        taken.fails = True
        await clock.advance(1.0)
        assert await anext(events) == HEARTBEAT
        taken.fails = False
        await clock.advance(1.0)
        assert at_ns(await anext(events)) == 2


async def test_streams_end_with_the_scheduler_and_none_begins_then() -> None:
    cut: list[str] = []
    async with running(Taken()) as (streams, clock, task):
        following, stuck = streams.follow(never), streams.follow(lambda: cut.append("stuck"))
        await anext(following)
        await anext(stuck)
        await clock.advance(1.0)
        await anext(following)
        await end(task)
        assert [event async for event in following] == []
        assert cut == ["stuck"]
        with pytest.raises(Unavailable):
            await anext(streams.follow(never))
