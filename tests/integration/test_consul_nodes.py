"""How nodes stay listed in Consul: through an agent that is away, forgets, fails, hangs, or holds their namesake."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import uvloop
from structlog.testing import capture_logs

from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.errors import NodeUnavailable
from adaptivegen.rpc.server import RpcServer
from tests.consul_server import ConsulServer, consul_server
from tests.integration.consul_nodes import (
    BEAT_S,
    EDGE,
    ID,
    MOVED,
    beats,
    dead,
    following,
    held_by,
    passing_time,
    running,
    said,
    source,
    until,
    until_listed,
)


@pytest.fixture
async def consul() -> AsyncIterator[ConsulServer]:
    """A server whose time stands still until a test moves it."""
    async with consul_server(ManualClock()) as server:
        yield server


async def test_a_node_is_listed_while_it_lives_and_taken_out_at_its_end(consul: ConsulServer) -> None:
    clock = ManualClock()
    async with running(source(consul, clock).register(EDGE)):
        await until_listed(consul, EDGE)
        for _ in range(4):
            await beats(consul, clock)
            await passing_time(consul).advance(14)
            assert await source(consul).endpoints("edge") == [EDGE]
    assert consul.registered == {}


async def test_a_node_that_ended_without_a_word_is_not_listed_and_later_forgotten(consul: ConsulServer) -> None:
    await dead(consul, EDGE)
    assert await source(consul).endpoints("edge") == [EDGE]
    await passing_time(consul).advance(15)
    assert await source(consul).endpoints("edge") == []
    assert consul.status(ID) == "critical"
    await passing_time(consul).advance(60)
    assert consul.status(ID) is None


async def test_a_node_that_was_frozen_is_listed_again_when_it_goes_on(consul: ConsulServer) -> None:
    clock = ManualClock()
    async with running(source(consul, clock).register(EDGE)):
        await until_listed(consul, EDGE)
        await passing_time(consul).advance(15)
        await until_listed(consul)
        await beats(consul, clock)
        await until_listed(consul, EDGE)


async def test_an_agent_that_lost_the_registration_is_told_again(consul: ConsulServer) -> None:
    clock = ManualClock()
    async with running(source(consul, clock).register(EDGE)):
        await until_listed(consul, EDGE)
        consul.forget()
        await until_listed(consul)
        await until_listed(consul, EDGE, clock=clock)


async def test_consul_that_is_away_at_the_start_is_waited_for(consul: ConsulServer) -> None:
    await consul.stop()
    with pytest.raises(NodeUnavailable, match=r"Consul at http://127\.0\.0\.1:"):
        await source(consul).endpoints("edge")
    clock = ManualClock()
    with capture_logs() as lines:
        async with running(source(consul, clock).register(EDGE)), following(source(consul)) as told:
            await said(lines, "not_registered")
            await said(lines, "nodes_not_read")
            for _ in range(3):
                await clock.advance(BEAT_S)
            await consul.start()
            await until_listed(consul, EDGE, clock=clock)
            await told(EDGE)
            await said(lines, "nodes_read_again")
    for event in ("not_registered", "nodes_not_read", "nodes_read_again"):
        assert len([line for line in lines if line["event"] == event]) == 1


async def test_a_consul_that_fails_is_a_consul_that_is_down(consul: ConsulServer) -> None:
    clock = ManualClock()
    discovery = source(consul)
    async with running(source(consul, clock).register(EDGE)), following(discovery) as told:
        await told(EDGE)
        consul.failing = True
        assert await discovery.endpoints("edge") == [EDGE]
        with pytest.raises(NodeUnavailable, match="500 No cluster leader"):
            await source(consul).endpoints("edge")
        consul.failing = False
        consul.forget()
        await told()
        await until_listed(consul, EDGE, clock=clock)
        await told(EDGE)


async def test_a_node_ends_in_time_though_consul_hangs(consul: ConsulServer) -> None:
    async with running(source(consul, ManualClock(), deadline_s=0.05).register(EDGE)) as task:
        await until_listed(consul, EDGE)
        consul.hanging = True
        async with asyncio.timeout(20):
            task.cancel()
            await asyncio.wait([task])
    assert task.cancelled()
    assert ID in consul.registered  # left to its check


async def test_of_two_processes_with_one_node_id_the_one_started_last_is_listed(consul: ConsulServer) -> None:
    first, second = ManualClock(), ManualClock()
    with capture_logs() as lines:
        async with running(source(consul, first).register(EDGE)):
            await until_listed(consul, EDGE)
            async with running(source(consul, second).register(MOVED)):
                await until_listed(consul, MOVED)
                await said(lines, "another process of this node id took over", first)
                await beats(consul, second)
                assert await source(consul).endpoints("edge") == [MOVED]
            await until_listed(consul, EDGE, clock=first)


async def test_a_node_that_ends_leaves_the_entry_of_its_successor_alone(consul: ConsulServer) -> None:
    async with running(source(consul, ManualClock()).register(EDGE)) as first:
        await until_listed(consul, EDGE)
        async with running(source(consul, ManualClock()).register(MOVED)):
            await until_listed(consul, MOVED)
            first.cancel()
            await asyncio.wait([first])
            assert await source(consul).endpoints("edge") == [MOVED]


async def test_a_process_does_not_keep_alive_what_another_of_its_name_left_behind(consul: ConsulServer) -> None:
    clock = ManualClock()
    with capture_logs() as lines:
        async with running(source(consul, clock).register(EDGE)):
            await until_listed(consul, EDGE)
            await dead(consul, MOVED)
            await said(lines, "took over", clock)
            await passing_time(consul).advance(15)
            await until_listed(consul)
            await passing_time(consul).advance(60)
            await until_listed(consul, EDGE, clock=clock)


async def test_a_node_started_anew_takes_the_place_of_what_it_left_behind(consul: ConsulServer) -> None:
    await dead(consul, EDGE)
    await passing_time(consul).advance(15)
    async with running(source(consul, ManualClock()).register(MOVED)):
        await until_listed(consul, MOVED)
    assert consul.registered == {}


async def test_deployments_with_prefixes_of_their_own_share_a_consul(consul: ConsulServer) -> None:
    async with (
        running(source(consul, ManualClock(), prefix="one").register(EDGE)),
        running(source(consul, ManualClock(), prefix="two").register(MOVED)),
    ):
        one, two = source(consul, prefix="one"), source(consul, prefix="two")

        async def both() -> bool:
            return await one.endpoints("edge") == [EDGE] and await two.endpoints("edge") == [MOVED]

        await until(both)


async def test_a_node_that_its_agent_can_reach_is_listed_while_it_says_that_it_serves(consul: ConsulServer) -> None:
    node = RpcServer(rng=random.Random(1))
    port = node.reserve(host="127.0.0.1", port=0, tls=None)
    here = Endpoint("worker", "w1", grpc_address=f"127.0.0.1:{port}")
    discovery = source(consul, ManualClock(), check="grpc")

    async def listed() -> bool:
        return await discovery.endpoints("worker") == [here]

    async def left_out() -> bool:
        return await discovery.endpoints("worker") == []

    async with running(discovery.register(here)):
        await until(lambda: held_by(consul, "adaptivegen.worker.w1"))
        assert await discovery.endpoints("worker") == []  # it does not serve yet
        await node.start()
        await until(listed, passing_time(consul))
        await node.set_serving(False)
        await until(left_out, passing_time(consul))
        await node.set_serving(True)
        await until(listed, passing_time(consul))
    assert consul.registered == {}
    await node.drain(grace_s=0)


async def test_an_agent_that_lost_a_node_which_it_asks_is_told_again(consul: ConsulServer) -> None:
    clock = ManualClock()
    async with running(source(consul, clock, check="grpc").register(EDGE)):
        await until(lambda: held_by(consul, ID))
        consul.forget()
        await until(lambda: held_by(consul, ID), clock)
        assert consul.status(ID) == "critical"  # nobody serves there
        assert consul.beats == 0


def test_it_runs_on_the_loop_that_services_run_on() -> None:
    async def main() -> None:
        async with consul_server(ManualClock()) as server:
            async with running(source(server, ManualClock()).register(EDGE)), following(source(server)) as told:
                await told(EDGE)
            assert server.registered == {}

    uvloop.run(main())
