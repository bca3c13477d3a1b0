"""One HTTP connection on a transport of the test's own: which part of a request has how long, and who is refused."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from adaptivegen.serving import BoundedConfig, BoundedConnection, ServingLimits

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD_S, BODY_S, KEEP_ALIVE_S = 10.0, 60.0, 30.0


class Alarm:
    """A timer that goes off when it is told to."""

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self.seconds = seconds
        self.ring = ring
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The running loop, but for its timers."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []

    def create_task(self, work: Any, **_: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def call_later(self, seconds: float, ring: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(seconds, ring))
        return self.alarms[-1]


class Wire(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """As a socket's."""

    def resume_reading(self) -> None:
        """As a socket's."""


class Server:
    """Connections of one server whose application answers when it is let."""

    def __init__(self, max_connections: int = 100) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.loop = Loop()
        self.state = ServerState()
        self.config = BoundedConfig(
            self.application,
            http=BoundedConnection,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=30,
        )
        self.config.limits = ServingLimits(max_connections=max_connections, head_s=HEAD_S, body_s=BODY_S)

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def connect(self) -> tuple[BoundedConnection, Wire]:
        wire = Wire()
        connection = BoundedConnection(self.config, self.state, {}, cast(Any, self.loop))
        connection.connection_made(wire)
        return connection, wire

    def running(self) -> list[Alarm]:
        """The timers that would go off."""
        return [alarm for alarm in self.loop.alarms if not alarm.cancelled]

    def waits_s(self) -> list[float]:
        return [alarm.seconds for alarm in self.running()]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_connection_has_its_time_to_send_a_head_however_it_comes() -> None:
    server = Server()
    connection, wire = server.connect()
    for piece in (b"GET", b" / HT", b"TP/1.1\r\n"):
        connection.data_received(piece)
        assert server.waits_s() == [HEAD_S]
    assert len(server.loop.alarms) == 1  # set once: no byte gains time
    server.running()[0].ring()
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert wire.closed


async def test_a_body_has_its_time_from_its_head_on_and_none_once_it_is_there() -> None:
    server = Server()
    server.go.clear()
    connection, _ = server.connect()
    connection.data_received(HEAD + b"1")
    assert server.waits_s() == [BODY_S]
    connection.data_received(b"2")
    assert len(server.loop.alarms) == 2  # the head's, and one for the body
    connection.data_received(b"34")
    assert server.waits_s() == []


@pytest.mark.parametrize("answered", [False, True])
async def test_a_body_that_is_late_ends_the_connection_whether_it_was_answered_or_not(answered: bool) -> None:
    server = Server()
    if not answered:
        server.go.clear()
    connection, wire = server.connect()
    connection.data_received(HEAD + b"1")
    await turns()
    assert (b"200" in wire.written, wire.closed) == (answered, False)
    connection.data_received(b"2")  # which ends uvicorn's own wait
    assert BODY_S in server.waits_s()
    next(alarm for alarm in server.running() if alarm.seconds == BODY_S).ring()
    assert wire.closed
    assert b"408" not in wire.written
    connection.connection_lost(None)
    server.go.set()
    await turns()


async def test_between_requests_only_the_keep_alive_time_counts_and_the_next_head_has_its_own() -> None:
    server = Server()
    connection, wire = server.connect()
    connection.data_received(GET)
    await turns()
    assert server.waits_s() == [KEEP_ALIVE_S]
    connection.data_received(b"G")
    assert server.waits_s() == [HEAD_S]
    connection.data_received(GET[1:])
    await turns()
    assert server.waits_s() == [KEEP_ALIVE_S]
    assert wire.written.count(b"HTTP/1.1 200") == 2


async def test_half_a_pipelined_head_gets_its_time_once_the_request_before_it_is_answered() -> None:
    server = Server()
    server.go.clear()
    connection, _ = server.connect()
    connection.data_received(GET + b"GET / HT")
    assert server.waits_s() == []
    server.go.set()
    await turns()
    assert HEAD_S in server.waits_s()


async def test_no_timer_outlives_its_connection() -> None:
    server = Server()
    for sent in (b"", b"GET", HEAD + b"1", GET):
        connection, _ = server.connect()
        if sent:
            connection.data_received(sent)
        await turns()
        connection.connection_lost(None)
        assert server.waits_s() == []


async def test_connections_beyond_the_bound_are_answered_503_and_far_beyond_dropped() -> None:
    server = Server(max_connections=2)
    wires = []
    for _ in range(5):
        connection, wire = server.connect()
        wires.append(wire)
        if not wire.closed:
            connection.data_received(GET)
    await turns()
    assert [wire.written[9:12] for wire in wires] == [b"200", b"200", b"503", b"503", b""]
    assert [wire.closed for wire in wires] == [False, False, True, True, True]
    assert b"retry-after: 2" in wires[2].written
    assert (wires[3].aborted, wires[4].aborted) == (False, True)
