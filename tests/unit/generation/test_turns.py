"""Turns at a model: who goes next, on virtual time."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.drafting import (
    AGED_S,
    DATED_YIELDS_S,
    MOST_YIELDS_S,
    RENDER_YIELDS_S,
    Wait,
    goes_next,
    has_room,
    share_ahead,
    yields_s,
)
from adaptivegen.generation.turns import MOST_CHARGED_S, Turns


class Model:
    """Turns of which each lasts until the next is asked for; `order` has who had one."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.turns = Turns(self.clock)
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, tenant: str = "", yields_s: float = 0.0) -> None:
        self.tasks[name] = asyncio.get_running_loop().create_task(self._turn(name, tenant, yields_s))
        await asyncio.sleep(0)

    async def _turn(self, name: str, tenant: str, yields_s: float) -> None:
        await self.turns.acquire(tenant=tenant, yields_s=yields_s)
        self.order.append(name)

    async def next(self, after_s: float = 0.0) -> None:
        await self.clock.advance(after_s)
        self.turns.release()
        for _ in range(3):
            await asyncio.sleep(0)


async def _ahead(rng: random.Random) -> tuple[float, float, int]:
    """Of a new draft at an edge where several tenants have been taking turns: how many are said to go before it, how
    many do, and how many wait."""
    model = Model()
    came = {str(number): rng.choice(["heavy"] * 6 + ["light", "other"]) for number in range(rng.randint(6, 12))}
    for name, tenant in came.items():
        await model.come(name, tenant=tenant)
    for _ in range(rng.randint(0, 4)):
        await model.next(after_s=1.0)
    waiting = Counter(tenant for name, tenant in came.items() if name not in model.order)
    whose = rng.choice(["heavy", "light", "other"])
    said = share_ahead(whose, waiting) * waiting.total()
    await model.come("new", tenant=whose)
    before = len(model.order)
    while "new" not in model.order:
        await model.next(after_s=1.0)
    for task in model.tasks.values():
        task.cancel()
    return said, float(len(model.order) - 1 - before), waiting.total()


async def test_what_goes_before_a_new_draft_is_told_better_by_turns_than_by_all_that_wait() -> None:
    rng = random.Random(7)
    found = [await _ahead(rng) for _ in range(200)]
    off = statistics.fmean(abs(said - done) for said, done, _ in found)
    off_by_all = statistics.fmean(all_of_them - done for _, done, all_of_them in found)
    assert off < 0.7 < 2.0 < off_by_all
    assert abs(statistics.fmean(said - done for said, done, _ in found)) < 0.5


def test_who_waits_alone_or_where_nothing_is_known_waits_for_all() -> None:
    assert share_ahead("a", {"a": 5}) == share_ahead("a", {}) == 1.0
    assert share_ahead("a", {"b": 4}) == 0.25
    assert share_ahead("a", {"a": 1, "b": 4, "c": 1}) == pytest.approx(4 / 6)


def test_a_draft_that_is_looked_at_yields_to_nobody_and_a_deadline_leaves_less_time_to() -> None:
    assert yields_s("iterate", deadline_s=4.0) == 0.0
    assert yields_s("render", deadline_s=None) == RENDER_YIELDS_S
    assert yields_s("render", deadline_s=4.0) == DATED_YIELDS_S < RENDER_YIELDS_S


@pytest.mark.parametrize(
    ("waits", "number"),
    [
        ([Wait(0.2, 1.5), Wait(0.1, 0.0)], 1),
        ([Wait(0.2, 1.5), Wait(0.1, 1.5)], 0),
        ([Wait(1.5, 1.5), Wait(0.1, 0.0)], 0),
        ([Wait(0.4, 1.5), Wait(0.3, 0.0), Wait(0.2, 0.0)], 1),
        ([Wait(MOST_YIELDS_S, 1e9), Wait(0.2, 0.0)], 0),
        ([Wait(0.0, float("nan")), Wait(0.2, 0.0)], 0),
        ([Wait(0.4, 0.0, 2.0), Wait(0.3, 0.0, 1.0), Wait(0.2, 0.0, 1.0)], 1),
        ([Wait(0.4, 0.0, 2.0), Wait(0.3, 1.5, 1.0)], 0),
        ([Wait(0.4, 1.5, 2.0), Wait(0.3, 1.5, 1.0)], 1),
    ],
)
def test_who_yields_lets_others_go_first_until_it_has_waited_so_long(waits: list[Wait], number: int) -> None:
    assert goes_next(waits) == number


@pytest.mark.parametrize(
    ("queued", "own", "tenants", "room"),
    [
        (15, 15, 1, True),
        (16, 16, 1, False),
        (16, 0, 2, True),
        (23, 7, 2, True),
        (24, 8, 2, False),
        (31, 0, 9, True),
        (32, 0, 9, False),
        (20, 0, 50, True),
        (20, 1, 50, False),
    ],
)
def test_a_further_draft_may_wait_while_there_is_room_or_its_tenant_has_less_than_its_share(
    queued: int, own: int, tenants: int, room: bool
) -> None:
    waiting = {"own": own} | {f"other {number}": 1 for number in range(tenants - 1)}
    assert has_room("own", waiting, queued=queued, at_most=16) is room


async def test_those_that_yield_to_nobody_have_their_turns_as_they_came() -> None:
    model = Model()
    for name in ("first", "second", "third"):
        await model.come(name)
    assert (model.order, model.turns.waiting) == (["first"], 2)
    await model.next()
    await model.next()
    assert model.order == ["first", "second", "third"]
    await model.next()
    assert not model.turns.held


async def test_a_render_lets_an_iteration_go_first_but_not_for_ever() -> None:
    model = Model()
    await model.come("at hand")
    await model.come("render", yields_s=1.5)
    await model.come("look")
    await model.next()
    assert model.order[-1] == "look"
    await model.clock.advance(1.5)
    await model.come("later look")
    await model.next()
    assert model.order[-1] == "render"
    await model.next()
    assert model.order[-1] == "later look"


async def test_a_tenant_does_not_wait_for_all_drafts_of_another() -> None:
    model = Model()
    for number in range(4):
        await model.come(f"many {number}", tenant="many")
    await model.come("one", tenant="one")
    await model.next(after_s=0.5)
    assert model.order == ["many 0", "one"]
    await model.next(after_s=0.5)
    assert model.order[-1] == "many 1"


async def test_tenants_share_by_how_long_they_had_the_model() -> None:
    model, long_s, short_s = Model(), 1.0, 0.25
    for number in range(6):
        await model.come(f"long {number}", tenant="long")
        await model.come(f"short {number}", tenant="short")
    for _ in range(9):
        await model.next(after_s=long_s if model.order[-1].startswith("long") else short_s)
    had = [name.split()[0] for name in model.order]
    assert had[:6] == ["long", "short", "short", "short", "short", "long"]
    assert had.count("short") == 6  # those of the other that are left go on by themselves


async def test_who_comes_back_has_saved_nothing_up() -> None:
    model = Model()
    await model.come("early", tenant="early")
    for number in range(4):
        await model.come(f"busy {number}", tenant="busy")
    await model.next(after_s=0.5)
    for _ in range(2):
        await model.next(after_s=0.5)
    for number in range(3):
        await model.come(f"back {number}", tenant="early")
    for _ in range(4):
        await model.next(after_s=0.5)
    assert model.order == ["early", "busy 0", "busy 1", "busy 2", "back 0", "busy 3", "back 1", "back 2"]


async def test_a_stream_of_tenants_that_have_had_nothing_keeps_nobody_waiting_for_ever() -> None:
    model = Model()
    await model.come("old 0", tenant="old")
    await model.come("old 1", tenant="old")
    for number in range(2):
        await model.come(f"new {number}", tenant=f"new {number}")
    for number in range(2, 40):
        await model.next(after_s=1.0)
        await model.come(f"new {number}", tenant=f"new {number}")
    assert model.order.index("old 1") <= AGED_S + 2


async def test_what_went_before_a_generation_or_went_wrong_is_not_its_tenants_to_pay_for() -> None:
    for loads_s, takes_s in ((60.0, 0.5), (0.0, 120.0)):  # a model that is loaded again, and one that says nothing
        model = Model()
        await model.come("a 0", tenant="a")
        await model.clock.advance(loads_s)
        model.turns.ready()
        await model.come("a 1", tenant="a")
        for number in range(30):
            await model.come(f"b {number}", tenant="b")
        await model.next(after_s=takes_s)
        while "a 1" not in model.order:
            await model.next(after_s=0.5)
        assert len(model.order) <= 2 + MOST_CHARGED_S / 0.5


async def test_what_tenants_had_is_forgotten_when_nobody_waits() -> None:
    model = Model()
    await model.come("a 0", tenant="a")
    await model.come("a 1", tenant="a")
    await model.next(after_s=9.0)
    await model.next(after_s=9.0)
    assert not model.turns.held
    await model.come("b 0", tenant="b")
    await model.come("a 2", tenant="a")
    await model.come("b 1", tenant="b")
    await model.next(after_s=0.5)
    assert model.order[-1] == "a 2"


async def test_one_that_is_cancelled_while_it_waits_is_passed_over() -> None:
    model = Model()
    for name in ("at hand", "gone", "next"):
        await model.come(name)
    model.tasks["gone"].cancel()
    await asyncio.wait({model.tasks["gone"]})
    await model.next()
    assert model.order == ["at hand", "next"]


@pytest.mark.parametrize("others", [(), ("next",)])
async def test_one_that_is_cancelled_in_the_moment_in_which_a_turn_ends_is_passed_over(others: tuple[str, ...]) -> None:
    """Its task does not know yet that it is to end."""
    model = Model()
    for name in ("at hand", "gone", *others):
        await model.come(name)
    model.tasks["gone"].cancel()
    model.turns.release()
    await asyncio.wait({model.tasks["gone"]})
    await asyncio.sleep(0)
    assert (model.order, model.turns.waiting) == (["at hand", *others], 0)
    assert model.turns.held is bool(others)
    assert model.tasks["gone"].cancelled()


async def test_one_that_is_cancelled_as_its_turn_comes_hands_it_on() -> None:
    model = Model()
    for name in ("at hand", "gone", "next"):
        await model.come(name)
    model.turns.release()  # it has the turn, and does not know yet
    model.tasks["gone"].cancel()
    await asyncio.wait({model.tasks["gone"]})
    await asyncio.sleep(0)
    assert (model.order, model.turns.held) == (["at hand", "next"], True)
    await model.next()
    assert not model.turns.held


async def test_a_turn_ends_with_its_block_whatever_happens_in_it() -> None:
    turns = Turns(ManualClock())
    with pytest.raises(ValueError, match="broken"):
        async with turns.turn():
            raise ValueError("broken")
    assert not turns.held
