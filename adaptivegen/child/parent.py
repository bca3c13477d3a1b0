"""The parent's side: a child Python process that talks over its standard input and output.

Owns the process. Its standard error is inherited, so what it logs or prints goes where the parent's goes. A dead child
is GenerationFailed with the signal or status in its text. The child ends when its parent does: end of input, and on Linux
the parent-death signal as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from typing import Any

from adaptivegen.child.framing import Parts, decode_header, decode_length, encode_head
from adaptivegen.errors import GenerationFailed, InternalError

STREAM_LIMIT_BYTES = 1024 * 1024


class ChildProcess:
    """`python -m module args`. One reader and one writer at a time."""

    def __init__(self, module: str, args: list[str]) -> None:
        self._module = module
        self._args = args
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id once started."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status once it has ended; negative: the signal."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start it; it may take its time before it first answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            *self._args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=STREAM_LIMIT_BYTES,
        )

    async def send(self, header: Mapping[str, Any], parts: Parts | None = None) -> None:
        """Write one message; waits while the pipe is full. Raises GenerationFailed if the child is gone."""
        stdin = self._running().stdin
        if stdin is None:
            raise InternalError("the child has no standard input")
        parts = parts or {}
        try:
            stdin.write(encode_head(header, parts))
            for part in parts.values():
                stdin.write(part)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise await self._death() from exc

    async def receive(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The next message; raises GenerationFailed when the child has ended."""
        stdout = self._running().stdout
        if stdout is None:
            raise InternalError("the child has no standard output")
        try:
            length = decode_length(await stdout.readexactly(4))
            header, listed = decode_header(await stdout.readexactly(length))
            return header, {name: await stdout.readexactly(size) for name, size in listed}
        except asyncio.IncompleteReadError as exc:
            raise await self._death() from exc
        except InternalError:
            await self.kill()  # the stream is out of step; nothing after this can be trusted
            raise

    async def stop(self, *, grace_s: float) -> None:
        """Close its input, so that it ends by itself, and kill it after `grace_s`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once and wait until it is gone."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise InternalError(f"child {self._module} was not started")
        return self._process

    async def _death(self) -> GenerationFailed:
        await self.kill()
        status = self.returncode or 0
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return GenerationFailed(f"the process of {self._module} ended {how}")
