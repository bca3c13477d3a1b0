"""Whether a version is good enough to be promoted by itself: by the models' cards, or by the stars that people gave."""

from __future__ import annotations

import itertools

import pytest

from adaptivegen.models.card import ModelCard, Quality
from adaptivegen.models.lines import Line
from scheduler.decide.evidence import Evidence
from scheduler.decide.lines import steered
from scheduler.decide.rollout import Clock, Gate, card_gate, waits_for
from tests.cards import cloud_card
from tests.unit.scheduler.test_ratings import rating
from tests.unit.scheduler.test_rollout import (
    ALIKE,
    BOTH,
    CANARY,
    LAST,
    LATER,
    LOADING,
    NOW,
    ONLY_OLD,
    PLAN,
    STEADY,
    TRIAL,
    due,
    evidence,
)

ALL_HAVE_IT = {"w1": BOTH}


def scored(value: float | None) -> ModelCard:
    """A card with such a measured quality."""
    known = {"mos": Quality(value=value, low=value - 0.1, high=value + 0.1, n=60)} if value is not None else {}
    return cloud_card(quality=known)


def compared(old: float | None, new: float | None) -> Gate:
    return card_gate(scored(old), scored(new), PLAN)


def starred(found: Evidence, *, old: int, new: int, sessions: int = 200) -> Evidence:
    """With so many stars from each of so many sessions, in turns of the two versions."""
    for_each = {"old": old, "new": new}
    found.rated(
        rating(number, stars=for_each[version], made_with=version, session=f"s-{number}")
        for number, version in zip(range(sessions), itertools.cycle(for_each))
    )
    return found


@pytest.mark.parametrize(
    ("old", "new", "verdict", "needed"),
    [
        (4.5, 4.6, "passed", True),
        (4.5, 4.2, "passed", True),
        (4.5, 3.9, "open", True),
        (4.5, 3.0, "harm", True),
        (4.5, None, "open", True),
        (None, 4.5, "unmeasured", False),
        (None, None, "unmeasured", False),
    ],
)
def test_measured_quality_is_compared_where_the_version_that_serves_was_measured(
    old: float | None, new: float | None, verdict: str, needed: bool
) -> None:
    gate = compared(old, new)
    assert (gate.verdict, gate.needed) == (verdict, needed)


def test_a_card_that_is_not_known_here_may_say_anything() -> None:
    for gate in (card_gate(None, scored(None), PLAN), card_gate(scored(None), None, PLAN)):
        assert (gate.verdict, gate.needed) == ("open", True)


@pytest.mark.parametrize("new", [3.9, None], ids=["undecided", "not measured"])
def test_a_version_whose_quality_is_not_shown_waits_at_its_last_stage_and_says_for_what(new: float | None) -> None:
    good, measured = evidence({"old": 400, "new": 400}), compared(4.5, new)
    wider = due(CANARY, good, ALL_HAVE_IT, measured=measured)
    assert wider is not None and wider.action == "widen"
    assert due(LAST, good, ALL_HAVE_IT, measured=measured) is None
    (waits,) = waits_for(LAST, PLAN, good, ALL_HAVE_IT, LATER, measured)
    assert "measured quality" in waits and "stars" in waits and "operator" in waits
    assert steered("m", LAST, "promote").stable == "new"  # by hand it is, at once
    late = due(LAST, good, ALL_HAVE_IT, Clock(61.0, PLAN.max_s), measured)
    assert late is not None and late.action == "rollback" and "measured quality" in late.reason


def test_stars_of_enough_sessions_show_a_quality_that_cards_leave_open() -> None:
    good, measured = evidence({"old": 400, "new": 400}), compared(4.5, 3.9)
    assert due(LAST, starred(good, old=4, new=4, sessions=40), ALL_HAVE_IT, measured=measured) is None  # too few
    step = due(LAST, starred(good, old=4, new=4), ALL_HAVE_IT, measured=measured)
    assert step is not None and step.action == "promote" and "stars" in step.reason
    assert waits_for(LAST, PLAN, good, ALL_HAVE_IT, LATER, measured) == ()


def test_a_version_is_promoted_where_there_is_no_quality_to_compare_with_but_stars_may_still_forbid_it() -> None:
    good = evidence({"old": 400, "new": 400})
    for new in (4.5, None):
        step = due(LAST, good, ALL_HAVE_IT, measured=compared(None, new))
        assert step is not None and step.action == "promote" and "cannot be compared" in step.reason
    harm = due(LAST, starred(good, old=5, new=1), ALL_HAVE_IT, measured=compared(None, 4.5))
    assert harm is not None and harm.action == "rollback" and "stars" in harm.reason


def test_a_session_has_one_vote_however_often_it_rates() -> None:
    found = Evidence("m", "old", "new")
    often = [rating(number, stars=5, made_with="new", session="one") for number in range(50)]
    found.rated([*often, rating(60, stars=1, made_with="new", session="one", tenant="other")])
    assert (found.candidate.stars.count, found.candidate.stars.value) == (2, 3.0)
    found.rated(rating(number, made_with="new") for number in range(3))
    assert found.candidate.stars.count == 3  # without a session each is one of its own


def test_what_a_rollout_waits_for_is_told_at_every_step() -> None:
    few, members = evidence({"old": 40, "new": 5}), {"w1": BOTH, "w2": ONLY_OLD}

    def waits(line: Line, clock: Clock = NOW) -> tuple[str, ...]:
        return waits_for(line, PLAN, few, members, clock, ALIKE)

    assert waits(STEADY) == ()
    assert waits(TRIAL) == ("w1 to load new",)
    assert waits(LOADING) == ("w2 to load new",)
    assert waits(CANARY) == ("this stage to last 60 s", "15 more sessions of new")
    assert waits(steered("m", CANARY, "pause"), LATER) == ("being resumed", "15 more sessions of new")
    at_last = waits(LAST, LATER)
    assert at_last[:2] == ("15 more sessions of new", "w2 to load new")
    assert at_last[2].startswith("failures: 0 against 0, may be worse")
