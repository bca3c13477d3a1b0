"""A TCP proxy in front of a nats-server that loses what tests tell it to lose, and lets things happen in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit


class Proxy:
    """`lose_answers`: how many of the next chunks from the server are dropped (an answer is one chunk). Chunks from the
    server with `late` in them, if it is set, come late."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.port = 0
        self.lose_answers = 0
        self.late = b""
        self._first: tuple[bytes, Callable[[], Awaitable[None]]] | None = None

    def before(self, words: bytes, step: Callable[[], Awaitable[None]]) -> None:
        """Take `step` before the next request with these words goes on to the server."""
        self._first = (words, step)

    @property
    def url(self) -> str:
        return f"nats://{self._upstream.username}:{self._upstream.password}@127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        with contextlib.suppress(OSError, asyncio.CancelledError, ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, answers=False))
                group.create_task(self._pump(upstream_reader, writer, answers=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while chunk := await reader.read(1 << 16):
            if answers and self.lose_answers:
                self.lose_answers -= 1
                continue
            if not answers and self._first is not None and self._first[0] in chunk:
                (_, step), self._first = self._first, None
                await step()
            if answers and self.late and self.late in chunk:
                await asyncio.sleep(0.1)
            writer.write(chunk)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxy(upstream: str) -> AsyncIterator[Proxy]:
    between = Proxy(upstream)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    async with server:
        yield between
