"""Ending tasks."""

import asyncio

from adaptivegen.process import end


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1  # as `asyncio.wait_for` of Python 3.11 does when its answer comes at the same moment

    tasks = [asyncio.get_running_loop().create_task(stubborn()) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(*tasks)
    assert all(task.cancelled() for task in tasks)
    assert lost >= 2


async def test_ending_nothing_or_what_has_ended_is_fine() -> None:
    done = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await done
    await end(done)
    await end()
