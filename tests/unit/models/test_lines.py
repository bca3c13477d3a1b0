"""Lines: who serves a session, what a node loads, which version may follow another."""

import pytest
from pydantic import ValidationError

from adaptivegen.models.card import Limits, Refine
from adaptivegen.models.lines import Line, Lines, why_no_successor
from tests.cards import cloud_card, draft_card

SESSIONS = [f"session-{number}" for number in range(4000)]


def canary(percent: float, rollout: int = 3) -> Line:
    return Line(stable="old", candidate="new", phase="canary", percent=percent, rollout=rollout)


def served_by_new(line: Line) -> set[str]:
    return {session for session in SESSIONS if line.version_of(session) == "new"}


@pytest.mark.parametrize("percent", [1.0, 5.0, 25.0, 50.0, 90.0])
def test_a_candidate_serves_its_percent_of_the_sessions(percent: float) -> None:
    deviation = (percent * (100 - percent) / len(SESSIONS)) ** 0.5  # in percent, of one session drawn by chance
    share = 100 * len(served_by_new(canary(percent))) / len(SESSIONS)
    assert abs(share - percent) < 4 * deviation


def test_whoever_had_the_candidate_at_a_small_share_has_it_at_a_larger() -> None:
    at_5, at_25, at_100 = (served_by_new(canary(percent)) for percent in (5.0, 25.0, 100.0))
    assert at_5 < at_25 < at_100 == set(SESSIONS)
    assert not served_by_new(canary(0.0))


def test_another_rollout_takes_other_sessions() -> None:
    first, second = served_by_new(canary(10.0, rollout=3)), served_by_new(canary(10.0, rollout=4))
    assert len(first & second) < 0.2 * len(first)


@pytest.mark.parametrize("phase", ["steady", "trial", "loading"])
def test_before_the_canary_nobody_has_the_candidate(phase: str) -> None:
    line = canary(50.0).model_copy(update={"phase": phase})
    assert not served_by_new(line)


def test_a_candidate_is_loaded_where_it_is_tried_then_everywhere() -> None:
    trial = Line(stable="old", candidate="new", phase="trial", trial_node="worker-1")
    assert trial.wanted("worker-1") == ("old", "new")
    assert trial.wanted("worker-2") == ("old",)
    assert trial.model_copy(update={"phase": "loading"}).wanted("worker-2") == ("old", "new")
    assert canary(5.0).wanted("worker-2") == ("old", "new")
    assert Line(stable="new", previous="old").wanted("worker-2") == ("new",)


def test_a_line_that_was_never_changed_is_served_by_its_own_name() -> None:
    assert Lines().of("pocket-cloud") == Line(stable="pocket-cloud")


@pytest.mark.parametrize(
    "bad",
    [
        {"stable": "../../etc"},
        {"stable": "old", "percent": 101},
        {"stable": "old", "percent": float("nan")},
        {"stable": "old", "phase": "soon"},
        {"stable": "old", "candidate": "A B"},
        {"stable": "old", "rollout": -1},
    ],
)
def test_what_cannot_be_a_line_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Line.model_validate(bad)


OLD = cloud_card(name="old")


def limits(**changes: object) -> Limits:
    return OLD.limits.model_copy(update=changes)


def test_a_version_that_can_do_all_that_the_other_can_may_follow_it() -> None:
    assert why_no_successor(OLD, cloud_card(name="new"), {}) is None
    more = limits(sizes=(*OLD.limits.sizes, "512x512"), steps_max=OLD.limits.steps_max + 10)
    assert why_no_successor(OLD, cloud_card(name="new", limits=more), {}) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sizes": ("64x64",)}, "cannot make 256x256"),
        ({"sizes": ("64x64", "256x256")}, "default size"),
        ({"fps": 24}, "rate"),
        ({"seconds": (9.0,)}, "length"),
        ({"steps_max": OLD.limits.steps_default}, "less steps"),
        ({"guidance_max": OLD.limits.guidance_default}, "less guidance"),
        ({"seed_max": 9}, "less seed"),
        ({"guidance_default": 1.5}, "default guidance"),
        ({"prompt_max_bytes": 5}, "shorter prompts"),
    ],
)
def test_a_version_that_would_refuse_what_clients_may_ask_is_named_with_what_it_lacks(
    changes: dict[str, object], said: str
) -> None:
    why = why_no_successor(OLD, cloud_card(name="new", limits=limits(**changes)), {})
    assert why is not None and said in why


def test_a_version_must_continue_the_drafts_that_the_other_does() -> None:
    with_drafts = cloud_card(name="old", refine=Refine(sources=("tiny-draft",), t0=0.5, steps=4))
    why = why_no_successor(with_drafts, cloud_card(name="new", refine=None), {})
    assert why is not None and "tiny-draft" in why


def test_a_draft_model_must_be_known_to_those_that_continue_its_drafts() -> None:
    cloud = cloud_card(refine=Refine(sources=("draft-1",), t0=0.5, steps=4))
    old, new = draft_card(name="draft-1"), draft_card(name="draft-2")
    why = why_no_successor(old, new, {cloud.name: cloud})
    assert why is not None and "draft-2" in why
    knows = cloud_card(refine=Refine(sources=("draft-1", "draft-2"), t0=0.5, steps=4))
    assert why_no_successor(old, new, {knows.name: knows}) is None
    assert why_no_successor(old, cloud_card(name="new"), {}) is not None  # of another role
