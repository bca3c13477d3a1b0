"""What schedulers tell edges of tenants and their quotas."""

from __future__ import annotations

from typing import cast

import pytest

from adaptivegen.bus.base import Bus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable
from adaptivegen.standing import BUCKET, KEPT_S, KEY, MAX_TENANTS, Standing, Standings
from adaptivegen.untrusted import parsed
from scheduler.decide.quota import EVERYBODY
from scheduler.decide.view import View
from scheduler.standings import AGAIN_AFTER_S, FIRST_AFTER_S, StandingsTold, of_view
from scheduler.steady import SteadyTime
from tests.unit.scheduler.away import AwayBus
from tests.unit.scheduler.builders import NOW_NS, open_job, view


def test_limits_and_use_are_told_of_those_that_have_any_and_of_everybody_else_at_once() -> None:
    seen = view()
    seen.quotas.set({EVERYBODY: {"concurrent_jobs": 4}, "paid": {"gpu_seconds_per_hour": 100, "priority": 1}})
    seen.jobs.place(open_job(tenant="local", gpu_s=12.0))
    seen.jobs.usage.add("local", 30.0, decided_at_s=NOW_NS / 1e9, now_s=NOW_NS / 1e9)
    seen.stored.by_tenant = {"local": 7}
    told = of_view(seen, now_ns=NOW_NS)
    assert told.everybody == Standing(concurrent_jobs=4) == told.of("nobody")
    assert told.of("paid") == Standing(concurrent_jobs=4, gpu_seconds_per_hour=100, priority=True)
    assert told.of("local") == Standing(concurrent_jobs=4, used_gpu_s=42.0, open_jobs=1, stored=7)
    assert parsed(Standings, told.encode(), name="standings") == told


def test_beyond_the_bound_those_that_use_least_are_told_as_everybody() -> None:
    seen, now_s = view(), NOW_NS / 1e9
    for number in range(MAX_TENANTS + 5):
        seen.jobs.usage.add(f"t{number}", 1.0 + number, decided_at_s=now_s, now_s=now_s)
    seen.quotas.set({"idle": {"concurrent_jobs": 0}})
    told = of_view(seen, now_ns=NOW_NS)
    assert len(told.tenants) == MAX_TENANTS
    assert told.of("idle").concurrent_jobs == 0
    assert f"t{MAX_TENANTS + 4}" in told.tenants and "t0" not in told.tenants


def test_who_has_stored_what_it_may_is_told_of_though_it_uses_nothing() -> None:
    seen = view()
    seen.quotas.set({EVERYBODY: {"stored_bytes": 1000}})
    seen.stored.by_tenant = {"full": 950, "little": 10}
    told = of_view(seen, now_ns=NOW_NS)
    assert {name: one.stored for name, one in told.tenants.items()} == {"full": 950}


class Telling:
    """One scheduler's teller, a broker, and what is in it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = AwayBus(self.clock)
        self.view: View = view()
        self.told = StandingsTold(self.view, cast(Bus, self.bus), clock=self.clock, time=SteadyTime(self.clock))

    async def revision(self) -> int:
        entry = await (await self.bus.kv(BUCKET, ttl_s=KEPT_S)).get(KEY)
        return entry.revision if entry is not None else 0


async def test_what_has_not_changed_is_told_again_before_it_is_too_old_and_no_sooner() -> None:
    made = Telling()
    await made.told.tell()
    first = await made.revision()
    await made.clock.advance(AGAIN_AFTER_S - 1)
    await made.told.tell()
    assert await made.revision() == first > 0
    await made.clock.advance(2)
    await made.told.tell()
    second = await made.revision()
    assert second > first
    made.view.quotas.set({EVERYBODY: {"concurrent_jobs": 1}})
    await made.told.tell()
    assert await made.revision() > second
    assert AGAIN_AFTER_S < KEPT_S > FIRST_AFTER_S


async def test_what_could_not_be_told_is_told_when_the_broker_is_back() -> None:
    made = Telling()
    made.bus.away = True
    with pytest.raises(BrokerUnavailable):
        await made.told.tell()
    made.bus.away = False
    await made.told.tell()
    assert await made.revision() > 0


async def test_nothing_is_told_while_what_is_stored_is_limited_and_not_counted_yet() -> None:
    made = Telling()
    made.view.quotas.set({EVERYBODY: {"stored_bytes": 1000}})
    await made.told.tell()
    assert await made.revision() == 0
    made.view.stored.counted({})
    await made.told.tell()
    assert await made.revision() > 0
