"""What a scheduler has learned and predicts by, as operators are told it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from adaptivegen.rpc.admin_rows import AccuracyInfo, ChanceInfo, LoadInfo, PaceInfo, Predictions, SizeInfo, WayInfo
from scheduler.decide.view import View

MOST = 1000  # ways, loads and chances, of thousands of nodes and tenants


def predictions(view: View, *, now_ns: int) -> Predictions:
    """By name."""
    learned = view.learned
    paces = (PaceInfo(node_id, model, speed.factor, speed.seen) for node_id, model, speed in learned.speeds.known())
    return Predictions(
        paces=tuple(sorted(paces, key=lambda pace: (pace.node_id, pace.model))),
        accuracies=tuple(
            AccuracyInfo(part, spread.seen, spread.covered, spread.error, math.exp(spread.upper))
            for part, spread in learned.spreads
        ),
        sizes=tuple(SizeInfo(*known) for known in learned.sizes.known()),
        ways=tuple(sorted(islice(_ways(view), MOST), key=lambda way: (way.node_id, way.way))),
        loads=tuple(sorted(islice(_loads(view, now_ns), MOST), key=lambda load: (load.node_id, load.model))),
        chances=tuple(
            ChanceInfo(
                edge_id=known.edge_id,
                tenant=known.tenant,
                what=known.what,
                chance=known.chance,
                requests=known.seen,
                expected=known.expected,
                seen=known.came,
                brier=known.brier,
            )
            for known in view.hits.all(MOST)
        ),
    )


def _ways(view: View) -> Iterator[WayInfo]:
    for node in view.nodes:
        for name, way in node.report.ways.items():
            yield WayInfo(node.report.node_id, name, way.delay_s, way.bytes_per_s)


def _loads(view: View, now_ns: int) -> Iterator[LoadInfo]:
    for node in view.nodes:
        for load in node.report.loading:
            node_id = node.report.node_id
            yield LoadInfo(node_id, load.model, view.loads.left_s(node_id, load.model, now_ns=now_ns))
