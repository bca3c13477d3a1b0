"""A broker that can be away."""

from __future__ import annotations

from adaptivegen.bus.base import KeyValue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.errors import BrokerUnavailable


class AwayBus(MemoryBus):
    """The broker in one process, which can be sent away."""

    away = False

    @property
    def connected(self) -> bool:
        return not self.away

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if self.away:
            raise BrokerUnavailable("away")
        return await super().kv(bucket, ttl_s=ttl_s)
