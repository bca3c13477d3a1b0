"""Models that nodes are loading, and when they should be there. Pure.

A node says how long it has been at it and how long it expects to be; how long the last load of that model took there,
as it was seen from here, counts for more. Nobody's word is good for ever: a load that is overdue, that is begun time
and again, or that is said to need unlikely long promises nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from adaptivegen.nodes import NodeReport

LONGEST_S = 600.0  # of a load that is waited for
OVERDUE = 2.0  # times what was expected
SLACK_S = 2.0  # that a load may always be late, and two reports of one may differ by
TAIL = 0.1  # of what it has had, that an outlasting load still needs at least
MOST_TRIES = 3  # in a row, of loads that did not end with a model that serves
MAX_NODES, MAX_MODELS = 4096, 16  # that are remembered, and models of each


@dataclass(slots=True)
class _Load:
    """One load under way, of one life of a node. begun_ns: by this machine's clock."""

    life: int
    begun_ns: int
    expected_s: float


@dataclass(slots=True)
class _Node:
    """One node, by model: what it loads now, how long that took last, how often it was begun since it last served."""

    open: dict[str, _Load] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)


class Loads:
    """The loads of all nodes that have loaded anything since they are known; the one that began last is at the end."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, _Node] = OrderedDict()

    def __repr__(self) -> str:
        return f"Loads({sorted((name, model) for name, node in self._nodes.items() for model in node.open)})"

    def hear(self, report: NodeReport, *, now_ns: int) -> None:
        """Take a heartbeat that arrived now."""
        node = self._nodes.get(report.node_id)
        if node is None:
            if not report.loading:
                return
            node = self._nodes[report.node_id] = _Node()
            while len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)
        told = {load.model: load for load in report.loading}
        for model, load in told.items():
            begun_ns = now_ns - round(load.elapsed_s * 1e9)
            known = node.open.get(model)
            if known is None or known.life != report.started_at_ns or begun_ns > known.begun_ns + SLACK_S * 1e9:
                node.open[model] = _Load(report.started_at_ns, begun_ns, load.expected_s)
                node.tries[model] = node.tries.pop(model, 0) + 1
                self._nodes.move_to_end(report.node_id)
            else:
                known.begun_ns, known.expected_s = min(known.begun_ns, begun_ns), load.expected_s
        for model in [model for model in node.open if model not in told]:
            over = node.open.pop(model)
            if report.ready and model in report.models and over.life == report.started_at_ns:
                node.took_s[model] = min(LONGEST_S, (now_ns - over.begun_ns) / 1e9)
                node.tries.pop(model, None)
        for remembered in (node.took_s, node.tries):
            while len(remembered) > MAX_MODELS:
                del remembered[next(iter(remembered))]

    def left_s(self, node_id: str, model: str, *, now_ns: int) -> float | None:
        """Seconds until a model should be loaded; None where it is not being loaded or nothing can be promised."""
        node = self._nodes.get(node_id)
        load = node.open.get(model) if node is not None else None
        if node is None or load is None or node.tries.get(model, 1) > MOST_TRIES:
            return None
        expected_s = node.took_s.get(model, load.expected_s)
        elapsed_s = max(0.0, (now_ns - load.begun_ns) / 1e9)
        if expected_s > LONGEST_S or elapsed_s > max(OVERDUE * expected_s, expected_s + SLACK_S):
            return None
        return max(expected_s - elapsed_s, TAIL * elapsed_s)

    def forget(self, node_id: str) -> None:
        """The node is gone for good."""
        self._nodes.pop(node_id, None)
