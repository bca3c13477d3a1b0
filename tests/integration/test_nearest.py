"""Probing real listeners: one answers, one is silent, one is not there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adaptivegen.clock import SystemClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.probe import nearest
from adaptivegen.errors import NodeUnavailable
from adaptivegen.sdk.nearest import find_edges
from cli.system.ports import free_ports


@asynccontextmanager
async def listener(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every request so; with nothing to answer it is silent."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer and await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            if reader.at_eof():
                break
        if not answer:
            await ended.wait()
        writer.close()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


async def test_the_one_that_answers_is_found_and_the_others_are_named_when_it_is_gone() -> None:
    absent = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with listener(b"") as silent:
        lost = [Endpoint("edge", "absent", http_url=absent), Endpoint("edge", "silent", http_url=silent)]
        async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as well:
            good = Endpoint("edge", "good", http_url=well)
            assert await nearest([*lost, good], clock=SystemClock(), deadline_s=0.5) == good
        with pytest.raises(NodeUnavailable) as caught:
            await nearest(lost, clock=SystemClock(), deadline_s=0.5)
    assert f"absent {absent}: ConnectError" in caught.value.message
    assert f"silent {silent}: " in caught.value.message


def sdk_order(urls: list[str]) -> tuple[str, ...]:
    return find_edges(urls, None).urls


async def test_the_sdk_orders_edges_by_the_same_probe_and_keeps_those_that_are_away_for_later() -> None:
    absent = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with (
        listener(b"HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n") as draining,
        listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as well,
    ):
        prefixed = f"{well}/some/prefix"  # behind a proxy
        assert await asyncio.to_thread(sdk_order, [absent, draining, prefixed]) == (prefixed, draining, absent)
        assert await asyncio.to_thread(sdk_order, [absent, draining]) == (draining, absent)  # it may be ready soon
        async with listener(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as something_else:
            with pytest.raises(NodeUnavailable, match="HTTP 404"):
                await asyncio.to_thread(sdk_order, [absent, something_else])
    with pytest.raises(NodeUnavailable, match=f"no edge answers: {absent}: ConnectError.*; {draining}: ConnectError"):
        await asyncio.to_thread(sdk_order, [absent, draining])
