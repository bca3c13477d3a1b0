"""Keeps a client's addresses those of the registered nodes of a kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.discovery.base import Discovery, Endpoint
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import get_logger


async def follow(
    kind: str,
    discovery: Discovery,
    address: Callable[[Endpoint], str | None],
    use: Callable[[list[str]], Awaitable[None]],
) -> None:
    """Use the registered nodes of a kind, until cancelled. A source that cannot be read, or that knows none, leaves the
    last known: they may well still answer."""
    known: list[str] = []

    async def told(nodes: list[Endpoint]) -> None:
        nonlocal known
        found = [where for node in nodes if (where := address(node))]
        if found and found != known:
            get_logger().info("nodes_found", kind=kind, addresses=found)
            try:
                await use(found)
                known = found
            except AdaptiveGenError as exc:  # certificates that are being replaced, say: the known ones stay
                get_logger().warning("nodes_not_used", kind=kind, code=exc.code, error=exc.message)

    await discovery.follow(kind, told)
