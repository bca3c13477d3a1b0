"""Room for drafts: no edge is sent more than may wait there, and who gets none for that is told so."""

import pytest

from adaptivegen.placement import Decision
from scheduler.decide.decide import record
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from tests.unit.scheduler.test_admission import limited
from tests.unit.scheduler.test_drafters import WARM_NS, ask, asked, edge, seen

BOUNDS = {"drafts_at_most": 16, "lent_at_most": 8}
NO_DRAFT = "There is no draft: edge edge-1 takes no more drafts of tenant local, since 16 wait there."


def waiting(queued: int, /, **changes: object) -> dict[str, object]:
    """So many drafts wait, all of the tenant that asks."""
    return {"in_flight": 1, "queued": queued, "waiting": {"local": queued}, "remaining_s": 6.0, **BOUNDS, **changes}


FULL = waiting(16)


def crowded() -> View:
    """All edges have as many drafts as may wait there."""
    return seen(edge(1, **FULL), edge(2, **waiting(9, remaining_s=4.0)))


def barred(decision: Decision) -> tuple[str, str, str]:
    return decision.plan, decision.refused, decision.refused_param


def test_a_home_where_no_more_drafts_may_wait_has_them_made_by_another() -> None:
    decision = asked(seen(edge(1, **FULL), edge(2, **waiting(7, remaining_s=3.0))))
    assert decision.draft_edge_id == "edge-2"
    assert [place.edge_id for place in decision.draft_places] == ["edge-2"]
    assert (
        "Edge edge-2 drafts, since edge edge-1 takes no more drafts of tenant local, since 16 wait there."
        in decision.reasons
    )


def test_an_edge_is_sent_no_draft_of_another_beyond_what_it_lends() -> None:
    for queued, edges in ((7, ["edge-1", "edge-2"]), (8, ["edge-1"])):
        found = seen(edge(1, **waiting(12, remaining_s=5.0)), edge(2, **waiting(queued, remaining_s=3.0)))
        decision = asked(found)
        assert sorted(place.edge_id for place in decision.draft_places) == edges
        assert decision.drafted_elsewhere == ("edge-2" in edges)


def test_an_edge_that_tells_no_bound_is_sent_whatever_comes() -> None:
    assert asked(seen(edge(1, in_flight=1, queued=900, remaining_s=2.0))).makes_draft


def test_who_iterates_is_refused_until_half_of_those_are_done_that_wait_where_that_is_soonest() -> None:
    decision = asked(crowded(), intent="iterate")
    assert barred(decision) == ("refuse", "overloaded", "drafts")
    assert decision.retry_after_s == pytest.approx(2.0, abs=0.01)
    assert (
        decision.reasons[0]
        == "Edge edge-1 takes no more drafts of tenant local, since 16 wait there. Ask again in 2 s."
    )
    assert "Having nothing is worth 1." in decision.reasons[1]


def test_an_edge_that_cannot_draft_says_that_others_are_full() -> None:
    found = seen(edge(1, ready=False), edge(2, **FULL))
    decision = asked(found, intent="iterate")
    assert decision.refused_param == "drafts"
    assert decision.reasons[0].startswith("Edge edge-1 is not ready to draft, and elsewhere too many drafts wait.")
    alone = asked(seen(edge(1, ready=False)), intent="iterate")
    assert (alone.plan, alone.refused) == ("cloud", "")  # nobody who waits would help that


def test_who_iterates_has_a_final_without_a_draft_where_it_is_worth_what_it_takes() -> None:
    found = crowded()
    found.policy = Policy().but({"cost_iterate": 0.0})
    decision = asked(found, intent="iterate")
    assert decision.plan == "cloud"
    assert (
        "There is no draft: edge edge-1 takes no more drafts of tenant local, since 16 wait there." in decision.reasons
    )


def test_who_asked_for_a_draft_alone_never_gets_a_final_in_its_place() -> None:
    found = crowded()
    found.policy = Policy().but({"cost_iterate": 0.0, "cost_render": 0.0})
    for intent in ("iterate", "render"):
        assert barred(asked(found, intent=intent, requested_plan="draft")) == ("refuse", "overloaded", "drafts")


def test_a_render_has_its_final_made_without_a_draft() -> None:
    decision = asked(crowded())
    assert decision.plan == "cloud"
    assert (
        "There is no draft: edge edge-1 takes no more drafts of tenant local, since 16 wait there." in decision.reasons
    )


def test_a_render_that_may_not_have_a_final_is_told_that_and_not_of_drafts() -> None:
    found = limited(crowded(), gpu_seconds_per_hour=0.0)
    assert asked(found).refused_param == "gpu_seconds_per_hour"


def test_a_tenant_finds_room_where_another_has_taken_more_than_its_share() -> None:
    greedy = {**FULL, "waiting": {"greedy": 16}}
    found = seen(edge(1, **greedy), edge(2, **{**greedy, "queued": 9, "waiting": {"greedy": 9}}))
    placed = []
    for number in range(12):
        query = ask(job_id=f"job-{number}", intent="iterate", tenant="modest")
        decision = asked(found, intent="iterate", job_id=query.job_id, tenant="modest")
        record(found, query, decision, now_ns=WARM_NS)
        placed.append(decision.drafter if decision.makes_draft else decision.refused_param)
    assert placed.count("edge-1") == 8  # half of the sixteen that may wait there
    assert placed.count("edge-2") == 4
    assert asked(found, intent="iterate", tenant="greedy").refused_param == "drafts"


def test_of_those_who_come_at_once_no_more_are_sent_to_an_edge_than_may_wait_there() -> None:
    """No heartbeat tells of them in between."""
    found, plans = seen(edge(1, drafts_at_most=3, lent_at_most=1), edge(2, drafts_at_most=3, lent_at_most=1)), []
    for number in range(10):
        query = ask(job_id=f"job-{number}", intent="iterate")
        decision = asked(found, intent="iterate", job_id=query.job_id)
        record(found, query, decision, now_ns=WARM_NS)
        plans.append((decision.plan, decision.drafter if decision.makes_draft else ""))
    assert plans.count(("draft", "edge-1")) == 3
    assert plans.count(("draft", "edge-2")) == 1
    assert plans.count(("refuse", "")) == 6
