"""Word of drafts that are there, on its way to the schedulers."""

import asyncio
from collections.abc import Mapping

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import BrokerUnavailable
from adaptivegen.nodes import ALL_DRAFTS, DRAFTS_TOLD, DraftsOver
from edge_node.draft.telling import DraftTelling


class Away(MemoryBus):
    """A broker that takes nothing at first."""

    away = True

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        if self.away:
            raise BrokerUnavailable("no answer")
        await super().publish(subject, data, headers=headers)


async def test_every_draft_is_told_of_at_once_and_many_in_several_messages() -> None:
    bus = MemoryBus(SystemClock())
    heard = aiter(await bus.subscribe(ALL_DRAFTS))
    telling = DraftTelling("edge-1", bus)
    for number in range(DRAFTS_TOLD + 1):
        telling.over(f"job-{number}")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(telling.run())
        first, second = await anext(heard), await anext(heard)
        telling.over("later")
        third = await anext(heard)
        running.cancel()
    told = [DraftsOver.model_validate_json(message.data).job_ids for message in (first, second, third)]
    assert [len(ids) for ids in told] == [DRAFTS_TOLD, 1, 1]
    assert told[2] == ("later",)
    assert first.subject == "ag.draft.edge-1"


async def test_a_broker_that_is_away_costs_the_hint_and_nothing_else() -> None:
    bus = Away(SystemClock())
    heard = aiter(await bus.subscribe(ALL_DRAFTS))
    telling = DraftTelling("edge-1", bus)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(telling.run())
        telling.over("lost")
        await asyncio.sleep(0.01)
        bus.away = False
        telling.over("heard")
        message = await anext(heard)
        running.cancel()
    assert DraftsOver.model_validate_json(message.data).job_ids == ("heard",)
