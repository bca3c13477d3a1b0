"""What every service process does around its work: the loop, signals, the ready line, the bounded drain.

`run(main)` runs `main(stop)` on uvloop and returns the exit status. SIGTERM and SIGINT set `stop`; a second signal,
or a drain that outlasts its grace by a fixed margin (`adaptivegen.drain`), ends the process at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

from adaptivegen.clock import Clock
from adaptivegen.drain import watchdog_s
from adaptivegen.errors import AdaptiveGenError, SettingsInvalid, first_error
from adaptivegen.telemetry import get_logger

CANCEL_AGAIN_S = 0.5
GARBAGE_THRESHOLDS = (10_000, 20, 50)  # of containers made and not gone, then of collections of the younger ones
EXIT_SETTINGS = 2
EXIT_FAILURE = 1


def collect_seldom() -> None:
    """Let cycles of garbage wait for longer. Nearly everything here goes when it is used last, and by default a process
    that answers a thousand calls a second looks through all that it keeps several times in each of them."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def run(main: Callable[[asyncio.Event], Awaitable[None]], *, grace_s: float, use_uvloop: bool = True) -> int:
    """Run a service to its end. 0 after a drain, 2 for refused settings, 1 for any other failure, also for a drain
    that has not ended `watchdog_s(grace_s)` after the signal."""

    async def listening() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop, watchdog_s(grace_s))
        await main(stop)

    try:
        if use_uvloop:
            import uvloop

            uvloop.run(listening())
        else:
            asyncio.run(listening())
    except AdaptiveGenError as exc:
        return refuse(exc)
    except BaseExceptionGroup as group:
        error = first_error(group)
        if not isinstance(error, AdaptiveGenError):
            raise
        return refuse(error)
    return 0


def refuse(error: AdaptiveGenError) -> int:
    """Say on standard error why the process ends; returns its exit status."""
    sys.stderr.write(f"error: {error.message}\n")
    return EXIT_SETTINGS if isinstance(error, SettingsInvalid) else EXIT_FAILURE


def _on_signal(stop: asyncio.Event, limit_s: float) -> None:
    if stop.is_set():
        os._exit(EXIT_FAILURE)
    stop.set()
    watchdog = threading.Timer(limit_s, _give_up, args=(limit_s,))  # a thread: the loop may be what hangs
    watchdog.daemon = True
    watchdog.start()


def _give_up(limit_s: float) -> None:
    os.write(2, f"error: the drain has not ended within {limit_s:g} s\n".encode())
    os._exit(EXIT_FAILURE)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended. Once is not enough: `asyncio.wait_for` of Python 3.11, which nats-py uses,
    loses a cancellation that comes at the moment its answer does, and a loop around it would go on for ever."""
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


async def guarded(what: str, work: Awaitable[None]) -> None:
    """Await `work`; an unexpected error is logged and ends here. For tasks that serve one request among many in a
    group: without it one bug would end the group, and with it the process."""
    try:
        await work
    except Exception as exc:
        get_logger().error("unexpected_error", what=what, exc_info=exc)


async def retry_until(
    step: Callable[[], Awaitable[None]], *, stop: asyncio.Event, clock: Clock, what: str, longest_s: float = 5.0
) -> bool:
    """Repeat `step` while it raises a retryable error, with growing pauses; False when `stop` came first."""
    pause_s = 0.2
    while not stop.is_set():
        try:
            await step()
            return True
        except AdaptiveGenError as exc:
            if not exc.retryable:
                raise
            get_logger().warning("waiting", what=what, code=exc.code, error=exc.message)
        await pause(pause_s, stop=stop, clock=clock)
        pause_s = min(longest_s, pause_s * 2)
    return False


async def pause(seconds: float, *, stop: asyncio.Event, clock: Clock) -> None:
    """Sleep, but not beyond `stop`."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(clock.sleep(seconds)), group.create_task(_until(stop))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await end(*waits)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
