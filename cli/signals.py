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


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C raises KeyboardInterrupt as ever and is remembered as well: Python drops one that falls into a finaliser.
    The check this gives raises it again. For the main thread only."""
    interrupted = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield check
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
