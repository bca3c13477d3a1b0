"""Virtual time."""

import asyncio

from adaptivegen.clock import ManualClock


async def test_sleepers_wake_in_order_of_their_time_and_see_it() -> None:
    clock = ManualClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.monotonic_s()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 2.0))
        group.create_task(sleeper("early", 1.0))
        await asyncio.sleep(0)
        await clock.advance(0.5)
        assert seen == []
        await clock.advance(5.0)
    assert seen == [("early", 1.0), ("late", 2.0)]
    assert clock.monotonic_s() == 5.5
