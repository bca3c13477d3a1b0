"""Nodes kept out of rotation: keys of the policy bucket, which edges, workers and every scheduler follow.

A key says why: an operator's drain stands until it is undone. One of scaling in names the life of the node it was meant
for: it ends when the node has started anew, or was silent for so long that it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from adaptivegen.batches import read_all
from adaptivegen.bus.base import Bus, KeyValue
from adaptivegen.errors import PreconditionFailed
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.nodes import drain_key
from adaptivegen.telemetry import get_logger
from scheduler.decide.view import NodeTable

BY_OPERATOR = b"drained by an operator"
PREFIX = drain_key("")
_SCALED_IN = b"scaled in "  # and when the node's life began, in wall nanoseconds


class Drains:
    """Reads and writes them, and keeps the node table in step. Everything raises BrokerUnavailable."""

    def __init__(self, bus: Bus, nodes: NodeTable) -> None:
        self._bus = bus
        self._nodes = nodes
        self._lives: dict[str, int | None] = {}  # of drained nodes; None where an operator drained

    async def read(self) -> None:
        """Take over the drains as they are now."""
        bucket = await self._bucket()
        node_ids = [key.removeprefix(PREFIX) for key in await bucket.keys(PREFIX)]
        fresh = [node_id for node_id in node_ids if node_id not in self._lives]
        found = dict(zip(fresh, await read_all(fresh, self._life), strict=True))
        self._lives = {node_id: found.get(node_id, self._lives.get(node_id)) for node_id in node_ids}
        self._nodes.set_drained(node_ids)

    async def drain(self, node_id: str) -> None:
        """An operator takes a node out of rotation; its running work finishes."""
        await (await self._bucket()).put(drain_key(node_id), BY_OPERATOR)
        self._note(node_id, None)

    async def scale_in(self, node_id: str, *, started_at_ns: int) -> bool:
        """Take this life of a node out of rotation, unless it was drained meanwhile."""
        try:
            await (await self._bucket()).create(drain_key(node_id), _SCALED_IN + b"%d" % started_at_ns)
        except PreconditionFailed:
            return False
        self._note(node_id, started_at_ns)
        get_logger().info("node_scaled_in", node=node_id)
        return True

    async def put_back(self, node_id: str) -> None:
        """Back into rotation, whoever drained it."""
        await (await self._bucket()).delete(drain_key(node_id))
        self._lives.pop(node_id, None)
        self._nodes.set_drained(self._nodes.drained - {node_id})

    async def scale_out(self, node_id: str) -> bool:
        """Back into rotation, if it was scaling in that drained it; looked at anew right before."""
        if await self._life(node_id) is None:
            return False
        await self.put_back(node_id)
        get_logger().info("node_scaled_out", node=node_id)
        return True

    async def scaled_in(self, among: Iterable[str]) -> frozenset[str]:
        """Those of these nodes that were drained by scaling in."""
        node_ids = list(among)
        lives = await read_all(node_ids, self._life)
        return frozenset(node_id for node_id, life in zip(node_ids, lives, strict=True) if life is not None)

    async def sweep(self, *, unheard: bool) -> None:
        """End the drains of scaling in whose node has started anew; with `unheard`, also of nodes that are not in the
        table, which whoever listened for long enough may take to be gone."""
        for node_id, life in list(self._lives.items()):
            node = self._nodes.get(node_id)
            over = unheard if node is None else life is not None and node.report.started_at_ns > life
            if life is not None and over and await self._life(node_id) == life:
                await self.put_back(node_id)
                get_logger().info("node_drain_over", node=node_id)

    async def _life(self, node_id: str) -> int | None:
        """Which life of the node was scaled in; None where it was not."""
        entry = await (await self._bucket()).get(drain_key(node_id))
        text = entry.value.removeprefix(_SCALED_IN) if entry is not None else b""
        return int(text) if entry is not None and text != entry.value and text.isdigit() and len(text) <= 20 else None

    def _note(self, node_id: str, life: int | None) -> None:
        self._lives[node_id] = life
        self._nodes.set_drained(self._nodes.drained | {node_id})

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(POLICY_BUCKET)
