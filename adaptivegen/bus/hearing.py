"""Hearing what is published on a subject, for as long as a process lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.bus.base import Bus, Message, Subscription
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import get_logger

RETRY_S = 0.5


async def hear(
    bus: Bus, subject: str, take: Callable[[Message], Awaitable[None] | None], *, buffer: int, clock: Clock
) -> None:
    """Tell `take` of every message of a subject, one after another, until cancelled. A broker that is away is waited
    for, which is said once. Where `take` raises an error of ours that is said, too, and the next message is taken.

    What is published while the broker is away, or while `buffer` messages wait, is lost: nothing may rest on it.
    """
    said = ""
    while True:
        try:
            subscription = await bus.subscribe(subject, buffer=buffer)
            said = ""
            try:
                await _take_all(subscription, subject, take)
            finally:
                await subscription.close()
        except AdaptiveGenError as exc:
            if exc.message != said:
                get_logger().warning("not_heard", subject=subject, code=exc.code, error=exc.message)
            said = exc.message
        await clock.sleep(RETRY_S)


async def _take_all(
    subscription: Subscription, subject: str, take: Callable[[Message], Awaitable[None] | None]
) -> None:
    async for message in subscription:
        try:
            acting = take(message)
            if acting is not None:
                await acting
        except AdaptiveGenError as exc:
            get_logger().warning("not_acted_on", subject=subject, code=exc.code, error=exc.message)
