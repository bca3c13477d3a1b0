"""What keeps the view true: heartbeats, word of drafts that are there, and the operators' drains.

Three loops over the broker. Each survives its absence: what was last known stays, and ages. Decides nothing.
"""

from __future__ import annotations

import asyncio

from adaptivegen.bus.base import Bus, Message
from adaptivegen.bus.hearing import hear
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, InvalidRequest
from adaptivegen.nodes import ALL_DRAFTS, ALL_HEARTBEATS, DraftsOver, decode_report, heartbeat_subject
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from scheduler.decide.placing import Ours, Placing
from scheduler.decide.view import FORGET_AFTER_S, View
from scheduler.drains import Drains
from scheduler.steady import SteadyTime

HEARTBEAT_BUFFER = 4096
MAX_REPORT_BYTES = 16 * 1024
DRAIN_POLL_S = 2.0
LISTEN_S = 10.0  # heartbeats come twice a second: whoever lives was heard by then
LOG_EVERY_S = 10.0


class Watch:
    """Feeds one view, heartbeats by way of whoever places (`placing`, by default ours). `malformed` and `refused` count
    heartbeats, and word of drafts, that were not taken."""

    def __init__(
        self,
        view: View,
        bus: Bus,
        drains: Drains,
        *,
        clock: Clock,
        time: SteadyTime,
        placing: Placing | None = None,
    ) -> None:
        self._view = view
        self._placing = placing or Ours(view)
        self._nodes = view.nodes
        self._drains = drains
        self._bus = bus
        self._clock = clock
        self._time = time
        self._logged_at_s = -LOG_EVERY_S
        self._listening_since_s: float | None = None
        self.malformed = 0
        self.refused = 0

    async def run(self) -> None:
        """All loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(hear(self._bus, ALL_HEARTBEATS, self.take, buffer=HEARTBEAT_BUFFER, clock=self._clock))
            group.create_task(hear(self._bus, ALL_DRAFTS, self.drafted, buffer=HEARTBEAT_BUFFER, clock=self._clock))
            group.create_task(self._follow_drains())

    # ---- heartbeats -------------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """One message under the heartbeats' subjects; one that is no heartbeat is counted and forgotten."""
        try:
            if len(message.data) > MAX_REPORT_BYTES:
                raise InvalidRequest.field("report", f"{len(message.data)} bytes", f"at most {MAX_REPORT_BYTES} bytes")
            report = decode_report(message.data)
            if message.subject != heartbeat_subject(report.kind, report.node_id):
                raise InvalidRequest.field("report.node_id", report.node_id, f"the sender on {message.subject[:120]}")
        except InvalidRequest as exc:
            self.malformed += 1
            self._complain(
                "heartbeat_malformed", subject=message.subject[:120], error=exc.message, so_far=self.malformed
            )
            return
        known = self._nodes.get(report.node_id) is not None
        now_ns = self._time.now_ns()
        verdict = self._placing.hear(report, now_ns=now_ns)
        if verdict == "full":
            self.refused += 1
            self._complain("node_table_full", node=report.node_id, so_far=self.refused)
        elif verdict == "accepted" and not known:
            node = self._nodes.get(report.node_id)
            skew_s = round(node.clock_skew_s, 3) if node is not None else 0.0
            get_logger().info("node_seen", node=report.node_id, kind=report.kind, clock_skew_s=skew_s)

    def drafted(self, message: Message) -> None:
        """Word of drafts that are there; what is none is counted and forgotten."""
        try:
            if len(message.data) > MAX_REPORT_BYTES:
                raise InvalidRequest.field("drafts", f"{len(message.data)} bytes", f"at most {MAX_REPORT_BYTES} bytes")
            told = parsed(DraftsOver, message.data, name="drafts")
        except InvalidRequest as exc:
            self.malformed += 1
            self._complain("drafts_malformed", subject=message.subject[:120], error=exc.message, so_far=self.malformed)
            return
        for job_id in told.job_ids:
            self._view.jobs.drafted(job_id)

    def _complain(self, event: str, **details: object) -> None:
        """Log, at most once in `LOG_EVERY_S` seconds."""
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_at_s >= LOG_EVERY_S:
            self._logged_at_s = now_s
            get_logger().warning(event, **details)

    # ---- drains and forgetting ----------------------------------------------------------------------------------

    async def _follow_drains(self) -> None:
        while True:
            try:
                await self.follow_nodes()
            except AdaptiveGenError as exc:
                get_logger().debug("drains_not_read", error=exc.message)
            await self._clock.sleep(DRAIN_POLL_S)

    async def follow_nodes(self) -> None:
        """Take over the drains, and forget nodes that were silent for long; raises BrokerUnavailable.

        While the broker is away nobody is heard, so nobody is forgotten before it was back for a while. Drains of nodes
        that were never heard of are looked at only when everybody that lives must have been.
        """
        try:
            await self._drains.read()
        except AdaptiveGenError:
            self._listening_since_s = None
            raise
        now_s = self._clock.monotonic_s()
        if self._listening_since_s is None:
            self._listening_since_s = now_s
        if now_s - self._listening_since_s >= LISTEN_S:
            for node_id in self._view.expire(now_ns=self._time.now_ns()):
                get_logger().info("node_forgotten", node=node_id)
        await self._drains.sweep(unheard=now_s - self._listening_since_s >= FORGET_AFTER_S)
