"""What becomes of a rollout, from what nodes and outcomes tell."""

import math
import random
from collections.abc import Mapping

import pytest

from adaptivegen.errors import Conflict, InvalidRequest
from adaptivegen.models.lines import Line
from adaptivegen.placement import Outcome
from scheduler.decide.evidence import Evidence
from scheduler.decide.lines import started, steered, stepped
from scheduler.decide.rollout import (
    LOAD_WITHIN_S,
    Clock,
    Gate,
    Member,
    RolloutPlan,
    Step,
    gates,
    next_step,
)
from scheduler.decide.sequential import Interval
from tests.unit.scheduler.test_ratings import rating

PLAN = RolloutPlan(stages=(10.0, 50.0), stage_s=60.0, min_outcomes=20)
STEADY = Line(stable="old")
TRIAL = started("m", STEADY, "new", node="w1", number=7)
LOADING = TRIAL.model_copy(update={"phase": "loading"})
CANARY = TRIAL.model_copy(update={"phase": "canary", "percent": 10.0})
LAST = CANARY.model_copy(update={"percent": 50.0})
BOTH = Member(("old", "new"), {})
ONLY_OLD = Member(("old",), {})
NOW = Clock(phase_s=1.0, rollout_s=1.0)
LATER = Clock(phase_s=61.0, rollout_s=500.0)


def refusing(reason: str) -> Member:
    return Member(("old",), {"new": reason})


def ended(number: int, version: str, **changes: object) -> Outcome:
    known: dict[str, object] = {
        "job_id": f"vid_{number:026d}",
        "edge_id": "edge-1",
        "worker_id": "w1",
        "plan": "refine",
        "line": "m",
        "cloud_model": version,
        "made_with": version,
        "gpu_s": 2.0,
        "pixels": 1e6,
        "status": "completed",
    }
    return Outcome.model_validate({**known, **changes})


def evidence(
    counts: Mapping[str, int], *, failing: Mapping[str, float] | None = None, seconds: Mapping[str, float] | None = None
) -> Evidence:
    """Of so many finals by each version; failing: every how manieth is given up."""
    rng, found, number = random.Random(2), Evidence("m", "old", "new"), 0
    for version, count in counts.items():
        for index in range(count):
            number += 1
            took_s = (seconds or {}).get(version, 2.0) * rng.uniform(0.95, 1.05)
            every = (failing or {}).get(version)
            lost = every is not None and index % every == 0
            given = {"failed_with": version, "made_with": "old"} if lost else {}
            found.outcome(ended(number, version, gpu_s=took_s, **given))
    return found


ALIKE = Gate("measured quality", 4.5, 4.5, Interval(-0.2, 0.2), PLAN.max_fewer_stars)


def due(
    line: Line, found: Evidence, members: Mapping[str, Member], clock: Clock = LATER, measured: Gate = ALIKE
) -> Step | None:
    return next_step(line, PLAN, found, members, clock, measured)


NOTHING = Evidence("m", "old", "new")


def test_a_version_is_loaded_everywhere_once_a_node_has_made_a_clip_with_it() -> None:
    assert due(TRIAL, NOTHING, {"w1": ONLY_OLD, "w2": ONLY_OLD}, NOW) is None
    step = due(TRIAL, NOTHING, {"w1": BOTH, "w2": ONLY_OLD}, NOW)
    assert step is not None and step.action == "load"
    assert due(LOADING, NOTHING, {"w1": BOTH, "w2": ONLY_OLD}, NOW) is None
    wide = due(LOADING, NOTHING, {"w1": BOTH, "w2": BOTH}, NOW)
    assert wide is not None and wide.action == "widen"
    assert stepped(LOADING, wide, PLAN).percent == 10.0


def test_a_version_that_does_not_load_is_rolled_back_and_it_is_said_why() -> None:
    for line in (TRIAL, LOADING):
        step = due(line, NOTHING, {"w1": refusing("digest mismatch"), "w2": ONLY_OLD}, NOW)
        assert step is not None and step.action == "rollback" and "digest mismatch" in step.reason
        assert stepped(line, step, PLAN) == STEADY.model_copy(update={"rollout": 7})


def test_a_version_that_fails_to_load_at_one_of_many_nodes_is_rolled_back() -> None:
    members = {"w1": BOTH, "w2": BOTH, "w3": refusing("out of memory")}
    step = due(LOADING, NOTHING, members, NOW)
    assert step is not None and step.action == "rollback" and "1 of 3" in step.reason


@pytest.mark.parametrize("line", [TRIAL, LOADING])
def test_a_version_that_is_loading_for_ever_is_rolled_back(line: Line) -> None:
    clock = Clock(phase_s=LOAD_WITHIN_S, rollout_s=LOAD_WITHIN_S)
    step = due(line, NOTHING, {"w1": ONLY_OLD}, clock)
    assert step is not None and step.action == "rollback"


def test_another_node_tries_where_the_first_has_gone() -> None:
    assert due(TRIAL, NOTHING, {"w2": ONLY_OLD}, Clock(1, 1, node_away_s=5)) is None
    step = due(TRIAL, NOTHING, {"w2": ONLY_OLD, "w3": ONLY_OLD}, Clock(40, 40, node_away_s=31))
    assert step is not None and (step.action, step.node) == ("retry", "w2")
    assert stepped(TRIAL, step, PLAN).trial_node == "w2"


def test_with_no_node_left_nothing_is_decided_but_in_the_end() -> None:
    assert due(TRIAL, NOTHING, {}, Clock(40, 40, node_away_s=40)) is None
    assert due(LOADING, NOTHING, {}, Clock(40, 40)) is None


def test_a_stage_lasts_its_time_and_its_number_of_finals() -> None:
    good = evidence({"old": 200, "new": 25})
    members = {"w1": BOTH}
    assert due(CANARY, good, members, NOW) is None  # too soon
    assert due(CANARY, evidence({"old": 200, "new": 19}), members) is None  # too few
    step = due(CANARY, good, members)
    assert step is not None and (step.action, step.percent) == ("widen", 50.0)
    good.begin_stage()
    assert due(CANARY, good, members) is None  # of this stage there are none yet


def test_a_version_that_is_shown_to_be_as_good_is_promoted_at_the_last_stage() -> None:
    good = evidence({"old": 400, "new": 400})
    assert all(gate.verdict == "passed" for gate in gates(PLAN, good, ALIKE) if gate.needed)
    step = due(LAST, good, {"w1": BOTH})
    assert step is not None and step.action == "promote"
    promoted = stepped(LAST, step, PLAN)
    assert (promoted.stable, promoted.previous, promoted.candidate, promoted.phase) == ("new", "old", None, "steady")


def test_it_is_not_promoted_while_a_node_lacks_it_or_too_little_is_known() -> None:
    good, few = evidence({"old": 400, "new": 400}), evidence({"old": 400, "new": 20})
    assert due(LAST, good, {"w1": BOTH, "w2": ONLY_OLD}) is None
    assert due(LAST, few, {"w1": BOTH}) is None
    assert {gate.verdict for gate in gates(PLAN, few, ALIKE) if gate.needed} == {"open", "passed"}


def test_what_cannot_be_proven_in_time_is_rolled_back() -> None:
    step = due(LAST, evidence({"old": 40, "new": 20}), {"w1": BOTH}, Clock(61.0, PLAN.max_s))
    assert step is not None and step.action == "rollback" and "not proven" in step.reason


def test_a_version_that_fails_always_is_rolled_back_after_a_few_finals() -> None:
    assert due(CANARY, evidence({"old": 50, "new": 1}, failing={"new": 1}), {"w1": BOTH}, NOW) is None
    step = due(CANARY, evidence({"old": 50, "new": 4}, failing={"new": 1}), {"w1": BOTH}, NOW)
    assert step is not None and step.action == "rollback" and "failures: 1 against 0" in step.reason


def test_a_version_that_fails_always_is_rolled_back_also_where_nobody_else_asked() -> None:
    step = due(LAST, evidence({"new": 12}, failing={"new": 1}), {"w1": BOTH}, NOW)
    assert step is not None and step.action == "rollback"


def test_a_version_that_fails_now_and_then_is_told_from_one_that_fails_no_more_than_the_other() -> None:
    worse = evidence({"old": 300, "new": 300}, failing={"new": 5, "old": 100})
    step = due(CANARY, worse, {"w1": BOTH}, NOW)
    assert step is not None and step.action == "rollback"
    alike = evidence({"old": 300, "new": 300}, failing={"new": 5, "old": 5})
    assert due(CANARY, alike, {"w1": BOTH}, NOW) is None


def test_a_version_that_is_much_slower_is_rolled_back() -> None:
    slow = evidence({"old": 200, "new": 60}, seconds={"new": 3.0})
    step = due(CANARY, slow, {"w1": BOTH}, NOW)
    assert step is not None and step.action == "rollback" and "seconds of a node" in step.reason
    faster = evidence({"old": 200, "new": 60}, seconds={"new": 1.0})
    assert due(CANARY, faster, {"w1": BOTH}, NOW) is None


def test_a_paused_rollout_waits_but_still_ends_at_harm() -> None:
    paused = CANARY.model_copy(update={"paused": True})
    assert due(paused, evidence({"old": 400, "new": 400}), {"w1": BOTH}) is None
    step = due(paused, evidence({"old": 50, "new": 4}, failing={"new": 1}), {"w1": BOTH})
    assert step is not None and step.action == "rollback"


def test_outcomes_of_others_and_repeats_do_not_count() -> None:
    found = Evidence("m", "old", "new")
    found.outcome(ended(1, "new"))
    for strange in (
        ended(1, "new"),  # told twice
        ended(2, "new", line="another"),
        ended(3, "other-version"),
        ended(4, "new", status="cancelled"),
        ended(5, "new", gpu_s=0.0),  # a hit
        ended(6, "new", made_with="old"),  # it was not loaded there, or its worker was lost: nobody's fault
        ended(8, "new", status="failed", made_with="", gpu_s=0.0),  # before any version was at it
        ended(9, "new", failed_with="old", made_with="old"),
    ):
        found.outcome(strange)
    assert (found.candidate.failures.count, found.candidate.failures.hits, found.candidate.log_s.count) == (1, 0, 1)
    found.outcome(ended(7, "new", status="failed", failed_with="new", made_with="", gpu_s=0.0))
    assert (found.candidate.failures.count, found.candidate.failures.hits) == (2, 1)


def test_of_a_session_the_first_final_counts_and_the_others_only_where_all_fail() -> None:
    found = Evidence("m", "old", "new")
    for number in range(30):
        found.outcome(ended(number, "new", session="one", tenant="t"))
        found.outcome(ended(100 + number, "new", session="one", tenant="other"))
    assert (found.candidate.failures.count, found.candidate.log_s.count) == (2, 2)
    assert found.candidate.all_failures.count == 60
    bad = Evidence("m", "old", "new")
    for number in range(12):
        bad.outcome(ended(number, "new", session="one", tenant="t", failed_with="new", made_with="old"))
    step = due(CANARY, bad, {"w1": BOTH}, NOW)
    assert step is not None and step.action == "rollback"


def test_versions_that_fail_alike_are_told_apart_neither_by_retries_nor_by_lost_workers() -> None:
    rng, found = random.Random(3), Evidence("m", "old", "new")
    for number in range(1500):
        version = "new" if number % 2 else "old"
        lost, failed = rng.random() < 0.1, rng.random() < 0.1
        # A lost worker leaves no word of the attempt; after an attempt that failed the version that serves makes it.
        known: dict[str, object] = {"failed_with": version} if failed else {}
        found.outcome(ended(number, version, made_with="old" if lost or failed else version, **known))
    assert due(LAST, found, {"w1": BOTH}, NOW) is None
    assert {gate.verdict for gate in gates(PLAN, found, ALIKE)} <= {"open", "passed"}


def test_seconds_are_of_a_whole_final_however_many_steps_a_version_takes_for_it() -> None:
    twice = evidence({"old": 200, "new": 100}, seconds={"new": 4.0})  # twice the steps, each as quick
    step = due(CANARY, twice, {"w1": BOTH}, NOW)
    assert step is not None and "seconds of a node" in step.reason


def test_operators_steer_and_are_told_what_is_not_possible() -> None:
    assert steered("m", CANARY, "promote").stable == "new"
    assert steered("m", CANARY, "rollback").candidate is None
    paused = steered("m", CANARY, "pause")
    assert paused.paused and not steered("m", paused, "resume").paused
    back = steered("m", steered("m", CANARY, "promote"), "revert")
    assert (back.stable, back.previous) == ("old", None)  # what was bad does not come back by the same order
    impossible = ((STEADY, "promote"), (STEADY, "rollback"), (STEADY, "pause"), (TRIAL, "promote"), (STEADY, "revert"))
    promoted = steered("m", CANARY, "promote")
    more = ((paused, "pause"), (CANARY, "resume"), (CANARY, "revert"), (back, "revert"), (promoted, "rollback"))
    for line, order in (*impossible, *more):
        with pytest.raises(Conflict):
            steered("m", line, order)
    with pytest.raises(InvalidRequest, match="promote, rollback, pause, resume, revert"):
        steered("m", CANARY, "hurry")
    for line, version in ((CANARY, "third"), (STEADY, "old")):
        with pytest.raises(Conflict):
            started("m", line, version, node="w1", number=9)


@pytest.mark.parametrize(
    "bad",
    [
        {"stages": ()},
        {"stages": (50.0, 10.0)},
        {"stages": (10.0, 10.0)},
        {"stages": (0.0,)},
        {"stages": (101.0,)},
        {"stage_s": -1.0},
        {"min_outcomes": 0},
        {"risk": 0.5},
        {"max_slower": float("inf")},
        {"max_more_failures": 0.0},
        {"unknown": 1},
    ],
)
def test_a_plan_that_cannot_be_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RolloutPlan.model_validate(bad)


def drafted(number: int, version: str, **changes: object) -> Outcome:
    """A job whose draft this version of the line of drafts was to make."""
    known: dict[str, object] = {
        "plan": "refine",
        "line": "clouds",
        "draft_line": "m",
        "draft_model": version,
        "drafted_with": version,
        "draft_node_s": 0.5,
        "draft_pixels": 1e6,
    }
    return ended(number, "cloud", **{**known, **changes})


def test_of_a_line_of_drafts_the_drafts_are_counted_whatever_becomes_of_the_finals() -> None:
    found = Evidence("m", "old", "new")
    found.outcome(drafted(1, "old"))
    found.outcome(drafted(2, "new", status="failed", gpu_s=0.0))
    found.outcome(drafted(3, "new", draft_failed_with="new", drafted_with="old"))
    found.outcome(drafted(4, "new", draft_failed_with="new", drafted_with="", status="failed"))
    found.outcome(drafted(4, "new", draft_failed_with="new", drafted_with="", status="failed"))  # told twice
    found.outcome(drafted(5, "new", drafted_with="old"))  # was not loaded: it tells nothing
    found.outcome(drafted(6, "new", drafted_with="", status="cancelled"))
    found.outcome(drafted(7, "another"))
    assert (found.stable.failures.hits, found.stable.failures.count) == (0, 1)
    assert (found.candidate.failures.hits, found.candidate.failures.count) == (2, 3)
    assert (found.candidate.log_s.count, found.candidate.log_s.value) == (1, math.log(0.5))


def test_drafts_tell_nothing_of_a_line_of_finals_nor_finals_of_one_of_drafts() -> None:
    finals, drafts = Evidence("clouds", "cloud", "new"), Evidence("m", "old", "new")
    for evidence_of in (finals, drafts):
        evidence_of.outcome(drafted(1, "new", failed_with="cloud", draft_node_s=0.25))
    assert (finals.stable.failures.hits, finals.candidate.failures.count) == (1, 0)
    assert (drafts.candidate.failures.hits, drafts.candidate.failures.count) == (0, 1)


def test_a_job_whose_final_came_later_counts_for_its_final_too() -> None:
    found = Evidence("clouds", "cloud", "new")
    found.outcome(drafted(1, "x", plan="draft", gpu_s=0.0, made_with=""))  # the draft alone
    found.outcome(drafted(1, "x"))
    assert found.stable.failures.count == 1


def test_stars_are_of_the_draft_where_there_was_nothing_else_to_see() -> None:
    found = Evidence("m", "old", "new")
    only_draft = {"final_size": "", "final_steps": 0, "final_wait_s": None, "plan": "draft"}
    found.rated(
        [
            rating(1, stars=2, drafted_with="new", **only_draft),
            rating(2, stars=5, drafted_with="new"),  # of the final
            rating(3, stars=4, drafted_with="old", **only_draft),
        ]
    )
    assert (found.candidate.stars.count, found.candidate.stars.value) == (1, 2.0)
    assert (found.stable.stars.count, found.stable.stars.value) == (1, 4.0)
