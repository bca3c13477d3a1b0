"""One child process: started in a session of its own, with its log, and never left behind.

A session of its own keeps a Ctrl-C in the terminal from it. On Linux the kernel kills it when the thread that started
it ends, so it must be started from the supervisor's main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from adaptivegen.errors import NodeUnavailable
from cli.system.layout import ProcessPlan

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: between fork and exec is no time for it


class Child:
    """A planned process, running or not. `restarts` counts the starts after the first."""

    def __init__(self, plan: ProcessPlan, log: Path) -> None:
        self.plan = plan
        self.log = log
        self.restarts = -1
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id, while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def status(self) -> int | None:
        """Exit status of the last run (negative: the signal that ended it); None while it runs or before."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        """Start it; raises NodeUnavailable when the system refuses."""
        parent = os.getpid()
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.plan.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self.plan.env),
                    start_new_session=True,
                    preexec_fn=lambda: _die_with(parent),
                )
            finally:
                os.close(log)
        except OSError as exc:
            raise NodeUnavailable(f"{self.plan.name} cannot be started: {exc}") from exc
        self.restarts += 1

    async def wait(self) -> int:
        """Exit status, once it has ended; what it left of its session is killed."""
        if self._process is None:
            raise NodeUnavailable(f"{self.plan.name} was not started")
        status = await self._process.wait()
        self._kill_session()
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self, *, grace_s: float) -> bool:
        """SIGTERM, `grace_s`, SIGKILL to its session. False when it had to be killed."""
        if self._process is None:
            return True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
            return True
        except TimeoutError:
            self._kill_session()
            await self._process.wait()
            return False

    def _kill_session(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for zombies
                os.killpg(self._process.pid, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """In the child before it runs: be killed with the parent, which may be gone already."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
