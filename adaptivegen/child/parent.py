"""The parent's side: a child Python process that talks over its standard input and output.

Owns the process. Its standard error is inherited, so what it logs or prints goes where the parent's goes. A dead child
is GenerationFailed with the signal or status in its text. The child ends when its parent does: end of input, and on
Linux the parent-death signal as well.
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
LAST_WORDS_S = 1.0  # from the end of its output to the end of a child that ends by itself


class ChildProcess:
    """`python -m module args`. One reader at a time; any number of senders, whose messages do not mix.

    `env` replaces the environment; None inherits it.
    """

    def __init__(self, module: str, args: list[str], *, env: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._args = args
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._inbox = _Inbox()

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
            self._process = await asyncio.create_subprocess_exec(
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

    async def send(self, header: Mapping[str, Any], parts: Parts | None = None) -> None:
        """Write one message; waits while the pipe is full. Raises GenerationFailed if the child is gone."""
        stdin = self._running().stdin
        if stdin is None:
            raise InternalError("the child has no standard input")
        try:
            for piece in encode(header, parts or {}):  # no await in between, so that messages do not mix
                stdin.write(piece)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError, RuntimeError) as exc:  # RuntimeError: uvloop, a closed pipe
            raise await self._death() from exc

    async def receive(self) -> Message:
        """The next message; raises GenerationFailed when the child has ended. A call that is cancelled in the middle of
        a message loses nothing: the next goes on where it stopped."""
        stdout = self._running().stdout
        if stdout is None:
            raise InternalError("the child has no standard output")
        try:
            return await self._inbox.next(stdout)
        except asyncio.IncompleteReadError as exc:
            raise await self._death() from exc
        except InternalError:
            await self.kill()  # the stream is out of step; nothing after this can be trusted
            raise

    async def stop(self, *, grace_s: float) -> None:
        """Close its input, so that it ends by itself, and kill it after `grace_s`. Unread answers are dropped."""
        await self._end(grace_s)

    async def kill(self) -> None:
        """End it at once and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._end(None)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise InternalError(f"child {self._module} was not started")
        return self._process

    async def _end(self, grace_s: float | None) -> None:
        """Wait for the end, for `grace_s` before killing it."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(grace_s):
                await _drained(process)
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await _drained(process)
            await process.wait()

    async def _death(self) -> GenerationFailed:
        await self._end(LAST_WORDS_S)
        status = self.returncode or 0
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return GenerationFailed(f"the process of {self._module} ended {how}")


class _Inbox:
    """The message that is being read. `readexactly` takes all it was asked for or, when cancelled, nothing; what it has
    given is kept here until the message is whole."""

    def __init__(self) -> None:
        self._header_bytes = 0
        self._header: dict[str, Any] | None = None
        self._missing: list[tuple[str, int]] = []
        self._parts: dict[str, bytes] = {}

    async def next(self, stream: asyncio.StreamReader) -> Message:
        """The next whole message; raises InternalError for one that breaks the format, IncompleteReadError at the
        end."""
        if not self._header_bytes:
            self._header_bytes = decode_length(await stream.readexactly(4))
        if self._header is None:
            self._header, self._missing = decode_header(await stream.readexactly(self._header_bytes))
        while self._missing:
            name, size = self._missing[0]
            self._parts[name] = await stream.readexactly(size)
            del self._missing[0]
        message = self._header, self._parts
        self._header_bytes, self._header, self._parts = 0, None, {}
        return message


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Read and drop what is left of its output: `wait` does not return while a pipe holds unread bytes."""
    if process.stdout is None:
        return
    with contextlib.suppress(RuntimeError):  # someone else is reading, and drains it as well
        while await process.stdout.read(STREAM_LIMIT_BYTES):
            continue
