"""Links between machines, on one: TCP proxies that hold back what passes by a delay with jitter, and keep its order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from adaptivegen.clock import Clock

CHUNK_BYTES = 1 << 16
HELD = 256  # chunks of one direction; a sender that is further ahead waits


@dataclass(frozen=True, slots=True)
class Link:
    """One way: `delay_s`, and up to `jitter_s` more, evenly spread, for every chunk."""

    delay_s: float
    jitter_s: float

    def __str__(self) -> str:
        return f"{self.delay_s * 1e3:g} to {(self.delay_s + self.jitter_s) * 1e3:g} ms"


@contextlib.asynccontextmanager
async def shaped(
    here: tuple[str, int], there: tuple[str, int], link: Link, *, clock: Clock, rng: random.Random
) -> AsyncIterator[None]:
    """Listen `here` and pass everything on to `there`, both ways by the link, inside the block."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            open_ones.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError, ExceptionGroup):
            try:
                far_reader, far_writer = await asyncio.open_connection(*there)
            except OSError:
                writer.close()
                return
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, far_writer, link, clock=clock, rng=rng))
                    group.create_task(_pump(far_reader, writer, link, clock=clock, rng=rng))
            finally:
                writer.close()
                far_writer.close()
        if task is not None:
            open_ones.discard(task)

    server = await asyncio.start_server(serve, *here)
    try:
        yield
    finally:
        server.close()
        for task in list(open_ones):
            task.cancel()
        if open_ones:
            await asyncio.wait(open_ones)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link, *, clock: Clock, rng: random.Random
) -> None:
    """One direction, until the sender ends it."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD)

    async def take() -> None:
        due_s = 0.0
        while True:
            chunk = await reader.read(CHUNK_BYTES)
            due_s = max(due_s, clock.monotonic_s() + link.delay_s + rng.uniform(0.0, link.jitter_s))
            await held.put((due_s, chunk))
            if not chunk:
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        while True:
            due_s, chunk = await held.get()
            await clock.sleep(max(0.0, due_s - clock.monotonic_s()))
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
