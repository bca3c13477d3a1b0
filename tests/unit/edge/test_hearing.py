"""How an edge hears of quotas, and what of that is left after a restart."""

from pathlib import Path

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable
from adaptivegen.standing import BUCKET, KEPT_S, KEY, Standing, Standings
from edge_node.hearing import KEEP_EVERY_S, QuotaHearing
from edge_node.quotas import Quotas

TOLD = Standings(at_ns=5, everybody=Standing(concurrent_jobs=2), tenants={"t": Standing(open_jobs=1)})


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
    heard_ns = quotas.heard_ns
    assert heard_ns == clock.now_ns() and quotas.told == TOLD
    await clock.advance(100)
    await hearing.read()  # nothing new
    assert quotas.heard_ns == heard_ns
    again = Quotas()
    QuotaHearing(again, MemoryBus(clock), clock, path)
    assert (again.told, again.heard_ns, again.reckoning) == (TOLD, heard_ns, {"a-model": 0.25})


async def test_it_is_written_down_now_and_then_only(tmp_path: Path) -> None:
    clock = ManualClock()
    bus, path = MemoryBus(clock), tmp_path / "quotas"
    hearing = QuotaHearing(Quotas(), bus, clock, path)
    kept = []
    for number in range(3):
        await tell(bus, TOLD.model_copy(update={"at_ns": 10 + number}).encode())
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
