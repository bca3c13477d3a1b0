"""Following a source that can only be read: it is read again and again, and each list that is new is told."""

from __future__ import annotations

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery, Endpoint, Tell
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.ids import check_name
from adaptivegen.telemetry import get_logger

LOOK_EVERY_S = 5.0


async def poll(source: Discovery, kind: str, tell: Tell, *, clock: Clock, every_s: float = LOOK_EVERY_S) -> None:
    """`Discovery.follow` by `Discovery.endpoints`. A source that cannot be read is said once, and asked again."""
    check_name(kind, field="kind")
    told: list[Endpoint] | None = None
    failure = ""
    while True:
        try:
            found = await source.endpoints(kind)
        except AdaptiveGenError as exc:
            if exc.message != failure:
                get_logger().warning("nodes_not_read", kind=kind, code=exc.code, error=exc.message)
            failure = exc.message
        else:
            failure = ""
            if found != told:
                await tell(found)
                told = found
        await clock.sleep(every_s)
