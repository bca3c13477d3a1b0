"""A cancel that the broker's library swallows reaches whoever asked for it all the same."""

import asyncio

import nats.errors
import pytest

from adaptivegen.bus.nats_connection import translated
from adaptivegen.errors import BrokerUnavailable


async def swallowing(error: Exception | None) -> str:
    """Waits for ever; cancelled, it answers or fails instead, as `asyncio.wait_for` may before Python 3.12."""
    with translated("get"):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return "answer"


@pytest.mark.parametrize("error", [None, nats.errors.TimeoutError(), OSError("away")])
async def test_a_swallowed_cancel_is_raised_again(error: Exception | None) -> None:
    task = asyncio.get_running_loop().create_task(swallowing(error))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_swallowed_deadline_is_still_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await swallowing(None)


async def test_calls_of_a_task_that_was_cancelled_before_are_not_disturbed() -> None:
    released = asyncio.Event()

    async def cleaning_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with translated("release"):
                await asyncio.sleep(0)
            released.set()

    task = asyncio.get_running_loop().create_task(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert released.is_set()
    assert task.cancelled()


@pytest.mark.parametrize("leaving", [SystemExit(3), asyncio.CancelledError("by name")])
async def test_what_is_no_answer_passes_as_it_is(leaving: BaseException) -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(type(leaving)) as caught, translated("get"):
        task.cancel()
        task.uncancel()
        raise leaving
    assert caught.value is leaving
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)  # the cancel asked for above


async def test_errors_without_a_cancel_are_translated() -> None:
    with pytest.raises(BrokerUnavailable, match="get: TimeoutError"), translated("get"):
        raise nats.errors.TimeoutError
