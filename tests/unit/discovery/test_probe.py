"""Which endpoint is nearest, with scripted round trips in virtual time."""

import asyncio

import httpx
import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.probe import measure, nearest
from adaptivegen.errors import NodeUnavailable


class Network:
    """Answers after the next of a host's scripted times; a status or an error may stand in their place."""

    def __init__(self, clock: ManualClock, **answers: list[float | int | Exception]) -> None:
        self._clock = clock
        self._answers = answers
        self.asked: list[str] = []
        self.open = 0
        self.most_open = 0

    async def get(self, url: str) -> httpx.Response:
        host = httpx.URL(url).host
        self.asked.append(url)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            answer = self._answers[host].pop(0)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, int):
                return httpx.Response(answer)
            await self._clock.sleep(answer)
            return httpx.Response(200)
        finally:
            self.open -= 1


def edges(*names: str) -> list[Endpoint]:
    return [Endpoint("edge", name, http_url=f"http://{name}/") for name in names]


async def advance_until(task: "asyncio.Task[object]", clock: ManualClock) -> None:
    while not task.done():
        await asyncio.sleep(0)
        await clock.advance(0.01)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_the_shortest_of_several_round_trips_decides(clock: ManualClock) -> None:
    network = Network(clock, near=[0.9, 0.02, 0.03], far=[0.05, 0.05, 0.05])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(measure(edges("far", "near"), clock=clock, client=network))
        await advance_until(task, clock)
    assert [measured.endpoint.node_id for measured in task.result()] == ["near", "far"]
    assert [round(measured.round_trip_s, 6) for measured in task.result()] == [0.02, 0.05]
    assert set(network.asked) == {"http://near/readyz", "http://far/readyz"}


async def test_an_edge_that_fails_once_is_not_chosen_however_fast_it_was(clock: ManualClock) -> None:
    network = Network(clock, flaky=[0.001, httpx.ConnectError("refused")], good=[0.5, 0.5, 0.5])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(nearest(edges("flaky", "good"), clock=clock, client=network))
        await advance_until(task, clock)
    assert task.result().node_id == "good"


async def test_equals_are_ordered_by_name(clock: ManualClock) -> None:
    network = Network(clock, b=[0.1] * 3, a=[0.1] * 3)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(nearest(edges("b", "a"), clock=clock, client=network))
        await advance_until(task, clock)
    assert task.result().node_id == "a"


async def test_when_none_answers_each_is_named_with_the_reason(clock: ManualClock) -> None:
    network = Network(clock, a=[httpx.ConnectError("refused")], b=[503])
    silent = Endpoint("edge", "c", grpc_address="c:1")
    with pytest.raises(NodeUnavailable) as caught:
        await nearest([*edges("a", "b"), silent], clock=clock, client=network)
    assert "a http://a/: ConnectError refused" in caught.value.message
    assert "b http://b/: HTTP 503" in caught.value.message
    assert "c : no HTTP address" in caught.value.message


async def test_no_endpoint_at_all_is_said(clock: ManualClock) -> None:
    with pytest.raises(NodeUnavailable, match="no endpoint is known"):
        await nearest([], clock=clock, client=Network(clock))


async def test_only_so_many_are_probed_at_a_time(clock: ManualClock) -> None:
    names = [f"e{number}" for number in range(10)]
    times: dict[str, list[float | int | Exception]] = {name: [0.1] * 3 for name in names}
    network = Network(clock, **times)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(measure(edges(*names), clock=clock, client=network, max_concurrent=3, deadline_s=60))
        await advance_until(task, clock)
    assert len(task.result()) == 10
    assert network.most_open == 3
