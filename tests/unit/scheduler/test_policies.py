"""The policy: refused where it is out of range, kept and numbered, followed by every scheduler, and restored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Bus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, Conflict, InvalidRequest
from adaptivegen.heartbeat import POLICY_BUCKET
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from scheduler.numbered import MAX_TEXT_CHARS, READ_EVERY_S, STORE_EVERY_S
from scheduler.policies import KEY, Policies, PolicyChange
from scheduler.steady import SteadyTime
from tests.unit.scheduler.away import AwayBus
from tests.unit.scheduler.builders import place, query, view


class World:
    """One broker and one store, and schedulers on them."""

    def __init__(self, blob: BlobStore) -> None:
        self.clock = ManualClock()
        self.bus = AwayBus(self.clock)
        self.blob = blob

    def scheduler(self, seen: View | None = None) -> Policies:
        bus = cast(Bus, self.bus)
        return Policies(seen or view(), bus, self.blob, clock=self.clock, time=SteadyTime(self.clock))

    async def copy(self) -> bytes | None:
        entry = await (await self.bus.kv(POLICY_BUCKET)).get(KEY)
        return entry.value if entry else None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    blob = open_store(f"file://{tmp_path}")
    yield World(blob)
    await blob.close()


async def cheaper(policies: Policies, value: float = 0.25) -> None:
    await policies.change({"cost_iterate": value}, (), by="eve", reason="try it")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"cost_iterate": -1.0}, "-1"),
        ({"cost_render": math.nan}, "nan"),
        ({"draft_weight_iterate": 1.5}, "1.5"),
        ({"draft_best_s": 20.0}, "20"),
        ({"final_worst_s": math.inf}, "final_worst_s"),
        ({"unmeasured_draft": 9.0}, "9"),
        ({"cost_iterate": 1e308}, "1e\\+06"),
        ({"final_best_s": 120.0 - 1e-9}, "final_best_s"),
        ({"draft_best_s": 0.0}, "draft_best_s"),
        ({"cost_iterat": 1.0}, "cost_iterate"),
        ({f"x{number}": 1.0 for number in range(65)}, "at most 64"),
    ],
)
async def test_values_out_of_range_are_refused_by_name_and_nothing_is_kept(
    world: World, values: dict[str, float], named: str
) -> None:
    policies = world.scheduler()
    with pytest.raises(InvalidRequest, match=named):
        await policies.change(values, (), by="eve", reason="")
    with pytest.raises(InvalidRequest, match="unset"):
        await policies.change({}, ("cost_iterat",), by="eve", reason="")
    with pytest.raises(InvalidRequest, match="at most 64"):
        await policies.change({}, ["cost_render"] * 65, by="eve", reason="")
    with pytest.raises(InvalidRequest, match="reason"):
        await policies.change({"cost_iterate": 0.5}, (), by="eve", reason="x" * (MAX_TEXT_CHARS + 1))
    assert policies.in_force == Policy()
    assert await policies.history(10) == []


async def test_a_change_is_in_force_at_once_here_and_after_a_reading_elsewhere(world: World) -> None:
    one, other = world.scheduler(), world.scheduler()
    await cheaper(one)
    assert one.in_force.values()["cost_iterate"] == 0.25
    assert other.in_force == Policy()
    await other.read()
    assert other.in_force == one.in_force
    await other.change({"draft_weight_iterate": 0.7}, ("cost_iterate",), by="bob", reason="")
    await one.read()
    assert one.in_force == other.in_force == Policy().but({"draft_weight_iterate": 0.7})
    assert [(change.number, change.by) for change in await one.history(10)] == [(2, "bob"), (1, "eve")]


async def test_decisions_follow_the_policy_and_their_digest_tells_it_apart(world: World) -> None:
    seen, asked = view(), query(intent="iterate")
    policies = world.scheduler(seen)
    before, digest = place(seen, asked).plan, seen.digest()
    await cheaper(policies, 0.0)
    assert (before, place(seen, asked).plan) == ("draft", "refine")
    assert seen.digest() != digest


async def test_of_two_changes_at_once_one_is_told_that_it_came_second(world: World) -> None:
    one, other = world.scheduler(), world.scheduler()
    went = await asyncio.gather(cheaper(one, 0.1), cheaper(other, 0.2), return_exceptions=True)
    lost = [result for result in went if result is not None]
    assert len(lost) <= 1 and all(isinstance(result, Conflict) for result in lost)
    await one.read()
    await other.read()
    assert one.in_force == other.in_force
    assert len(await one.history(10)) == 2 - len(lost)


async def test_without_the_broker_a_change_is_kept_and_told_when_it_is_back(world: World) -> None:
    one, other = world.scheduler(), world.scheduler()
    world.bus.away = True
    await cheaper(one)
    assert one.in_force.values()["cost_iterate"] == 0.25
    with pytest.raises(BrokerUnavailable):
        await other.read()
    world.bus.away = False
    await one.read()
    await other.read()
    assert other.in_force == one.in_force


async def test_a_change_that_only_the_store_has_is_in_force_after_a_restart_and_told_to_the_broker(
    world: World,
) -> None:
    one = world.scheduler()
    await cheaper(one, 0.5)
    world.bus.away = True
    await cheaper(one, 0.25)
    fresh = world.scheduler()
    with pytest.raises(BrokerUnavailable):
        await fresh.read()
    assert fresh.in_force.values()["cost_iterate"] == 0.25
    world.bus.away = False
    other = world.scheduler()
    await other.read()
    await world.scheduler().read()
    assert other.in_force == fresh.in_force
    assert b"0.25" in (await world.copy() or b"")


async def test_after_the_store_was_set_back_a_new_change_still_counts(world: World) -> None:
    one, other = world.scheduler(), world.scheduler()
    await cheaper(one, 0.25)
    await cheaper(one, 0.5)
    await other.read()
    for number in (1, 2):
        await world.blob.delete(f"policy/{number:012d}")
    await cheaper(one, 0.9)
    await other.read()
    assert one.in_force == other.in_force == Policy().but({"cost_iterate": 0.9})


async def test_the_store_is_listed_once_a_minute_where_nothing_was_ever_changed(world: World) -> None:
    policies = world.scheduler()
    await policies.read()
    await world.blob.put("policy/000000000001", PolicyChange(number=1, values={}, by="", reason="", at_ns=1).encode())
    for _ in range(10):
        await world.clock.advance(READ_EVERY_S)
        await policies.read()
    assert policies.newest is None
    await world.clock.advance(STORE_EVERY_S)
    await policies.read()
    assert policies.newest is not None


async def test_an_unreadable_change_is_shown_and_passed_over(world: World) -> None:
    policies = world.scheduler()
    await cheaper(policies)
    await world.blob.put("policy/000000000009", b"{")
    await policies.change({"draft_weight_iterate": 0.7}, (), by="eve", reason="on")
    shown = await policies.history(10)
    assert [change.number for change in shown] == [10, 9, 1]
    assert "unreadable" in shown[1].reason
    assert policies.in_force == Policy().but({"cost_iterate": 0.25, "draft_weight_iterate": 0.7})


@pytest.mark.parametrize(
    "left", [None, b"", b"{}", b"\xff", b'{"number": 1, "values": {}, "by": "", "reason": "", "at_ns": -1}']
)
async def test_a_broker_that_lost_or_damaged_the_copy_is_given_it_again(world: World, left: bytes | None) -> None:
    await cheaper(world.scheduler())
    copied = await world.copy()
    bucket = await world.bus.kv(POLICY_BUCKET)
    await (bucket.delete(KEY) if left is None else bucket.put(KEY, left))
    fresh = world.scheduler()
    await fresh.read()
    assert fresh.in_force.values()["cost_iterate"] == 0.25
    assert await world.copy() == copied


async def test_a_change_that_this_version_cannot_follow_leaves_the_last_one_standing(world: World) -> None:
    policies = world.scheduler()
    await cheaper(policies)
    foreign = b'{"number": 2, "values": {"of_the_future": 1.0}, "by": "", "reason": "", "at_ns": 1}'
    await world.blob.put("policy/000000000002", foreign)
    await (await world.bus.kv(POLICY_BUCKET)).put(KEY, foreign)
    with pytest.raises(AdaptiveGenError, match="of_the_future"):
        await policies.read()
    assert policies.in_force.values()["cost_iterate"] == 0.25
    await policies.change({}, ("of_the_future",), by="eve", reason="back")
    assert policies.in_force == Policy()


async def test_a_copy_that_fell_behind_while_the_broker_was_away_is_given_again(world: World) -> None:
    policies = world.scheduler()
    await cheaper(policies, 0.5)
    await policies.read()
    world.bus.away = True
    await cheaper(policies, 0.25)
    world.bus.away = False
    await policies.read()
    copied = await world.copy()
    assert copied is not None and b'"number":2' in copied


async def test_a_value_that_is_set_to_what_is_configured_does_not_differ_from_it(world: World) -> None:
    policies = world.scheduler()
    configured = policies.configured.values()["cost_iterate"]
    await policies.change({"cost_iterate": configured + 1.0}, (), by="ada", reason="")
    made = await policies.change({"cost_iterate": configured}, (), by="ada", reason="as before")
    assert (made.number, made.values) == (2, {})
    assert policies.in_force == policies.configured


async def test_a_change_of_nothing_is_refused_and_not_kept(world: World) -> None:
    policies = world.scheduler()
    with pytest.raises(InvalidRequest, match="nothing to change"):
        await policies.change({}, (), by="ada", reason="none")
    assert await policies.history(10) == []
