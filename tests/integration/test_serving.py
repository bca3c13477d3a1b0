"""The HTTP server of an edge under clients that are many, slow or large: real sockets, stand-ins behind the routes."""

import asyncio
import base64
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from adaptivegen.errors import SettingsInvalid
from adaptivegen.jobs.record import JobRecord, new_record
from adaptivegen.serving import HttpServer, ServingLimits, bind
from edge_node.api.body import SMALL_BYTES, Bodies
from edge_node.api.http import HttpApi
from edge_node.auth import Loopback
from tests.jobs import JOB_ID, make_spec

HOST = "Host: localhost\r\n"
SHORT_S = 0.2


class Videos:
    """Accepts everything, when it may."""

    def __init__(self) -> None:
        self.uploads: list[bytes | None] = []
        self.go = asyncio.Event()
        self.go.set()
        self.at_work = 0

    async def create(self, tenant: str, values: Any, *, upload: bytes | None, idempotency_key: str | None) -> JobRecord:
        self.at_work += 1
        await self.go.wait()
        self.at_work -= 1
        self.uploads.append(upload)
        return new_record(make_spec())

    async def cancel(self, tenant: str, video_id: str) -> JobRecord:
        return new_record(make_spec())


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: str | bytes) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        status = int((await self.reader.readline()).split()[1])
        headers: dict[str, str] = {}
        while (line := (await self.reader.readline()).strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, json.loads(body) if body else {})

    async def ended(self) -> bool:
        """Whether the server closed the connection; waits for it."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@dataclass
class Server:
    """A running server and its clients."""

    port: int
    videos: Videos
    web: HttpServer
    serving: asyncio.Task[None]
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, request: str) -> Answer:
        client = await self.connect()
        await client.send(request)
        return await client.answer()


GET = f"GET /healthz HTTP/1.1\r\n{HOST}\r\n"


@asynccontextmanager
async def serving(*, limits: ServingLimits, bodies: Bodies) -> AsyncIterator[Server]:
    videos = Videos()
    api = HttpApi(
        videos=cast(Any, videos),
        authenticator=Loopback(),
        delivery=cast(Any, None),
        ready=lambda: True,
        registry=CollectorRegistry(),
        rng=random.Random(1),
        bodies=bodies,
        cards=tuple,
    )
    listener = bind("127.0.0.1", 0)
    web = HttpServer(api.application(), listener, cert=None, key=None, limits=limits)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        server = Server(listener.getsockname()[1], videos, web, group.create_task(web.run()))
        try:
            yield server
        finally:
            for client in server.clients:
                client.writer.close()
            web.stop(within_s=1.0)


@asynccontextmanager
async def plain(**limits: Any) -> AsyncIterator[Server]:
    async with serving(
        limits=ServingLimits(**{"max_connections": 100, **limits}), bodies=Bodies(max_bytes=8 * 1024 * 1024)
    ) as server:
        yield server


async def test_beyond_the_bound_of_connections_a_request_is_told_when_to_come_back() -> None:
    async with plain(max_connections=3) as server:
        held = [await server.connect() for _ in range(3)]
        for client in held:
            await client.send(GET)
            assert (await client.answer()).status == 200
        refused = await server.ask(GET)
        assert (refused.status, refused.body["error"]["code"]) == (503, "resource_exhausted")
        assert int(refused.headers["retry-after"]) >= 1
        assert await server.clients[-1].ended()
        await held[0].send(GET)  # those inside are served as before
        assert (await held[0].answer()).status == 200
        held[0].writer.close()
        await held[0].writer.wait_closed()
        while (await server.ask(GET)).status != 200:
            pass


async def test_far_beyond_the_bound_connections_are_dropped() -> None:
    async with plain(max_connections=2) as server:
        held = [await server.connect() for _ in range(4)]
        await held[0].send(GET)
        assert (await held[0].answer()).status == 200
        assert await (await server.connect()).ended()


@pytest.mark.parametrize("sent", ["", "GET /hea", f"GET /healthz HTTP/1.1\r\n{HOST}X-A: b\r\n"])
async def test_a_head_that_does_not_arrive_is_a_408_and_the_end_of_the_connection(sent: str) -> None:
    async with plain(head_s=SHORT_S) as server:
        late = await server.ask(sent)
        assert (late.status, late.body["error"]["code"]) == (408, "request_timeout")
        assert await server.clients[-1].ended()
        assert (await server.ask(GET)).status == 200


async def test_a_head_that_is_dripped_after_an_answer_does_not_keep_the_connection() -> None:
    async with plain(head_s=SHORT_S) as server:
        assert (await server.ask(GET)).status == 200
        client = server.clients[-1]
        async with asyncio.TaskGroup() as group:
            answered = group.create_task(client.answer())
            while not answered.done():
                client.writer.write(b"G")
                await asyncio.sleep(SHORT_S / 10)
        assert answered.result().status == 408
        assert await client.ended()


async def test_a_body_that_is_dripped_is_a_408_and_the_end_of_the_connection() -> None:
    bodies = Bodies(max_bytes=1_000_000, deadline_s=SHORT_S, large=1)
    async with serving(limits=ServingLimits(max_connections=10), bodies=bodies) as server:
        for length in ("Content-Length: 900000", "Transfer-Encoding: chunked"):
            client = await server.connect()
            await client.send(f"POST /v1/videos HTTP/1.1\r\n{HOST}{length}\r\n\r\n1")
            late = await client.answer()
            assert (late.status, late.body["error"]["code"]) == (408, "request_timeout")
            assert await client.ended()
        assert server.videos.uploads == []


async def test_a_body_that_nobody_reads_does_not_keep_the_connection() -> None:
    async with plain(body_s=SHORT_S) as server:
        client = await server.connect()
        await client.send(f"POST /v1/videos/{JOB_ID}/cancel HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.ended()


def large(length: int = SMALL_BYTES + 1) -> tuple[str, bytes]:
    """Head and body of a create with an upload."""
    url = "data:image/png;base64," + base64.b64encode(b"x" * length).decode()
    body = json.dumps({"prompt": "p", "input_reference": {"image_url": url}}).encode()
    return f"POST /v1/videos HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n", body


SMALL = f'POST /v1/videos HTTP/1.1\r\n{HOST}Content-Length: 15\r\n\r\n{{"prompt": "p"}}'


async def test_large_bodies_have_seats_and_those_without_one_are_refused_unread() -> None:
    bodies = Bodies(max_bytes=8 * 1024 * 1024, large=2)
    async with serving(limits=ServingLimits(max_connections=20), bodies=bodies) as server:
        head, body = large()
        server.videos.go.clear()
        arriving, accepted = await server.connect(), await server.connect()
        await arriving.send(head.encode() + body[:1000])  # one seat for a body on its way
        await accepted.send(head.encode() + body)  # one for an upload that is being worked on
        while not server.videos.at_work:
            await asyncio.sleep(0)
        chunked = f"POST /v1/videos HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
        for unread in (head, chunked):
            refused = await server.ask(unread)
            assert (refused.status, refused.body["error"]["code"]) == (429, "resource_exhausted")
            assert int(refused.headers["retry-after"]) >= 1
        small = await server.connect()
        await small.send(SMALL)
        while server.videos.at_work < 2:  # a small one needs no seat
            await asyncio.sleep(0)
        server.videos.go.set()
        await arriving.send(body[1000:])
        for client in (arriving, accepted, small):
            assert (await client.answer()).status == 202
        again = await server.connect()
        await again.send(head.encode() + body)
        assert (await again.answer()).status == 202
        assert [len(upload) for upload in server.videos.uploads if upload] == [SMALL_BYTES + 1] * 3


async def test_a_client_that_leaves_or_lies_gives_its_seat_back() -> None:
    bodies = Bodies(max_bytes=8 * 1024 * 1024, large=1)
    async with serving(limits=ServingLimits(max_connections=100), bodies=bodies) as server:
        head, body = large()
        for _ in range(3):
            client = await server.connect()
            await client.send(head.encode() + body[:1000])
            client.writer.transport.abort()
        while True:  # until the server has noticed
            client = await server.connect()
            await client.send(head.encode() + b"{" * len(body))
            if (lied := await client.answer()).status != 429:
                break
        assert lied.status == 400
        await client.send(head.encode() + body)  # the same connection
        assert (await client.answer()).status == 202


# ---- the socket and the drain


def test_an_address_that_is_taken_or_not_ours_is_a_refused_setting() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(SettingsInvalid, match=str(taken.getsockname()[1])):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SettingsInvalid, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


async def test_a_drain_closes_the_door_and_lets_open_answers_end() -> None:
    async with plain() as server:
        server.videos.go.clear()
        client = await server.connect()
        await client.send(SMALL)
        while not server.videos.at_work:
            await asyncio.sleep(0)
        server.web.stop(within_s=30.0)
        while await listens(server.port):
            await asyncio.sleep(0.01)
        assert not server.serving.done()
        server.videos.go.set()
        assert (await client.answer()).status == 202
        assert await client.ended()
        await server.serving


async def test_a_drain_does_not_wait_longer_than_it_may() -> None:
    async with plain() as server:
        server.videos.go.clear()
        client = await server.connect()
        await client.send(SMALL)
        while not server.videos.at_work:
            await asyncio.sleep(0)
        server.web.stop(within_s=0.05)
        await server.serving  # nothing lets the answer go


async def test_signals_stay_the_process_s_own() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with plain() as server:
        assert (await server.ask(GET)).status == 200
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True
