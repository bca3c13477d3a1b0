"""How a node says it is alive: its report every half second, and whether an operator has drained it.

Owns the loop and the readings of its own process tree; what is in the report beyond that, the node's service says.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.nodes import HEARTBEAT_S, NodeReport, drain_key, heartbeat_subject
from adaptivegen.telemetry import get_logger

POLICY_BUCKET = "policy"
CHILDREN_EVERY = 20  # heartbeats: finding them reads every process of the machine
DRAIN_POLL_EVERY = 4  # heartbeats: a drain is seen within two seconds


class Heartbeat:
    """Publishes `report()` completed with sequence, time, load and the drain flag, until cancelled.

    Heartbeats carry no trace context and no request id: no request asks for them, and a trace of twice a second for
    ever would tell nobody anything.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        report: Callable[[], NodeReport],
        *,
        on_drain: Callable[[bool], None] = lambda drained: None,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._report = report
        self._on_drain = on_drain
        self._process = psutil.Process()
        self._children: list[psutil.Process] = []
        self._cpu_s = 0.0
        self._read_at_s = clock.monotonic_s()
        self.draining = False

    async def run(self) -> None:
        """Publish until cancelled. A broker that is away is no reason to stop."""
        beat = 0
        while True:
            if beat % DRAIN_POLL_EVERY == 0:
                await self._read_drain_flag()
            try:
                report = self._complete(self._report(), beat)
                await self._bus.publish(heartbeat_subject(report.kind, report.node_id), report.encode())
            except AdaptiveGenError as exc:
                get_logger().debug("heartbeat_not_sent", error=exc.message)
            beat += 1
            await self._clock.sleep(HEARTBEAT_S)

    async def _read_drain_flag(self) -> None:
        try:
            entry = await (await self._bus.kv(POLICY_BUCKET)).get(drain_key(self._report().node_id))
        except AdaptiveGenError:
            return  # keep what was last known
        if (entry is not None) != self.draining:
            self.draining = entry is not None
            self._on_drain(self.draining)
            get_logger().info("draining" if self.draining else "back_in_rotation")

    def _complete(self, report: NodeReport, beat: int) -> NodeReport:
        now_s = self._clock.monotonic_s()
        cpu_s, memory_bytes = self._load(beat)
        elapsed_s = max(now_s - self._read_at_s, 1e-3)
        cpu_percent = max(0.0, (cpu_s - self._cpu_s) / elapsed_s * 100.0) if beat else 0.0
        self._cpu_s, self._read_at_s = cpu_s, now_s
        return report.model_copy(
            update={
                "seq": beat,
                "sent_at_ns": self._clock.now_ns(),
                "draining": report.draining or self.draining,
                "cpu_percent": round(cpu_percent, 1),
                "memory_bytes": memory_bytes,
            }
        )

    def _load(self, beat: int) -> tuple[float, int]:
        """CPU seconds used so far and resident bytes, of this process and its children as they were found last."""
        if beat % CHILDREN_EVERY == 0 or not all(child.is_running() for child in self._children):
            self._children = self._process.children()
        cpu_s, memory_bytes = 0.0, 0
        for process in (self._process, *self._children):
            try:
                times = process.cpu_times()
                cpu_s += times.user + times.system
                memory_bytes += process.memory_info().rss
            except psutil.Error:
                continue  # a child that ended between the listing and the reading
        return cpu_s, memory_bytes
