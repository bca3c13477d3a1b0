"""How many workers each pool should have, looked at once a second; and orders to have so many.

What is advised is for whoever starts machines: an autoscaler by the metrics, a person by `admin pools`. While the
broker is away nothing is known, so the last advice stands. An order only drains workers and puts them back: machines
are started and ended by others.
"""

from __future__ import annotations

import asyncio

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import BrokerUnavailable, InvalidRequest, NotFound
from adaptivegen.telemetry import get_logger
from scheduler.decide.elastic import (
    MOST_WORKERS,
    Advice,
    ElasticSettings,
    ScaleOrder,
    Scaler,
    pool_load,
    scale_order,
    workers_of,
)
from scheduler.decide.view import MAX_POOLS, NodeTable
from scheduler.drains import SCALED_IN, Drains
from scheduler.steady import SteadyTime

LOOK_EVERY_S = 1.0


class Scaling:
    """Advises all pools and carries out orders. `advice` is the latest, by pool."""

    def __init__(
        self, nodes: NodeTable, bus: Bus, settings: ElasticSettings, *, clock: Clock, time: SteadyTime
    ) -> None:
        self._nodes = nodes
        self._bus = bus
        self._drains = Drains(bus, nodes)
        self._settings = settings
        self._clock = clock
        self._time = time
        self._scalers: dict[str, Scaler] = {}
        self._ordering = asyncio.Lock()
        self.advice: dict[str, Advice] = {}

    async def run(self) -> None:
        """Look at all pools every second, until cancelled."""
        while True:
            if self._bus.connected:
                self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Take the load of every pool as it is now; of pools that are gone nothing is kept."""
        now_ns = self._time.now_ns()
        pools = self._nodes.pools()[:MAX_POOLS]
        self._scalers = {pool: self._scalers.get(pool) or Scaler(self._settings) for pool in pools}
        before, self.advice = self.advice, {}
        for pool, scaler in self._scalers.items():
            advice = scaler.observe(pool_load(self._nodes, pool, now_ns=now_ns))
            self.advice[pool] = advice
            if pool not in before or before[pool].workers != advice.workers:
                get_logger().info("workers_advised", pool=pool, workers=advice.workers, reason=advice.reason)

    async def order(self, pool: str, workers: int) -> ScaleOrder:
        """Have `workers` of this pool in rotation: drain those with the least to lose, or put such back.

        Raises InvalidRequest for a number out of range, NotFound for a pool nothing is known of, BrokerUnavailable.
        """
        if not 0 <= workers <= MOST_WORKERS:
            raise InvalidRequest.field("workers", workers, f"0 to {MOST_WORKERS}")
        if pool not in self._nodes.pools():
            known = ", ".join(self._nodes.pools()) or "none"
            raise NotFound(f"no pool {pool[:63]!r} has been heard of; known: {known[:400]}", param="pool")
        if not self._bus.connected:
            raise BrokerUnavailable("the broker cannot be reached; drains are kept there")
        async with self._ordering:  # two orders at once would both count what the first has drained
            await self._drains.read()
            members = workers_of(self._nodes, pool)
            drained = [node.report.node_id for node in members if node.drained]
            scaled_in = await self._drains.scaled_in(drained)
            order = scale_order(members, workers, scaled_in=scaled_in, now_ns=self._time.now_ns())
            for node_id in order.drain:
                await self._drains.drain(node_id, why=SCALED_IN)
            for node_id in order.put_back:
                await self._drains.put_back(node_id)
        get_logger().info("pool_scaled", pool=pool, workers=workers, drained=order.drain, put_back=order.put_back)
        return order
