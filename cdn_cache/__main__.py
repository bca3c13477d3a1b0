"""`python -m cdn_cache`: a media cache from `ADAPTIVEGEN_CACHE_*`."""

from __future__ import annotations

import asyncio
import sys

from adaptivegen.clock import SystemClock
from adaptivegen.errors import SettingsInvalid
from adaptivegen.process import refuse, run
from adaptivegen.settings import load
from cdn_cache.service import serve
from cdn_cache.settings import CacheSettings


def main() -> int:
    """Read the settings, run until SIGTERM; returns the exit status."""
    try:
        settings = load(CacheSettings)
    except SettingsInvalid as exc:
        return refuse(exc)

    async def body(stop: asyncio.Event) -> None:
        await serve(settings, clock=SystemClock(), stop=stop)

    return run(body, grace_s=settings.drain_grace_s, use_uvloop=False)


if __name__ == "__main__":
    sys.exit(main())
