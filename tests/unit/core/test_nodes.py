"""Heartbeats: what is believed of them, how they go out, and how a drain is seen; retrying at start."""

import asyncio

import psutil
import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, InvalidRequest, SettingsInvalid
from adaptivegen.heartbeat import CHILDREN_EVERY, DRAIN_POLL_EVERY, POLICY_BUCKET, Heartbeat
from adaptivegen.nodes import HEARTBEAT_S, Loading, NodeReport, Way, decode_report, drain_key
from adaptivegen.process import guarded, refuse, retry_until

REPORT = NodeReport(node_id="w1", kind="worker", seq=0, sent_at_ns=0, started_at_ns=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_id", "../w1"),
        ("kind", "toaster"),
        ("seq", -1),
        ("remaining_s", -0.1),
        ("capacity", 10**9),
        ("models", ("m",) * 65),
        ("grpc_address", "x" * 256),
        ("ways", {"../x": Way(delay_s=0.0, bytes_per_s=1.0)}),
        ("ways", {"store.get": Way.model_construct(delay_s=-1.0, bytes_per_s=1.0)}),
        ("ways", {"store.get": Way.model_construct(delay_s=0.0, bytes_per_s=0.0)}),
        ("ways", {f"e{n}": Way(delay_s=0.0, bytes_per_s=1.0) for n in range(65)}),
        ("loading", (Loading.model_construct(model="m", elapsed_s=-1.0, expected_s=1.0),)),
        ("loading", (Loading.model_construct(model="m" * 64, elapsed_s=1.0, expected_s=1.0),)),
        ("loading", (Loading.model_construct(model="m", elapsed_s=1.0, expected_s=1e10),)),
        ("loading", (Loading(model="m", elapsed_s=1.0, expected_s=1.0),) * 5),
        ("repeats_cached", -1),
        ("repeats_fetched", 2**63),
    ],
)
def test_a_report_that_cannot_be_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_report(REPORT.model_copy(update={field: value}).encode())
    assert refused.value.param is not None and refused.value.param.startswith(f"report.{field}")


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", REPORT.encode().replace(b'"remaining_s":0.0', b'"remaining_s":NaN')]
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_report(data)


async def test_reports_go_out_numbered_and_a_drain_is_seen_within_four() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock)
    drains: list[bool] = []
    heartbeat = Heartbeat(bus, clock, lambda: REPORT, on_drain=drains.append)
    heard = (await bus.subscribe("ag.node.*.*")).__aiter__()
    beating = asyncio.get_running_loop().create_task(heartbeat.run())
    reports = [decode_report((await anext(heard)).data)]
    policy = await bus.kv(POLICY_BUCKET)
    await policy.put(drain_key("w1"), b"1")
    for _ in range(DRAIN_POLL_EVERY):
        await clock.advance(HEARTBEAT_S)
        reports.append(decode_report((await anext(heard)).data))
    assert [report.seq for report in reports] == list(range(DRAIN_POLL_EVERY + 1))
    assert (reports[0].draining, reports[-1].draining, drains) == (False, True, [True])
    assert reports[0].memory_bytes > 0
    await policy.delete(drain_key("w1"))
    await clock.advance(DRAIN_POLL_EVERY * HEARTBEAT_S)
    assert drains == [True, False]
    beating.cancel()


async def test_the_machine_is_searched_for_children_rarely_and_after_one_has_ended() -> None:
    searches = 0

    class Counted(psutil.Process):
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            nonlocal searches
            searches += 1
            return super().children(recursive)

    clock = ManualClock()
    bus = MemoryBus(clock)
    heartbeat = Heartbeat(bus, clock, lambda: REPORT)
    heartbeat._process = Counted()
    heard = (await bus.subscribe("ag.node.*.*")).__aiter__()
    child = await asyncio.create_subprocess_exec("sleep", "60")
    beating = asyncio.get_running_loop().create_task(heartbeat.run())
    await anext(heard)
    for _ in range(CHILDREN_EVERY - 1):
        await clock.advance(HEARTBEAT_S)
        await anext(heard)
    assert searches == 1
    assert child.pid in [found.pid for found in heartbeat._children]
    child.kill()
    await child.wait()
    await clock.advance(HEARTBEAT_S)
    await anext(heard)
    assert child.pid not in [found.pid for found in heartbeat._children]
    beating.cancel()


class Broken:
    """A broker that is away."""

    async def kv(self, *_: object, **__: object) -> None:
        raise BrokerUnavailable("away")

    publish = kv


async def test_a_broker_that_is_away_does_not_stop_the_heart() -> None:
    clock = ManualClock()
    heartbeat = Heartbeat(Broken(), clock, lambda: REPORT)  # type: ignore[arg-type]
    beating = asyncio.get_running_loop().create_task(heartbeat.run())
    await asyncio.sleep(0)
    await clock.advance(10 * HEARTBEAT_S)
    assert not beating.done()
    assert not heartbeat.draining
    beating.cancel()


async def test_a_step_is_repeated_while_it_may_pass_and_not_when_it_cannot() -> None:
    clock, stop, calls = ManualClock(), asyncio.Event(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise BrokerUnavailable("away")

    trying = asyncio.get_running_loop().create_task(retry_until(step, stop=stop, clock=clock, what="broker"))
    while not trying.done():
        await asyncio.sleep(0)
        await clock.advance(1)
    assert (await trying, calls) == (True, 4)

    async def hopeless() -> None:
        raise SettingsInvalid("never")

    with pytest.raises(SettingsInvalid):
        await retry_until(hopeless, stop=stop, clock=clock, what="broker")
    stop.set()
    assert await retry_until(hopeless, stop=stop, clock=clock, what="broker") is False


async def test_a_stop_during_a_pause_ends_it_without_waiting() -> None:
    clock, stop = ManualClock(), asyncio.Event()

    async def step() -> None:
        stop.set()
        raise BrokerUnavailable("away")

    assert await retry_until(step, stop=stop, clock=clock, what="broker") is False
    assert clock.monotonic_s() == 0.0


async def test_a_guarded_bug_ends_its_own_task_only() -> None:
    async def bug() -> None:
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        group.create_task(guarded("test", bug()))


def test_refused_settings_and_other_failures_have_their_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(SettingsInvalid("port is 0")) == 2
    assert refuse(BrokerUnavailable("away")) == 1
    assert capsys.readouterr().err == "error: port is 0\nerror: away\n"
