"""Room for drafts: no edge is sent more than may wait there, and who gets none for that is told so."""

import math

import pytest

from adaptivegen.nodes import Loading
from adaptivegen.placement import Decision
from scheduler.decide.decide import record
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from tests.unit.scheduler.test_admission import limited
from tests.unit.scheduler.test_drafters import DRAFT_S, WARM_NS, ask, asked, edge, seen

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


def test_a_tenant_with_little_at_an_edge_is_told_a_shorter_wait_than_one_with_much_there() -> None:
    """Tenants take turns there: a draft of another goes before all but one of theirs."""
    many = {"acme": 8}
    found = seen(edge(1, **waiting(8, waiting=many, remaining_s=9 * DRAFT_S)))
    made = {tenant: asked(found, tenant=tenant).draft_places[0].load_s for tenant in ("acme", "local")}
    assert made["acme"] == pytest.approx(9 * DRAFT_S)
    assert made["local"] == pytest.approx(2 * DRAFT_S)  # the one at hand, and at most one of the eight
    for number in range(3):  # which were sent there a moment ago, and are in no report yet
        query = ask(job_id=f"vid_{number:026d}", tenant="local")
        record(found, query, asked(found, tenant="local"), now_ns=WARM_NS)
    assert asked(found, tenant="local").draft_places[0].load_s == pytest.approx((1 + 3 + 4) * DRAFT_S)
    assert asked(found, tenant="other").draft_places[0].load_s == pytest.approx((1 + 1 + 1) * DRAFT_S)


def test_a_draft_that_is_sent_to_an_edge_makes_nobodys_wait_shorter() -> None:
    """Also where it does not tell whose drafts wait there, as older edges."""
    for told in ({}, {"acme": 2}, {"acme": 8}):
        found = seen(edge(1, **waiting(8, waiting=told, remaining_s=9 * DRAFT_S, drafts_at_most=0)))
        before = 0.0
        for number in range(6):
            load_s = asked(found, tenant="local").draft_places[0].load_s
            assert load_s >= before - 1e-9
            before = load_s
            query = ask(job_id=f"vid_{number:026d}", tenant="acme")
            record(found, query, asked(found, tenant="acme"), now_ns=WARM_NS)


def test_an_edge_that_tells_no_bound_is_sent_whatever_comes() -> None:
    assert asked(seen(edge(1, in_flight=1, queued=900, remaining_s=2.0))).makes_draft


def test_who_iterates_is_refused_until_at_least_half_of_those_are_done_that_wait_where_that_is_soonest() -> None:
    decision = asked(crowded(), intent="iterate")
    assert barred(decision) == ("refuse", "overloaded", "drafts")
    assert decision.retry_after_s is not None and 2.0 <= decision.retry_after_s <= 4.0
    again = f"Ask again in {math.ceil(decision.retry_after_s)} s."
    assert decision.reasons[0] == f"Edge edge-1 takes no more drafts of tenant local, since 16 wait there. {again}"
    assert (
        len({asked(crowded(), intent="iterate", seed=seed).retry_after_s for seed in range(9)}) == 9
    )  # not all at once
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


def test_a_render_is_never_refused_for_drafts_however_dear_its_final_is() -> None:
    found = crowded()
    found.policy = Policy().but({"cost_render": 100.0})
    assert asked(found).plan == "cloud"  # as it would be if there was room


def test_an_edge_that_loads_its_model_takes_no_more_than_may_wait_either() -> None:
    loading = (Loading(model="pocket-draft", elapsed_s=1.0, expected_s=3.0),)
    found = seen(edge(1, ready=False, loading=loading, **FULL))
    decision = asked(found, intent="iterate", requested_plan="draft")
    assert barred(decision) == ("refuse", "overloaded", "drafts")


def test_what_should_have_been_begun_since_a_report_does_not_wait_any_more() -> None:
    found = seen(edge(1, drafts_at_most=2))
    for number in range(3):  # of which the first begins at once
        query = ask(job_id=f"job-{number}", intent="iterate")
        decision = asked(found, intent="iterate", job_id=query.job_id)
        record(found, query, decision, now_ns=WARM_NS)
        assert decision.makes_draft
    assert asked(found, intent="iterate").refused_param == "drafts"
    assert asked(found, now_ns=WARM_NS + round((DRAFT_S + 0.1) * 1e9), intent="iterate").makes_draft


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
    assert plans.count(("draft", "edge-1")) == 4  # one is begun at once
    assert plans.count(("draft", "edge-2")) == 2
    assert plans.count(("refuse", "")) == 4
