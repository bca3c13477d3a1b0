"""What tenants may use: by whom it was set, what holds, and what is refused."""

from __future__ import annotations

import math
from typing import cast

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Bus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import InvalidRequest
from scheduler.decide.quota import EVERYBODY, MAX_TENANTS, AdmissionSettings, Quota, Quotas
from scheduler.quotas import TenantQuotas
from scheduler.steady import SteadyTime
from tests.unit.scheduler.away import AwayBus


class Operators:
    """A store and a broker that several schedulers share."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = AwayBus(self.clock)
        self.blob = open_store("memory://")

    def scheduler(self) -> TenantQuotas:
        time = SteadyTime(self.clock)
        return TenantQuotas(Quotas(), cast(Bus, self.bus), self.blob, clock=self.clock, time=time)


async def test_without_any_nobody_is_limited() -> None:
    assert Quotas().of("a") == Quota() == Quota(math.inf, math.inf, math.inf, 1.0, 0.0)
    assert not Quotas().limits_storage


async def test_a_tenants_own_values_go_before_everybodys() -> None:
    quotas = Operators().scheduler()
    await quotas.change(EVERYBODY, {"concurrent_jobs": 2, "weight": 0.5}, (), by="eve", reason="")
    await quotas.change("a", {"concurrent_jobs": 9, "stored_bytes": 1e9}, (), by="eve", reason="paid")
    known = quotas.in_force
    assert (known.of("a").concurrent_jobs, known.of("a").weight, known.of("b").concurrent_jobs) == (9, 0.5, 2)
    assert known.limits_storage
    await quotas.change("a", {}, ("concurrent_jobs", "stored_bytes"), by="eve", reason="")
    assert known.of("a") == known.of("b")
    assert not known.limits_storage


async def test_all_schedulers_follow_and_every_change_is_kept() -> None:
    operators = Operators()
    one, other = operators.scheduler(), operators.scheduler()
    await one.change("a", {"priority": 1}, (), by="eve", reason="paid")
    await other.read()
    assert other.in_force.of("a").priority == 1
    await other.change("b", {"weight": 3.0}, (), by="bob", reason="")
    history = await one.history(10)
    assert [(change.number, change.tenant, change.by) for change in history] == [(2, "b", "bob"), (1, "a", "eve")]
    assert history[0].values == {"a": {"priority": 1.0}, "b": {"weight": 3.0}}
    again = operators.scheduler()
    await again.read()
    assert again.in_force.of("b").weight == 3.0


@pytest.mark.parametrize(
    ("tenant", "values", "unset", "named"),
    [
        ("A b", {"weight": 1.0}, (), "tenant"),
        ("a", {"gpu_s": 1.0}, (), "gpu_seconds_per_hour, concurrent_jobs"),
        ("a", {"weight": 0.0}, (), "weight is 0.0; allowed: 0.01 to 100"),
        ("a", {"concurrent_jobs": -1.0}, (), "concurrent_jobs"),
        ("a", {"concurrent_jobs": 1.5}, (), "a whole number"),
        ("a", {"stored_bytes": math.nan}, (), "stored_bytes is nan"),
        ("a", {"gpu_seconds_per_hour": math.inf}, (), "gpu_seconds_per_hour is inf"),
        ("a", {"priority": 2.0}, (), "priority is 2.0; allowed: 0 to 1"),
        ("a", {"weight": 2.0}, ("weight",), "not set in the same change"),
        ("a", {}, ("weigth",), "unset is 'weigth'"),
        ("a", {}, (), "nothing to change"),
    ],
)
async def test_what_cannot_be_a_quota_is_refused_by_name_and_changes_nothing(
    tenant: str, values: dict[str, float], unset: tuple[str, ...], named: str
) -> None:
    quotas = Operators().scheduler()
    with pytest.raises(InvalidRequest, match=named):
        await quotas.change(tenant, values, unset, by="eve", reason="")
    assert await quotas.history(10) == []


async def test_more_tenants_than_are_kept_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=f"at most {MAX_TENANTS}"):
        Quotas().set({f"t{number}": {"weight": 2.0} for number in range(MAX_TENANTS + 1)})


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_longest_wait_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(Exception, match="max_wait_s"):
        AdmissionSettings(max_wait_s=value)
