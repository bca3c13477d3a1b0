"""Whose turn it is at a model."""

import asyncio

from adaptivegen.generation.turn import Turn


async def begun(turn: Turn, order: list[str], name: str, due_s: float) -> "asyncio.Task[None]":
    async def work() -> None:
        await turn.acquire(due_s)
        order.append(name)
        turn.release()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return task


async def test_the_one_due_first_goes_first_and_equals_go_as_they_came() -> None:
    turn, order = Turn(), list[str]()
    await turn.acquire()
    tasks = [
        await begun(turn, order, name, due_s) for name, due_s in (("late", 9.0), ("a", 1.0), ("b", 1.0), ("c", 0.5))
    ]
    assert turn.due_by(1.0) == 3
    turn.release()
    await asyncio.gather(*tasks)
    assert order == ["c", "a", "b", "late"]
    assert not turn.locked()


async def test_one_that_is_cancelled_while_it_waits_is_passed_over() -> None:
    turn, order = Turn(), list[str]()
    await turn.acquire()
    first, second = await begun(turn, order, "a", 1.0), await begun(turn, order, "b", 2.0)
    first.cancel()
    await asyncio.sleep(0)
    assert turn.due_by(9.0) == 1
    turn.release()
    await second
    assert order == ["b"]
    assert not turn.locked()


async def test_one_that_is_cancelled_as_its_turn_comes_hands_it_on() -> None:
    turn, order = Turn(), list[str]()
    await turn.acquire()
    first, second = await begun(turn, order, "a", 1.0), await begun(turn, order, "b", 2.0)
    turn.release()
    first.cancel()
    await asyncio.wait({first, second})
    assert order == ["b"]
    assert first.cancelled()
    assert not turn.locked()


async def test_it_can_be_held_in_a_block() -> None:
    turn = Turn()
    async with turn:
        assert turn.locked()
    assert not turn.locked()
