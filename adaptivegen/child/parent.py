"""The parent's side: a child Python process that talks over its standard input and output.

Owns the process and one task that reads its output: whole messages go into a bounded queue, and after them the child's
end, so that a `receive` may be cancelled at any moment. The task ends when the child has, which `stop` and `kill` see
to. The child's standard error is inherited, so what it logs or prints goes where the parent's goes. A dead child is
GenerationFailed with the signal or status in its text. The child ends when its parent does: end of input, and on Linux
the parent-death signal as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from typing import Any

from adaptivegen.child.framing import Message, Parts, decode_header, decode_length, encode
from adaptivegen.errors import GenerationFailed, InternalError, NodeUnavailable

STREAM_LIMIT_BYTES = 1024 * 1024
MAX_UNREAD = 8  # messages; the child waits while its parent has so many
LAST_WORDS_S = 1.0  # from the end of its output to the end of a child that ends by itself


class ChildProcess:
    """`python -m module args`. Any number of receivers and senders; messages do not mix.

    `env` replaces the environment; None inherits it. Whoever starts it calls `stop` or `kill`.
    """

    def __init__(self, module: str, args: list[str], *, env: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._args = args
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message | GenerationFailed | InternalError] = asyncio.Queue(MAX_UNREAD)
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Process id once started."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status once it has ended; negative: the signal."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start it; it may take its time before it first answers. Raises NodeUnavailable when this machine has no
        process, memory or file descriptor to spare."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *self._args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=STREAM_LIMIT_BYTES,
                env=self._env,
            )
        except OSError as exc:
            raise NodeUnavailable(f"the process of {self._module} cannot be started: {exc}") from exc
        self._process = process
        if process.stdout is None:
            raise InternalError("the child has no standard output")
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read(process, process.stdout), name=f"read {self._module}")

    async def send(self, header: Mapping[str, Any], parts: Parts | None = None) -> None:
        """Write one message; waits while the pipe is full. Raises GenerationFailed if the child is gone."""
        process = self._running()
        if process.stdin is None:
            raise InternalError("the child has no standard input")
        try:
            for piece in encode(header, parts or {}):  # no await in between, so that messages do not mix
                process.stdin.write(piece)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError, RuntimeError) as exc:  # RuntimeError: uvloop, a closed pipe
            await self._end(LAST_WORDS_S)
            raise self._death(process) from exc

    async def receive(self) -> Message:
        """The next message. Raises GenerationFailed when the child has ended, InternalError when it broke the format
        (and was killed); every later call raises the same. A call that is cancelled takes nothing."""
        self._running()
        item = await self._inbox.get()
        if isinstance(item, tuple):
            return item
        self._inbox.put_nowait(item)  # nothing comes after it
        raise type(item)(item.message)

    async def stop(self, *, grace_s: float) -> None:
        """Close its input, so that it ends by itself, and kill it after `grace_s`. Unread answers are dropped."""
        await self._end(grace_s)

    async def kill(self) -> None:
        """End it at once and wait until it is gone."""
        if self._process is not None:
            _kill(self._process)
        await self._end(None)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise InternalError(f"child {self._module} was not started")
        return self._process

    async def _end(self, grace_s: float | None) -> None:
        """Wait for the end, for `grace_s` before killing it. Cancelled, it leaves the reader to see to the rest."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        self._ending = True
        while not self._inbox.empty() and not reader.done():  # the reader may be waiting for room
            self._inbox.get_nowait()
        await asyncio.wait({reader}, timeout=grace_s)
        _kill(process)  # if it has not ended
        await asyncio.wait({reader})

    async def _read(self, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader) -> None:
        """Messages until the end of the output, then the child's end. Once it is being ended, messages are dropped."""
        broken: InternalError | None = None
        try:
            while True:
                message = await _next(stdout)
                if not self._ending:
                    await self._inbox.put(message)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the end
        except InternalError as exc:  # the stream is out of step; nothing after this can be trusted
            broken = exc
            _kill(process)
        await _gone(process, stdout)
        await self._inbox.put(broken or self._death(process))

    def _death(self, process: asyncio.subprocess.Process) -> GenerationFailed:
        status = process.returncode or 0
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return GenerationFailed(f"the process of {self._module} ended {how}")


async def _next(stream: asyncio.StreamReader) -> Message:
    """The next message; raises InternalError for one that breaks the format, IncompleteReadError at the end."""
    size = decode_length(await stream.readexactly(4))
    header, listed = decode_header(await stream.readexactly(size))
    return header, {name: await stream.readexactly(part_size) for name, part_size in listed}


async def _gone(process: asyncio.subprocess.Process, stdout: asyncio.StreamReader) -> None:
    """Wait for the end of a child that says no more; killed when that takes over `LAST_WORDS_S`."""
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            await _drained(stdout)
            await process.wait()
    except TimeoutError:
        _kill(process)
        await _drained(stdout)
        await process.wait()


async def _drained(stdout: asyncio.StreamReader) -> None:
    """Read and drop what is left of the output: `wait` does not return while a pipe holds unread bytes."""
    with contextlib.suppress(OSError):
        while await stdout.read(STREAM_LIMIT_BYTES):
            continue


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
