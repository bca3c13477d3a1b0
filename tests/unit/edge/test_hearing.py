"""How an edge hears of quotas, and what of that is left after a restart."""

from pathlib import Path

import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable
from adaptivegen.standing import BUCKET, KEPT_S, KEY, Standing, Standings
from edge_node.hearing import KEEP_EVERY_S, QuotaHearing
from edge_node.quotas import Quotas

TOLD = Standings(at_ns=2**62, everybody=Standing(concurrent_jobs=2), tenants={"t": Standing(open_jobs=1)})


def told_at(clock: ManualClock, behind_s: float) -> Standings:
    """A telling of now, by a scheduler whose clock is so much behind this edge's."""
    return TOLD.model_copy(update={"at_ns": clock.now_ns() - round(behind_s * 1e9)})


async def tell(bus: MemoryBus, data: bytes) -> None:
    await (await bus.kv(BUCKET, ttl_s=KEPT_S)).put(KEY, data)


async def test_what_schedulers_tell_is_heard_and_kept_with_its_age(tmp_path: Path) -> None:
    clock = ManualClock()
    bus, path = MemoryBus(clock), tmp_path / "spool" / "quotas"
    quotas = Quotas()
    hearing = QuotaHearing(quotas, bus, clock, path)
    await hearing.read()
    assert quotas.told == Standings()
    quotas.recall({"a-model": 0.25})
    await tell(bus, TOLD.encode())
    await hearing.read()
    as_of_ns = quotas.as_of_ns
    assert as_of_ns == clock.now_ns() and quotas.told == TOLD
    await clock.advance(100)
    await hearing.read()  # nothing new
    assert quotas.as_of_ns == as_of_ns
    again = Quotas()
    QuotaHearing(again, MemoryBus(clock), clock, path)
    assert (again.told, again.as_of_ns, again.reckoning) == (TOLD, as_of_ns, {"a-model": 0.25})


@pytest.mark.parametrize(
    ("behind_s", "age_s"), [(0.0, 240.0), (300.0, 540.0), (-300.0, 0.0), (1e6, KEPT_S), (-1e6, 0.0)]
)
async def test_what_was_told_before_this_edge_began_is_as_old_as_both_clocks_say_and_the_broker_keeps(
    behind_s: float, age_s: float
) -> None:
    clock = ManualClock()
    bus, quotas = MemoryBus(clock), Quotas()
    await tell(bus, told_at(clock, behind_s).encode())
    await clock.advance(240.0)
    await QuotaHearing(quotas, bus, clock, None).read()
    assert quotas.as_of_ns is not None
    assert clock.now_ns() - quotas.as_of_ns == pytest.approx(age_s * 1e9)


@pytest.mark.parametrize("behind_s", [0.0, 300.0, -300.0, 1e6])
async def test_what_is_told_while_this_edge_hears_is_no_older_than_its_last_look_whatever_clocks_say(
    behind_s: float,
) -> None:
    clock = ManualClock()
    bus, quotas = MemoryBus(clock), Quotas()
    hearing = QuotaHearing(quotas, bus, clock, None)
    for wait_s in (0.0, 5.0, 90.0):
        await hearing.read()
        await tell(bus, told_at(clock, behind_s).encode())
        await clock.advance(wait_s)
        await hearing.read()
        assert quotas.as_of_ns is not None
        age_s = (clock.now_ns() - quotas.as_of_ns) / 1e9
        assert age_s == pytest.approx(0.0 if behind_s < 0 else wait_s, abs=1e-6)


async def test_it_is_written_down_now_and_then_only(tmp_path: Path) -> None:
    clock = ManualClock()
    bus, path = MemoryBus(clock), tmp_path / "quotas"
    hearing = QuotaHearing(Quotas(), bus, clock, path)
    kept = []
    for number in range(3):
        await tell(bus, TOLD.model_copy(update={"at_ns": 2**62 + number}).encode())
        await hearing.read()
        kept.append(path.read_bytes())
        await clock.advance(KEEP_EVERY_S * 0.6)
    assert kept[0] == kept[1] != kept[2]


async def test_what_is_damaged_or_out_of_reach_changes_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    bus, path = MemoryBus(clock), tmp_path / "quotas"
    path.write_bytes(b"\xffdamaged")
    quotas = Quotas()
    hearing = QuotaHearing(quotas, bus, clock, path)
    await tell(bus, TOLD.encode())
    await hearing.read()
    await tell(bus, b'{"at_ns": -1}')
    await hearing.read()
    assert quotas.told == TOLD

    async def away(*args: object, **kwargs: object) -> None:
        raise BrokerUnavailable("away")

    bus.kv = away  # type: ignore[method-assign, assignment]
    await hearing.read()
    assert quotas.told == TOLD
