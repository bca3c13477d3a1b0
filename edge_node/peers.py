"""Which media caches an edge uses: the one it was told, or those that registered themselves."""

from __future__ import annotations

from adaptivegen.discovery.base import Discovery
from adaptivegen.discovery.follow import follow
from edge_node.delivery import Delivery


async def find_caches(delivery: Delivery, discovery: Discovery, *, fixed: bool) -> None:
    """Offer the registered media caches to delivery, until cancelled; nothing to do when `fixed`."""

    async def offer(urls: list[str]) -> None:
        delivery.offer(urls)

    if not fixed:
        await follow("cache", discovery, lambda node: node.http_url, offer)
