"""One node as decisions see it: its latest report, and what was sent to it since. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from adaptivegen.drafting import has_room, share_ahead
from adaptivegen.nodes import HEARTBEAT_S, NodeReport

FRESH_FOR_S = 3 * HEARTBEAT_S
MAX_SLOTS = 32  # of one worker, in predictions
ON_ITS_WAY_S = 0.1  # from its placement, a draft may not have reached its edge's report yet
NodeCondition = Literal["healthy", "stale", "draining", "loading"]
_FRESH_FOR_NS, _ON_ITS_WAY_NS = round(FRESH_FOR_S * 1e9), round(ON_ITS_WAY_S * 1e9)


@dataclass(slots=True)
class Node:
    """One node: its latest report, when that arrived, and the draft work sent to it since.

    dispatched: when, the seconds of its work, and whose draft, empty for other work; dispatched_s: their sum, of what
    no report can have included; slots: how many jobs it can have at hand.
    """

    report: NodeReport
    received_at_ns: int
    dispatched: list[tuple[int, float, str]] = field(default_factory=list)
    dispatched_s: float = 0.0
    drained: bool = False
    fingerprint: int = 0
    slots: int = field(init=False)

    def __post_init__(self) -> None:
        self.slots = _slots(self.report)

    def hear(self, report: NodeReport, *, now_ns: int) -> None:
        """Take a newer report. What was sent just before it is still on its way to the node."""
        self.report, self.received_at_ns, self.slots = report, now_ns, _slots(report)
        self._keep([sent for sent in self.dispatched if now_ns - sent[0] < _ON_ITS_WAY_NS])

    def send(self, work_s: float, *, now_ns: int, tenant: str = "") -> None:
        """A draft was placed here; a report will include it soon."""
        if self.dispatched and now_ns - self.dispatched[0][0] >= _FRESH_FOR_NS:  # else none of them is that old
            self._keep([sent for sent in self.dispatched if now_ns - sent[0] < _FRESH_FOR_NS])
        self.dispatched.append((now_ns, work_s, tenant))
        self.dispatched_s += work_s

    def _keep(self, dispatched: list[tuple[int, float, str]]) -> None:
        self.dispatched, self.dispatched_s = dispatched, sum(work_s for _, work_s, _ in dispatched)

    def age_s(self, now_ns: int) -> float:
        """Seconds since the report arrived; 0 when this machine's clock was set back."""
        return max(0.0, (now_ns - self.received_at_ns) / 1e9)

    @property
    def clock_skew_s(self) -> float:
        """How far the sender's clock is ahead of ours, transit included. For people only."""
        return (self.report.sent_at_ns - self.received_at_ns) / 1e9

    def condition(self, now_ns: int, *, model: str = "") -> NodeCondition:
        """Its state as operators and decisions see it; as far as a model goes, where one is named."""
        if now_ns - self.received_at_ns > _FRESH_FOR_NS:
            return "stale"
        report = self.report
        if self.drained or report.draining:
            return "draining"
        return "healthy" if report.ready or report.has(model) else "loading"

    def remaining_s(self, now_ns: int, *, factor: float = 1.0, tenant: str = "") -> float:
        """Predicted seconds of work ahead of a new draft: as reported, less the age, and what was sent since.

        factor: by how much the times of the card, by which an edge reports, are to be multiplied; tenant: whose it is,
        so that what others have waiting counts as far as it goes before; all of it where none is named.
        """
        left_s = self._remaining_s(now_ns, factor)
        if not left_s or not tenant or not self._others_wait(tenant):
            return left_s
        report = self.report
        at_work = report.in_flight + report.queued
        known = min(report.queued, sum(report.waiting.values()))  # of the others nobody has said whose they are
        waiting_s = factor * report.remaining_s * known / at_work if at_work else 0.0
        waiting_s = min(left_s, waiting_s + sum(work_s for _, work_s, whose in self.dispatched if whose))
        return left_s - (1.0 - share_ahead(tenant, self._waiting())) * waiting_s

    def _others_wait(self, tenant: str) -> bool:
        """Whether drafts of another tenant wait here, or are on their way."""
        sent = any(whose not in ("", tenant) for _, _, whose in self.dispatched)
        return sent or any(whose != tenant for whose in self.report.waiting)

    def _waiting(self) -> Counter[str]:
        """How many of each tenant wait here: by the report, and sent since."""
        waiting = Counter(self.report.waiting)
        waiting.update(whose for _, _, whose in self.dispatched if whose)
        return waiting

    def _remaining_s(self, now_ns: int, factor: float) -> float:
        report = self.report
        if not report.remaining_s:
            return self.dispatched_s
        whole_s = report.remaining_s * factor
        at_hand_s = whole_s / max(1, report.in_flight + report.queued)  # of which alone something is done
        return max(0.0, whole_s - min(report.elapsed_s, at_hand_s) - self.age_s(now_ns)) + self.dispatched_s

    def waiting(self, now_ns: int) -> int:
        """Drafts that should wait here now: as reported, and sent since, but for those that will have been begun since
        then, as far as that is known."""
        works_s = [work_s for _, work_s, tenant in self.dispatched if tenant]
        if not works_s:
            return self.report.queued
        idle = max(0, self.report.capacity - self.report.in_flight)
        done = int(self.age_s(now_ns) * len(works_s) / max(1e-3, sum(works_s)))
        return max(0, self.report.queued + len(works_s) - idle - done)

    def is_full(self, at_most: int, *, tenant: str, now_ns: int) -> bool:
        """Whether no draft of a tenant may wait here any more (`drafting.has_room`): by those reported and those sent
        since; at_most: 0 for as many as come."""
        if not at_most or self.report.queued + len(self.dispatched) < at_most:  # as nearly always
            return False
        return not has_room(tenant, self._waiting(), queued=self.waiting(now_ns), at_most=at_most)

    def busy_slots(self, now_ns: int) -> int:
        """How many it has, also such as have outlasted what was predicted of them."""
        return self._busy(self._at_hand_s(now_ns))

    def slots_free_at_s(self, now_ns: int) -> list[float]:
        """When each of the node's places for work becomes free, in seconds from now."""
        at_hand_s, slots = self._at_hand_s(now_ns), self.slots
        if slots == 1:  # as nearly all have
            return [at_hand_s]
        busy = self._busy(at_hand_s)
        if not busy:
            return [0.0] * slots
        return [at_hand_s / busy] * busy + [0.0] * (slots - busy)

    def _busy(self, at_hand_s: float) -> int:
        return min(self.slots, max(self.report.in_flight, 1 if at_hand_s > 0 else 0))

    def _at_hand_s(self, now_ns: int) -> float:
        remaining_s = self.report.remaining_s
        return max(0.0, remaining_s - self.age_s(now_ns)) if remaining_s else 0.0


def _slots(report: NodeReport) -> int:
    return max(1, min(report.capacity, MAX_SLOTS))
