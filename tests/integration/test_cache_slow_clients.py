"""A media cache whose clients send the head of a request byte by byte."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from adaptivegen.clock import SystemClock
from cdn_cache.service import serve
from cdn_cache.settings import CacheSettings
from cli.system.ports import free_ports


@pytest.mark.parametrize("answered_before", [False, True])
async def test_a_head_that_is_dripped_does_not_keep_a_connection(tmp_path: Path, answered_before: bool) -> None:
    (port,) = free_ports(1)
    settings = CacheSettings(
        node_id="cache-1", auth="loopback", store_url=f"file://{tmp_path / 'store'}", dir=tmp_path, http_port=port
    )
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(serve(settings, clock=SystemClock(), stop=stop, keep_alive_s=0.2))
        reader, writer = await connected(port)
        if answered_before:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"alive")
        ended = group.create_task(until_the_end(reader))
        while not ended.done():
            writer.write(b"G")
            await asyncio.sleep(0.02)
        writer.close()
        stop.set()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, once the cache listens."""
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)


async def until_the_end(reader: asyncio.StreamReader) -> None:
    """Return when the cache has closed the connection."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
