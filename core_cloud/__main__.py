"""`python -m core_cloud`: a cloud worker from `ADAPTIVEGEN_WORKER_*`."""

from __future__ import annotations

import asyncio
import random
import sys

from adaptivegen.clock import SystemClock
from adaptivegen.errors import SettingsInvalid
from adaptivegen.process import refuse, run
from adaptivegen.settings import load
from core_cloud.service import serve
from core_cloud.settings import WorkerSettings


def main() -> int:
    """Read the settings, run until SIGTERM; returns the exit status."""
    try:
        settings = load(WorkerSettings)
    except SettingsInvalid as exc:
        return refuse(exc)

    async def body(stop: asyncio.Event) -> None:
        await serve(settings, clock=SystemClock(), rng=random.SystemRandom(), stop=stop)

    return run(body, grace_s=settings.drain_grace_s)


if __name__ == "__main__":
    sys.exit(main())
