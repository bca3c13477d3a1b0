"""Bounds on the logs of `adaptivegen up`: each process keeps its newest log and one older, of a limited size.

The processes write to the file themselves, opened for appending, so it is copied and then cut to nothing in place;
lines written between the two are lost.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adaptivegen.clock import Clock
from adaptivegen.telemetry import get_logger

MAX_LOG_BYTES = 32 * 1024 * 1024
LOOK_EVERY_S = 10.0


def rotate(log: Path, max_bytes: int) -> bool:
    """Keep `log` as `<log>.1` and begin anew where it has over `max_bytes`; whether it was so. Raises OSError."""
    if not log.exists() or log.stat().st_size <= max_bytes:
        return False
    older = log.with_name(f"{log.name}.1")
    shutil.copyfile(log, older)
    older.chmod(0o600)
    os.truncate(log, 0)
    return True


async def keep_small(logs: list[Path], *, clock: Clock, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Look after these logs until cancelled."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="logs") as thread:
        while True:
            await clock.sleep(LOOK_EVERY_S)
            for log in logs:
                try:
                    await asyncio.get_running_loop().run_in_executor(thread, rotate, log, max_bytes)
                except OSError as exc:  # a full disk; the processes go on
                    get_logger().warning("log_not_rotated", log=log.name, error=str(exc))
