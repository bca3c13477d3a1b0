"""Which schedulers and media caches an edge uses: those it was told, or those that registered themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.discovery.base import Discovery, Endpoint
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.telemetry import get_logger
from edge_node.delivery import Delivery


async def find_schedulers(client: PlacementClient, discovery: Discovery, *, fixed: bool) -> None:
    """Keep the client's addresses those of the registered schedulers, until cancelled; nothing to do when `fixed`."""
    if not fixed:
        await _follow("scheduler", discovery, lambda node: node.grpc_address, client.update)


async def find_caches(delivery: Delivery, discovery: Discovery, *, fixed: bool) -> None:
    """Offer the registered media caches to delivery, until cancelled; nothing to do when `fixed`."""

    async def offer(urls: list[str]) -> None:
        delivery.offer(urls)

    if not fixed:
        await _follow("cache", discovery, lambda node: node.http_url, offer)


async def _follow(
    kind: str,
    discovery: Discovery,
    address: Callable[[Endpoint], str | None],
    use: Callable[[list[str]], Awaitable[None]],
) -> None:
    """Use the registered nodes of a kind. A source that knows none leaves the last known: they may well still
    answer."""
    known: list[str] = []

    async def told(nodes: list[Endpoint]) -> None:
        nonlocal known
        found = [where for node in nodes if (where := address(node))]
        if found and found != known:
            get_logger().info("nodes_found", kind=kind, addresses=found)
            await use(found)
            known = found

    await discovery.follow(kind, told)
