"""`python -m scheduler`: a scheduler from `ADAPTIVEGEN_SCHEDULER_*`."""

from __future__ import annotations

import asyncio
import random
import sys

from adaptivegen.clock import SystemClock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.process import collect_seldom, refuse, run
from adaptivegen.settings import load
from scheduler.service import serve
from scheduler.settings import SchedulerSettings


def main() -> int:
    """Read the settings and cards, run until SIGTERM; returns the exit status."""
    try:
        settings = load(SchedulerSettings)
        cards = settings.library().cards()
    except AdaptiveGenError as exc:
        return refuse(exc)

    async def body(stop: asyncio.Event) -> None:
        collect_seldom()
        await serve(settings, cards=cards, clock=SystemClock(), rng=random.SystemRandom(), stop=stop)

    return run(body, grace_s=settings.drain_grace_s)


if __name__ == "__main__":
    sys.exit(main())
