"""What an edge counts, as a scraper reads it."""

from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from edge_node.draft.desk import DraftTimes
from edge_node.metrics import EdgeMetrics


class Desk:
    """Two drafts in the making."""

    active = 2


def scraped(metrics: EdgeMetrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.mark.parametrize(
    ("times", "looks", "drafts"),
    [
        (DraftTimes(first_look_s=0.2, draft_s=0.9), 1, 1),
        (DraftTimes(first_look_s=None, draft_s=0.9), 0, 1),
        (DraftTimes(first_look_s=0.2, draft_s=None), 1, 0),
    ],
)
def test_only_times_that_were_measured_are_counted(times: DraftTimes, looks: int, drafts: int) -> None:
    metrics = EdgeMetrics()
    metrics.observe(times)
    found = scraped(metrics)
    assert found["adaptivegen_edge_first_look_seconds_count"] == looks
    assert found["adaptivegen_edge_draft_seconds_count"] == drafts
    assert found['adaptivegen_edge_draft_seconds_bucket{le="1.0"}'] == drafts


def test_drafts_in_the_making_are_read_when_scraped() -> None:
    metrics, desk = EdgeMetrics(), Desk()
    metrics.watch(cast(Any, desk))
    assert scraped(metrics)["adaptivegen_edge_drafts_active"] == 2
    desk.active = 0
    assert scraped(metrics)["adaptivegen_edge_drafts_active"] == 0


def test_two_edges_in_one_process_count_apart() -> None:
    first, second = EdgeMetrics(), EdgeMetrics()
    first.accepted.inc()
    assert scraped(first)["adaptivegen_edge_videos_accepted_total"] == 1
    assert scraped(second)["adaptivegen_edge_videos_accepted_total"] == 0
