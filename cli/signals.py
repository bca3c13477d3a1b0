"""Running a coroutine that owns processes: SIGINT and SIGTERM cancel it, so that it can end them; a second signal ends
this process at once (its children then die by the kernel's promise, see `cli.system.supervisor`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cli import exits


class Interrupts:
    """Ctrl-C raises KeyboardInterrupt as ever and is remembered as well: Python drops one that falls into a finaliser.

    Not in the middle of what must be whole (`held`), there at its end. For the main thread only.
    """

    def __init__(self) -> None:
        self._seen = False
        self._holding = False

    def forget(self) -> None:
        """Go on as if it had not been pressed; the next one raises again."""
        self._seen = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block run to its end; there any that came since the last `forget` is raised (again)."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._seen:
            raise KeyboardInterrupt

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT."""
        self._seen = True
        if not self._holding:
            raise KeyboardInterrupt


@contextmanager
def remembered_interrupts() -> Iterator[Interrupts]:
    """Interrupts inside the block; the handler there was stands again after it."""
    interrupts = Interrupts()
    before = signal.signal(signal.SIGINT, interrupts.on_signal)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def run_until_signal(main: Callable[[], Awaitable[None]]) -> bool:
    """Run `main` to its end. False when a signal ended it."""
    return asyncio.run(_guarded(main))


async def _guarded(main: Callable[[], Awaitable[None]]) -> bool:
    task = asyncio.current_task()
    stopped = False

    def on_signal() -> None:
        nonlocal stopped
        if stopped or task is None:
            os._exit(exits.INTERRUPTED)
        stopped = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await main()
    except asyncio.CancelledError:
        if not stopped:
            raise
        return False
    return True
