"""What a sender knows of its drafts from heartbeats alone."""

from __future__ import annotations

import pytest

from adaptivegen.nodes import FinishedWork
from scheduler.decide.underway import Underway
from tests.unit.scheduler.builders import report


def done(number: int, seconds: float) -> FinishedWork:
    return FinishedWork(
        number=number, model="pocket-draft", width=128, height=128, frames=24, steps=4, guidance=1.0, seconds=seconds
    )


def test_times_follow_from_the_queue() -> None:
    underway = Underway()
    underway.hear(report(), now_s=0.0)
    for _ in range(3):
        underway.sent("edge-1", now_s=1.0)
    over = underway.hear(report(finished=(done(1, 0.5), done(2, 0.7)), in_flight=1), now_s=2.4)
    assert over == pytest.approx([0.5, 1.2])  # the second waited for the first
    assert underway.hear(report(finished=(done(1, 0.5), done(2, 0.7), done(3, 0.4))), now_s=2.9) == pytest.approx([1.6])


def test_what_was_there_before_counts_for_nothing() -> None:
    underway = Underway()
    assert underway.hear(report(finished=(done(7, 0.5),)), now_s=0.0) == []
    underway.sent("edge-1", now_s=1.0)
    assert underway.hear(report(finished=(done(7, 0.5),), in_flight=1), now_s=1.5) == []
    assert underway.hear(report(finished=(done(7, 0.5), done(8, 0.3))), now_s=2.0) == pytest.approx([0.3])


def test_what_an_edge_neither_has_nor_finished_has_failed() -> None:
    underway = Underway()
    underway.sent("edge-1", now_s=1.0)
    assert underway.hear(report(), now_s=1.05) == []  # still on its way
    assert underway.hear(report(), now_s=1.5) == [None]


def test_an_edge_that_was_started_anew_has_lost_everything() -> None:
    underway = Underway()
    underway.hear(report(), now_s=0.0)
    underway.sent("edge-1", now_s=1.0)
    life = report().started_at_ns + 1
    assert underway.hear(report(started_at_ns=life), now_s=1.01) == [None]
    underway.sent("edge-1", now_s=2.0)
    assert underway.hear(report(started_at_ns=life, finished=(done(1, 0.3),)), now_s=2.5) == pytest.approx([0.3])
