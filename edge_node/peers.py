"""Which schedulers and media caches an edge uses: those it was told, or those that registered themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery, Endpoint
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.telemetry import get_logger
from edge_node.delivery import Delivery

LOOK_EVERY_S = 5.0


async def find_schedulers(client: PlacementClient, discovery: Discovery, *, clock: Clock, fixed: bool) -> None:
    """Keep the client's addresses those of the registered schedulers, until cancelled; nothing to do when `fixed`."""
    if not fixed:
        await _follow("scheduler", discovery, clock, lambda node: node.grpc_address, client.update)


async def find_caches(delivery: Delivery, discovery: Discovery, *, clock: Clock, fixed: bool) -> None:
    """Offer the registered media caches to delivery, until cancelled; nothing to do when `fixed`."""

    async def offer(urls: list[str]) -> None:
        delivery.offer(urls)

    if not fixed:
        await _follow("cache", discovery, clock, lambda node: node.http_url, offer)


async def _follow(
    kind: str,
    discovery: Discovery,
    clock: Clock,
    address: Callable[[Endpoint], str | None],
    use: Callable[[list[str]], Awaitable[None]],
) -> None:
    """Use the registered nodes of a kind. A source that cannot be read, or that knows none, leaves the last known: they
    may well still answer."""
    known: list[str] = []
    failure = ""
    while True:
        try:
            found = [where for node in await discovery.endpoints(kind) if (where := address(node))]
            failure = ""
        except AdaptiveGenError as exc:
            if exc.message != failure:  # said once: without a list this edge goes on alone
                get_logger().warning("nodes_not_read", kind=kind, code=exc.code, error=exc.message)
            failure, found = exc.message, known
        if found and found != known:
            get_logger().info("nodes_found", kind=kind, addresses=found)
            await use(found)
            known = found
        await clock.sleep(LOOK_EVERY_S)
