"""How many workers each pool should have, looked at once a second; and orders to have so many.

What is advised is for whoever starts machines: an autoscaler by the metrics, a person by `admin pools`. While the
broker is away nothing is known, so the last advice stands. An order only drains workers and puts them back: machines
are started and ended by others.
"""

from __future__ import annotations

import asyncio

from adaptivegen.batches import read_all
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import BrokerUnavailable, InvalidRequest, NotFound, Unavailable
from adaptivegen.telemetry import get_logger
from scheduler.decide.elastic import (
    MOST_WORKERS,
    Advice,
    ElasticSettings,
    ScaleOrder,
    Scaler,
    by_pool,
    pool_load,
    scale_order,
)
from scheduler.decide.ledger import MAX_POOLS
from scheduler.decide.node import Node
from scheduler.decide.view import View
from scheduler.drains import Drains
from scheduler.steady import SteadyTime

LOOK_EVERY_S = 1.0
LISTEN_S = 4.0  # heartbeats come twice a second


class Scaling:
    """Advises all pools and carries out orders. `advice` is the latest, by pool."""

    def __init__(
        self, view: View, bus: Bus, drains: Drains, settings: ElasticSettings, *, clock: Clock, time: SteadyTime
    ) -> None:
        self._view = view
        self._bus = bus
        self._drains = drains
        self._settings = settings
        self._clock = clock
        self._time = time
        self._scalers: dict[str, Scaler] = {}
        self._listening_since_s: float | None = None
        self._ordering = asyncio.Lock()
        self.advice: dict[str, Advice] = {}

    async def run(self) -> None:
        """Look at all pools every second, until cancelled."""
        while True:
            self.tick()
            await self._clock.sleep(LOOK_EVERY_S)

    def tick(self) -> None:
        """Look, if all who live can have been heard: not at once after a start, nor after the broker was away."""
        if not self._bus.connected:
            self._listening_since_s = None
            return
        if self._listening_since_s is None:
            self._listening_since_s = self._clock.monotonic_s()
        if self._knows():
            self._look()

    def _knows(self) -> bool:
        since_s = self._listening_since_s
        return since_s is not None and self._clock.monotonic_s() - since_s >= LISTEN_S

    def _look(self) -> None:
        """Take the load of every pool as it is now; of pools that are gone nothing is kept."""
        now_ns = self._time.now_ns()
        pools = by_pool(self._view)
        chosen = sorted(pools, key=lambda pool: (-len(pools[pool]), pool))[:MAX_POOLS]
        self._scalers = {pool: self._scalers.get(pool) or Scaler(self._settings) for pool in sorted(chosen)}
        before, self.advice = self.advice, {}
        for pool, scaler in self._scalers.items():
            advice = scaler.observe(pool_load(self._view, pool, pools[pool], now_ns=now_ns))
            self.advice[pool] = advice
            if pool not in before or before[pool].workers != advice.workers:
                get_logger().info("workers_advised", pool=pool, workers=advice.workers, reason=advice.reason)

    async def order(self, pool: str, workers: int) -> ScaleOrder:
        """Have `workers` of this pool in rotation: drain those with the least to lose, or put such back.

        Raises InvalidRequest for a number out of range, NotFound for a pool nothing is known of, BrokerUnavailable,
        Unavailable while not all nodes can have been heard.
        """
        if not 0 <= workers <= MOST_WORKERS:
            raise InvalidRequest.field("workers", workers, f"0 to {MOST_WORKERS}")
        if not self._bus.connected:
            raise BrokerUnavailable("the broker cannot be reached; drains are kept there")
        if not self._knows():
            raise Unavailable("not all nodes can have been heard yet; ask again", retry_after_s=LISTEN_S)
        async with self._ordering:  # two orders at once would both count what the first has drained
            await self._drains.read()
            pools = by_pool(self._view)
            if pool not in pools:
                known = ", ".join(pools) or "none"
                raise NotFound(f"no pool {pool[:63]!r} has been heard of; known: {known[:400]}", param="pool")
            return await self._carry_out(pools[pool], workers)

    async def _carry_out(self, members: list[Node], workers: int) -> ScaleOrder:
        by_id = {node.report.node_id: node for node in members}
        scaled_in = await self._drains.scaled_in(node_id for node_id, node in by_id.items() if node.drained)
        order = scale_order(self._view, members, workers, scaled_in=scaled_in, now_ns=self._time.now_ns())

        async def drain(node_id: str) -> bool:
            return await self._drains.scale_in(node_id, started_at_ns=by_id[node_id].report.started_at_ns)

        drained = await read_all(order.drain, drain)
        back = await read_all(order.put_back, self._drains.scale_out)
        return ScaleOrder(
            drain=tuple(node_id for node_id, done in zip(order.drain, drained, strict=True) if done),
            put_back=tuple(node_id for node_id, done in zip(order.put_back, back, strict=True) if done),
            missing=order.missing + back.count(False),
        )
