"""Running a coroutine that owns processes: SIGINT and SIGTERM cancel it, so that it can end them; a second signal ends
this process at once (its children then die by the kernel's promise, see `cli.system.supervisor`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from cli import exits


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
