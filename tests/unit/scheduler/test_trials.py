"""Trials of edges to which nothing was sent for a while: with which chance they are made."""

import random
from collections import Counter

import pytest

from scheduler.decide.decide import decide
from scheduler.decide.view import View
from tests.unit.scheduler.test_drafters import WARM_NS, ask, asked, edge, seen


def deadline_for(found: View, *, spare_s: float) -> float:
    """Which the plan of an idle home keeps with so much to spare."""
    chosen = asked(found).chosen()
    assert chosen is not None and chosen.final_upper_s is not None
    return chosen.final_upper_s + spare_s


def chances_at(found: View, **changes: object) -> Counter[tuple[str, float]]:
    """Where 2,000 requests had their draft made, each with the chance that was told of it."""
    decisions = [decide(found, ask(**changes), now_ns=WARM_NS, rng=random.Random(seed)) for seed in range(2000)]
    return Counter((decision.drafter, round(decision.propensity, 9)) for decision in decisions)


def test_a_trial_that_is_not_made_for_a_deadline_leaves_no_chance_behind() -> None:
    found = seen(edge(1, links={"edge-2": 0.5}), edge(2), explore=0.02)
    deadline_s = deadline_for(found, spare_s=0.05)
    assert set(chances_at(found, deadline_s=deadline_s)) == {("edge-1", 1.0)}
    places = asked(found, deadline_s=deadline_s).draft_places
    assert {place.edge_id: place.chance for place in places} == {"edge-1": 1.0, "edge-2": 0.0}


def test_of_several_trials_only_those_that_keep_the_deadline_have_a_chance() -> None:
    found = seen(edge(1, links={"edge-2": 0.1, "edge-3": 0.5}), edge(2), edge(3), explore=0.02)
    deadline_s = deadline_for(found, spare_s=0.3)
    told = chances_at(found, deadline_s=deadline_s)
    assert set(told) == {("edge-1", 0.99), ("edge-2", 0.01)}
    assert 8 <= told["edge-2", 0.01] <= 36  # of 20 that are expected
    tried = next(d for seed in range(2000) if (d := asked(found, seed=seed, deadline_s=deadline_s)).drafted_elsewhere)
    for places in (tried.draft_places, asked(found, deadline_s=deadline_s).draft_places):
        chances = {place.edge_id: place.chance for place in places}
        assert chances == pytest.approx({"edge-1": 0.99, "edge-2": 0.01, "edge-3": 0.0})


def test_a_plan_without_a_draft_is_certain_whatever_could_be_tried() -> None:
    found = seen(edge(1), edge(2), explore=0.02)
    assert {propensity for _, propensity in chances_at(found, requested_plan="cloud")} == {1.0}
