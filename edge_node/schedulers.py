"""Which schedulers an edge asks: those it was told, or those that registered themselves with the broker."""

from __future__ import annotations

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.rpc.placement import PlacementClient
from adaptivegen.telemetry import get_logger

LOOK_EVERY_S = 5.0


async def find_schedulers(client: PlacementClient, discovery: Discovery, *, clock: Clock, fixed: bool) -> None:
    """Keep the client's addresses those of the registered schedulers, until cancelled; nothing to do when `fixed`.

    A source that cannot be read, or that knows none, leaves the last known: they may well still answer.
    """
    known: list[str] = []
    failure = ""
    while not fixed:
        try:
            found = [node.grpc_address for node in await discovery.endpoints("scheduler") if node.grpc_address]
            failure = ""
        except AdaptiveGenError as exc:
            if exc.message != failure:  # said once: without a list this edge decides alone
                get_logger().warning("schedulers_not_read", code=exc.code, error=exc.message)
            failure, found = exc.message, known
        if found and found != known:
            get_logger().info("schedulers_found", addresses=found)
            await client.update(found)
            known = found
        await clock.sleep(LOOK_EVERY_S)
