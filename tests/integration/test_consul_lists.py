"""How lists are read from Consul: as they change, and when it is away, fails, hangs, refuses or answers nonsense."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from adaptivegen.clock import ManualClock, SystemClock
from adaptivegen.discovery.consul import ConsulDiscovery, Pace
from adaptivegen.discovery.consul_agent import MAX_ANSWER_BYTES, ConsulAgent
from adaptivegen.discovery.consul_service import ConsulOptions, service_of
from adaptivegen.errors import NodeUnavailable, PermissionDenied
from tests.consul_server import ConsulServer, consul_server
from tests.integration.consul_nodes import (
    BEAT_S,
    EDGE,
    OTHER,
    following,
    passing_time,
    running,
    said,
    source,
    until_listed,
    waits_with,
)


@pytest.fixture
async def consul() -> AsyncIterator[ConsulServer]:
    """A server whose time stands still until a test moves it."""
    async with consul_server(ManualClock()) as server:
        yield server


class Resting(SystemClock):
    """A clock that notes how long it was to sleep, and does not."""

    def __init__(self) -> None:
        self.rests: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        await super().sleep(0)


async def test_while_consul_is_down_the_list_read_last_stands_and_its_age_is_said_once(consul: ConsulServer) -> None:
    consul.put("adaptivegen-edge", {"ID": "x", "Meta": EDGE.fields()})
    clock = ManualClock()
    discovery = source(consul, clock)
    assert await discovery.endpoints("edge") == [EDGE]
    await clock.advance(42)
    await consul.stop()
    with capture_logs() as lines:
        for _ in range(3):
            assert await discovery.endpoints("edge") == [EDGE]
        with pytest.raises(NodeUnavailable):
            await discovery.endpoints("worker")  # of which nothing was ever read
        await consul.start()
        assert await discovery.endpoints("edge") == [EDGE]
    said = [line for line in lines if line.get("kind") == "edge"]
    assert [line["event"] for line in said] == ["nodes_not_read", "nodes_read_again"]
    assert (said[0]["kept"], said[0]["age_s"], said[0]["code"]) == (1, 42.0, "node_unavailable")


async def test_who_follows_keeps_the_last_list_through_an_outage_and_learns_what_happened_meanwhile(
    consul: ConsulServer,
) -> None:
    consul.put("adaptivegen-edge", {"ID": "x", "Meta": EDGE.fields()})
    discovery = source(consul)
    async with following(discovery) as told:
        await told(EDGE)
        await consul.stop()
        consul.put("adaptivegen-edge", {"ID": "y", "Meta": OTHER.fields()})
        assert await discovery.endpoints("edge") == [EDGE]
        await consul.start()
        await told(EDGE, OTHER)


async def test_a_change_is_told_as_it_happens_and_not_asked_for_all_the_time(consul: ConsulServer) -> None:
    async with following(source(consul)) as told:
        await told()
        consul.put("adaptivegen-edge", {"ID": "x", "Meta": EDGE.fields()})  # no time passes for the server
        await told(EDGE)
        consul.put("adaptivegen-edge", {"ID": "y", "Meta": OTHER.fields()})
        await told(EDGE, OTHER)
        consul.forget()
        await told()
    assert len(consul.asked) <= 2 + 3 * 2


async def test_a_question_that_waited_in_vain_is_asked_again(consul: ConsulServer) -> None:
    async with following(source(consul)) as told:
        await told()
        await waits_with(consul, consul.index, asked=2)
        await passing_time(consul).advance(30)
        await waits_with(consul, consul.index, asked=3)


async def test_an_index_that_went_backwards_is_begun_anew(consul: ConsulServer) -> None:
    consul.put("adaptivegen-edge", {"ID": "x", "Meta": EDGE.fields()})
    async with following(source(consul)) as told:
        await told(EDGE)
        await waits_with(consul, consul.index, asked=2)
        consul.restore(3)
        await waits_with(consul, 3, asked=4)
        assert [index for _, index in consul.asked[-2:]] == [0, 3]  # at once, then by the new count
        consul.put("adaptivegen-edge", {"ID": "y", "Meta": OTHER.fields()})
        await told(EDGE, OTHER)


async def test_an_index_of_nought_is_never_waited_with_nor_asked_for_without_rest(consul: ConsulServer) -> None:
    consul.restore(0)
    clock = Resting()
    async with following(ConsulDiscovery(clock, url=consul.url, pace=Pace(rest_s=0.5))) as told:
        await told()
        await waits_with(consul, 0, asked=5)
        assert {index for _, index in consul.asked} == {0}
        assert len(clock.rests) >= len(consul.asked) - 1
        assert set(clock.rests) == {0.5}


async def test_every_call_has_a_deadline_and_a_slow_answer_is_none(consul: ConsulServer) -> None:
    consul.hanging = True
    with pytest.raises(NodeUnavailable, match=r"no answer within 0\.05 s"):
        await source(consul, deadline_s=0.05).endpoints("edge")


async def test_a_refused_token_is_an_error_that_names_the_setting_and_not_the_token(consul: ConsulServer) -> None:
    consul.accepted = "right"
    with pytest.raises(PermissionDenied, match=r"ACL not found\); allowed: a consul_token with service:read") as caught:
        await source(consul, token="wr0ng").endpoints("edge")
    assert caught.value.param == "consul_token"
    clock = ManualClock()
    with capture_logs() as lines:
        async with running(source(consul, clock, token="wr0ng").register(EDGE)):
            await said(lines, "consul_token with service:write on adaptivegen-edge")
            for _ in range(3):
                await clock.advance(BEAT_S)
            consul.accepted = "wr0ng"  # the operator gives it its rights
            await until_listed(consul, EDGE, clock=clock, token="wr0ng")
    assert len([line for line in lines if line["event"] == "not_registered"]) == 1
    assert "wr0ng" not in str(lines) and "wr0ng" not in caught.value.message


async def test_without_a_token_where_one_is_needed_the_setting_is_named(consul: ConsulServer) -> None:
    consul.accepted = "right"
    with capture_logs() as lines:
        async with running(source(consul).register(EDGE)):
            await said(lines, "lacks permission 'service:write'")
            await said(lines, "consul_token")
        async with running(source(consul, token="right").register(EDGE)):
            await until_listed(consul, EDGE, token="right")
            assert await source(consul).endpoints("edge") == []  # Consul hides, it does not refuse


async def test_a_token_of_the_environment_is_not_used(consul: ConsulServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "wrong")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
    consul.accepted = "right"
    for token in ("", "right"):
        assert await source(consul, token=token).endpoints("edge") == []


async def test_a_bad_entry_hides_no_good_one_and_is_said(consul: ConsulServer) -> None:
    consul.put("adaptivegen-edge", {"ID": "a", "Address": "10.0.0.1", "Port": 80})
    consul.put("adaptivegen-edge", {"ID": "b", "Meta": {**EDGE.fields(), "http_url": "javascript:x"}})
    consul.put("adaptivegen-edge", {"ID": "c", "Meta": EDGE.fields()})
    with capture_logs() as lines:
        assert await source(consul).endpoints("edge") == [EDGE]
    assert [line["event"] for line in lines] == ["bad_endpoint", "bad_endpoint"]


@pytest.mark.parametrize("answer", ["", "{", "{}", "null", "7", "[" * 200_000, "[" + " " * MAX_ANSWER_BYTES + "]"])
async def test_an_answer_that_is_no_list_leaves_the_last_one(consul: ConsulServer, answer: str) -> None:
    consul.put("adaptivegen-edge", {"ID": "a", "Meta": EDGE.fields()})
    discovery = source(consul)
    assert await discovery.endpoints("edge") == [EDGE]
    consul.answers = [answer, answer]
    assert await discovery.endpoints("edge") == [EDGE]
    with pytest.raises(NodeUnavailable) as caught:
        await source(consul).endpoints("edge")
    assert len(caught.value.message) < 400


async def test_what_is_no_consul_is_said_to_be_none() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ConsulAgent(url, token="", tls=True, deadline_s=5) as agent:
            service = service_of(EDGE, ConsulOptions())
            for call in (agent.passing("adaptivegen-edge"), agent.register(service), agent.meta(service)):
                with pytest.raises(NodeUnavailable, match="Consul at"):
                    await call


async def test_an_agent_with_tls_is_checked_by_the_ca_that_is_set(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    async with consul_server(ManualClock(), tls=context) as server:
        assert await source(server, ca=ca).endpoints("edge") == []
        with pytest.raises(NodeUnavailable, match="certificate"):
            await source(server).endpoints("edge")
