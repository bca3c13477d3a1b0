"""Predictions move to the middle of what is observed, and uppers go with them."""

from __future__ import annotations

import math
import random

import pytest

from scheduler.decide.learned import Learned, final_part
from scheduler.decide.spreads import FURTHEST_CENTRE, Spread
from tests.unit.scheduler.builders import NOW_NS, of_plan, outcome, place, query, view


def told_and_seen(*, over: float, outcomes: int, seed: int) -> tuple[Learned, list[float], list[bool]]:
    """Outcomes that take `over` times what is predicted before it is centred, give or take 5 %: by how much what was
    told was off, and whether the upper prediction held."""
    learned, rng = Learned(), random.Random(seed)
    part = final_part("refine", "awaited", "default")
    offs, held = [], []
    for _ in range(outcomes):
        told_s, upper_s = learned.told_s(part, 10.0)
        assert told_s is not None
        seen_s = 10.0 * over * rng.lognormvariate(0.0, 0.05)
        upper, centre = learned.spreads.upper(part), learned.spreads.centre(part)
        offs.append(seen_s / told_s - 1.0)
        held.append(upper_s is not None and seen_s <= upper_s)
        learned.spreads.observe(part, math.log(seen_s / told_s), upper=upper, centre=centre)
    return learned, offs, held


@pytest.mark.parametrize("over", [0.8, 1.0, 1.15, 1.4])
def test_what_is_always_missed_is_soon_predicted(over: float) -> None:
    _, offs, held = told_and_seen(over=over, outcomes=300, seed=3)
    later = offs[60:]
    assert abs(sum(later) / len(later)) < 0.02
    assert 0.92 <= sum(held[60:]) / len(held[60:]) <= 0.99


def test_one_outcome_moves_little_and_nothing_moves_for_ever() -> None:
    spread = Spread()
    spread.observe(2.0)
    assert 0.0 < spread.centre < 0.1
    for _ in range(500):
        spread.observe(2.0)
    assert spread.centre == FURTHEST_CENTRE


def test_an_outcome_as_predicted_moves_nothing() -> None:
    spread = Spread()
    spread.observe(0.0)
    assert spread.centre == 0.0


def test_decisions_tell_centred_times() -> None:
    seen = view()
    before = of_plan(place(seen), "refine").final_s
    assert before is not None
    for number in range(60):
        asked = query(job_id=f"vid_{number:026d}", requested_plan="refine")
        decision = place(seen, asked)
        seen.learned.expect(decision, draft_known=False)
        seen.ended(outcome(decision, final_s=before * 1.2), now_ns=NOW_NS)
    after = of_plan(place(seen), "refine").final_s
    assert after == pytest.approx(1.2 * before, rel=0.05)
    assert of_plan(place(seen), "cloud").final_s == of_plan(place(view()), "cloud").final_s  # learned by plan
