"""Keeps a client's addresses those of the registered nodes of a kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery, Endpoint
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import get_logger

LOOK_EVERY_S = 5.0


async def follow(
    kind: str,
    discovery: Discovery,
    clock: Clock,
    address: Callable[[Endpoint], str | None],
    use: Callable[[list[str]], Awaitable[None]],
) -> None:
    """Use the registered nodes of a kind, until cancelled. A source that cannot be read, or that knows none, leaves the
    last known: they may well still answer."""
    known: list[str] = []
    failure = ""
    while True:
        try:
            found = [where for node in await discovery.endpoints(kind) if (where := address(node))]
            failure = ""
        except AdaptiveGenError as exc:
            if exc.message != failure:  # said once: without a list this node goes on alone
                get_logger().warning("nodes_not_read", kind=kind, code=exc.code, error=exc.message)
            failure, found = exc.message, known
        if found and found != known:
            get_logger().info("nodes_found", kind=kind, addresses=found)
            await use(found)
            known = found
        await clock.sleep(LOOK_EVERY_S)
