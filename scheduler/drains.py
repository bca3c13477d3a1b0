"""Nodes kept out of rotation: keys of the policy bucket, which edges, workers and every scheduler follow.

A key says why: an operator's drain stands until it is undone; one of scaling in ends with its node, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from adaptivegen.bus.base import Bus, KeyValue
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.nodes import drain_key
from scheduler.decide.view import NodeTable

BY_OPERATOR = b"drained by an operator"
SCALED_IN = b"scaled in"
PREFIX = drain_key("")


class Drains:
    """Reads and writes them, and keeps the node table in step. Everything raises BrokerUnavailable."""

    def __init__(self, bus: Bus, nodes: NodeTable) -> None:
        self._bus = bus
        self._nodes = nodes

    async def read(self) -> None:
        """Take over the drains as they are now."""
        keys = await (await self._bucket()).keys(PREFIX)
        self._nodes.set_drained(key.removeprefix(PREFIX) for key in keys)

    async def drain(self, node_id: str, *, why: bytes) -> None:
        """Take a node out of rotation; its running work finishes."""
        await (await self._bucket()).put(drain_key(node_id), why)
        self._nodes.set_drained(self._nodes.drained | {node_id})

    async def put_back(self, node_id: str) -> None:
        """Back into rotation."""
        await (await self._bucket()).delete(drain_key(node_id))
        self._nodes.set_drained(self._nodes.drained - {node_id})

    async def scaled_in(self, among: Iterable[str]) -> frozenset[str]:
        """Those of these nodes that were drained by scaling in."""
        bucket = await self._bucket()
        entries = [(node_id, await bucket.get(drain_key(node_id))) for node_id in among]
        return frozenset(node_id for node_id, entry in entries if entry is not None and entry.value == SCALED_IN)

    async def gone(self, node_id: str) -> None:
        """The node was silent for so long that it will not come back: scaling in has done its work."""
        if node_id in self._nodes.drained and await self.scaled_in([node_id]):
            await self.put_back(node_id)

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(POLICY_BUCKET)
