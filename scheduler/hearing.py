"""Hearing what is published, for as long as a process lives."""

from __future__ import annotations

from collections.abc import Callable

from adaptivegen.bus.base import Bus, Message
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError

RETRY_S = 0.5


async def hear(bus: Bus, subject: str, take: Callable[[Message], None], *, buffer: int, clock: Clock) -> None:
    """Take every message of a subject, until cancelled. A broker that is away is waited for."""
    while True:
        try:
            subscription = await bus.subscribe(subject, buffer=buffer)
        except AdaptiveGenError:
            await clock.sleep(RETRY_S)
            continue
        try:
            async for message in subscription:
                take(message)
        finally:
            await subscription.close()
