"""The bounded buffer of subscriptions."""

import asyncio

import pytest

from adaptivegen.bus.buffer import DropOldest
from adaptivegen.errors import InvalidRequest


async def test_the_oldest_goes_when_full_and_the_loss_is_counted() -> None:
    buffer: DropOldest[int] = DropOldest(2)
    for number in range(5):
        buffer.offer(number)
    assert [await buffer.take(), await buffer.take()] == [3, 4]
    assert buffer.dropped == 3


async def test_a_reader_waits_for_what_comes() -> None:
    buffer: DropOldest[int] = DropOldest(2)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(buffer.take())
        await asyncio.sleep(0)
        assert not reader.done()
        buffer.offer(7)
    assert reader.result() == 7
    assert buffer.dropped == 0


async def test_a_cancelled_reader_takes_nothing_away() -> None:
    buffer: DropOldest[int] = DropOldest(2)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(buffer.take())
        await asyncio.sleep(0)
        reader.cancel()
        buffer.offer(7)
    assert await buffer.take() == 7


async def test_closing_ends_a_waiting_reader_and_leaves_the_rest_unread() -> None:
    buffer: DropOldest[int] = DropOldest(2)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(buffer.take())
        await asyncio.sleep(0)
        buffer.close()
    assert reader.result() is None
    buffer.offer(7)
    assert [item async for item in buffer] == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_without_room_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match="buffer is"):
        DropOldest(size)
