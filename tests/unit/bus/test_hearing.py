"""Hearing a subject: a broker that goes and comes, and messages that cannot be acted on."""

import asyncio

import pytest
from structlog.testing import capture_logs

from adaptivegen.bus.base import Message, Subscription
from adaptivegen.bus.hearing import RETRY_S, hear
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, StorageFailure


class UnsteadyBus(MemoryBus):
    """Refuses subscriptions while `away`."""

    away = False

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        if self.away:
            raise BrokerUnavailable("away")
        return await super().subscribe(subject, buffer=buffer)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_async", [True, False])
async def test_one_message_that_cannot_be_acted_on_does_not_keep_the_next_from_it(is_async: bool) -> None:
    clock = ManualClock()
    bus, taken = MemoryBus(clock), []

    def act(message: Message) -> None:
        if message.data == b"bad":
            raise StorageFailure("broken")
        taken.append(message.data)

    async def act_later(message: Message) -> None:
        await asyncio.sleep(0)
        act(message)

    with capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(
            hear(bus, "a.b", act_later if is_async else act, buffer=8, clock=clock)
        )
        await settle()
        for data in (b"1", b"bad", b"2"):
            await bus.publish("a.b", data)
        await settle()
        assert taken == [b"1", b"2"]
        assert [(log["event"], log["subject"]) for log in logs] == [("not_acted_on", "a.b")]
        assert not task.done()
        task.cancel()


async def test_a_broker_that_is_away_is_waited_for_and_that_is_said_once_for_each_time() -> None:
    clock = ManualClock()
    bus = UnsteadyBus(clock)
    taken: list[Message] = []
    bus.away = True
    with capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(hear(bus, "a.b", taken.append, buffer=8, clock=clock))
        for times in (1, 2):
            for _ in range(5):
                await settle()
                await clock.advance(RETRY_S)
            assert [log["event"] for log in logs] == ["not_heard"] * times
            bus.away = False
            await clock.advance(RETRY_S)
            await settle()
            await bus.publish("a.b", b"here")
            await settle()
            assert len(taken) == times
            bus.away = True
            await bus.close()  # its subscriptions end
            await settle()
        task.cancel()
