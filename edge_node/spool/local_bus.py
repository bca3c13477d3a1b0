"""The broker of a spool: the one in memory, without queues. What waits in a spool waits for the way back, and nobody
pulls there; a queue would only grow."""

from __future__ import annotations

from collections.abc import Mapping

from adaptivegen.bus.base import MAX_ACK_PENDING, Delivery, QueueDepth, WorkQueue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.errors import InternalError


class SpoolBus(MemoryBus):
    """Buckets and events as in memory; messages for workers are forgotten."""

    async def work_queue(
        self, pool: str, *, ack_wait_s: float | None = None, max_ack_pending: int = MAX_ACK_PENDING
    ) -> WorkQueue:
        return _Nowhere()


class _Nowhere:
    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        return None

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        raise InternalError("nobody works from a spool")

    async def depth(self) -> QueueDepth:
        return QueueDepth(pending=0, in_flight=0)
