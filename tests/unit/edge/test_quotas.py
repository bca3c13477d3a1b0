"""What an edge that decides alone lets tenants have, by what schedulers told it last."""

import pytest

from adaptivegen.errors import PermissionDenied, QuotaExceeded
from adaptivegen.placement import Candidate, Decision, PlacementQuery
from adaptivegen.standing import Standing, Standings
from edge_node.quotas import HOUR_S, LIMITS_S, MAX_OWN, OPEN_S, TOLD_AFTER_S, Quotas

S = 10**9


def query(**changes: object) -> PlacementQuery:
    values: dict[str, object] = {
        "job_id": "vid_1",
        "tenant": "t",
        "edge_id": "edge-1",
        "intent": "render",
        "draft_model": "test-draft",
        "cloud_model": "test-cloud",
        "width": 10,
        "height": 10,
        "frames": 1,
    }
    return PlacementQuery.model_validate({**values, **changes})


def heard(**standing: object) -> Quotas:
    """Quotas of which one telling was heard, at time 0, of everybody."""
    quotas = Quotas()
    quotas.hear(Standings(at_ns=1, everybody=Standing.model_validate(standing)), as_of_ns=0)
    return quotas


def allows(quotas: Quotas, gpu_s: float = 1.0, *, at_s: float = 0.0, final: bool = True, **changes: object) -> bool:
    try:
        quotas.check(query(**changes), gpu_s, final=final, now_ns=round(at_s * S))
    except QuotaExceeded:
        return False
    return True


def test_who_never_heard_of_quotas_refuses_nothing() -> None:
    assert allows(Quotas(), 1e9, tier="priority")


def test_seconds_of_workers_are_what_was_told_and_what_was_accepted_here_since() -> None:
    quotas = heard(gpu_seconds_per_hour=100, used_gpu_s=90)
    assert allows(quotas, 10.0) and not allows(quotas, 10.1)
    quotas.accepted("t", "a", 8.0, here=True, now_ns=0)
    quotas.accepted("other", "b", 8.0, here=True, now_ns=0)
    assert allows(quotas, 2.0) and not allows(quotas, 2.1)
    quotas.ended("a")  # its seconds were used
    assert not allows(quotas, 2.1)


def test_what_was_used_is_over_with_the_hour_and_the_refusal_says_when() -> None:
    quotas = heard(gpu_seconds_per_hour=100, used_gpu_s=100)
    with pytest.raises(QuotaExceeded, match=r"as far as this edge knows") as caught:
        quotas.check(query(), 10.0, final=True, now_ns=0)
    assert (caught.value.param, caught.value.retry_after_s) == ("gpu_seconds_per_hour", 0.1 * HOUR_S)
    assert not allows(quotas, 10.0, at_s=0.1 * HOUR_S - 1) and allows(quotas, 10.0, at_s=0.1 * HOUR_S + 1)


def test_a_tenant_that_has_nothing_left_gets_no_final_of_unknown_length_but_a_draft() -> None:
    quotas = heard(gpu_seconds_per_hour=10, used_gpu_s=10)
    assert not allows(quotas, 0.0) and allows(quotas, 0.0, final=False)


def test_a_final_that_is_more_than_an_hour_allows_is_not_to_be_asked_for_again() -> None:
    with pytest.raises(QuotaExceeded) as caught:
        heard(gpu_seconds_per_hour=10).check(query(), 11.0, final=True, now_ns=0)
    assert caught.value.retry_after_s is None


def test_open_jobs_are_those_told_for_a_while_and_its_own_until_they_end() -> None:
    quotas = heard(concurrent_jobs=3, open_jobs=2)
    assert allows(quotas)
    quotas.accepted("t", "a", 0.0, here=True, now_ns=0)
    assert not allows(quotas)
    assert allows(quotas, draft_known=True)  # the final of a job that it has
    quotas.ended("a")
    assert allows(quotas)
    quotas.accepted("t", "b", 0.0, here=True, now_ns=0)
    assert not allows(quotas, at_s=OPEN_S - 1) and allows(quotas, at_s=OPEN_S + 1)


def test_a_tenant_that_is_shut_out_stays_so_until_limits_are_too_old_to_be_believed() -> None:
    quotas = heard(concurrent_jobs=0)
    with pytest.raises(QuotaExceeded) as caught:
        quotas.check(query(), 1.0, final=True, now_ns=0)
    assert caught.value.retry_after_s is None
    assert not allows(quotas, at_s=LIMITS_S - 1) and allows(quotas, at_s=LIMITS_S)


def test_stored_bytes_and_the_priority_tier() -> None:
    assert allows(heard(stored_bytes=10, stored=9)) and not allows(heard(stored_bytes=10, stored=10))
    heard(priority=True).check(query(tier="priority"), 1.0, final=True, now_ns=0)
    with pytest.raises(PermissionDenied):
        heard().check(query(tier="priority"), 1.0, final=True, now_ns=0)


def test_a_tenants_own_values_count_before_everybodys() -> None:
    quotas = Quotas()
    told = Standings(at_ns=1, everybody=Standing(concurrent_jobs=0), tenants={"t": Standing(concurrent_jobs=1)})
    quotas.hear(told, as_of_ns=0)
    assert allows(quotas) and not allows(quotas, tenant="other")


def test_a_new_telling_holds_what_the_centre_had_before_and_not_what_is_here_or_was_just_handed_over() -> None:
    quotas = heard(concurrent_jobs=3)
    for name, here in (("centre", False), ("handed", True), ("here", True)):
        quotas.accepted("t", name, 0.0, here=here, now_ns=0)
    later_s = TOLD_AFTER_S + 10
    quotas.handed("handed", now_ns=round((later_s - 5) * S))
    quotas.hear(Standings(at_ns=2, everybody=Standing(concurrent_jobs=3, open_jobs=1)), as_of_ns=round(later_s * S))
    assert not allows(quotas, at_s=later_s)  # one told, two that nobody can have told
    much_later_s = later_s + TOLD_AFTER_S
    told = Standings(at_ns=3, everybody=Standing(concurrent_jobs=3, open_jobs=1))
    quotas.hear(told, as_of_ns=round((much_later_s - 10) * S))  # heard now, and written before it was handed over
    assert not allows(quotas, at_s=much_later_s)
    quotas.hear(told, as_of_ns=round(much_later_s * S))
    assert allows(quotas, at_s=much_later_s)


def test_a_final_is_reckoned_as_schedulers_have_reckoned_finals_of_its_model() -> None:
    quotas = Quotas()
    decision = Decision(
        job_id="vid_1",
        plan="cloud",
        edge_id="edge-1",
        pool="default",
        final_steps=10,
        refine_t0=None,
        decided_by="scheduler-1",
        decided_at_ns=1,
        reasons=(),
        candidates=(Candidate(plan="cloud", feasible=True, reason="", gpu_s=5.0),),
    )
    assert quotas.gpu_s(query(), decision) == 0.0
    quotas.learn(query(), decision)
    assert quotas.gpu_s(query(frames=4), decision.model_copy(update={"final_steps": 5})) == pytest.approx(10.0)
    assert quotas.gpu_s(query(), decision.model_copy(update={"plan": "draft"})) == 0.0
    assert quotas.gpu_s(query(cloud_model="another"), decision) == 0.0


def test_what_is_remembered_of_own_jobs_is_bounded() -> None:
    quotas = heard(concurrent_jobs=MAX_OWN + 1)
    for number in range(MAX_OWN + 100):
        quotas.accepted("t", f"vid_{number}", 0.0, here=True, now_ns=0)
    assert allows(quotas)
    quotas.accepted("t", f"vid_{MAX_OWN + 99}", 0.0, here=True, now_ns=0)  # once
    assert allows(quotas)


def test_what_finals_are_reckoned_with_outlasts_a_life() -> None:
    quotas, again = Quotas(), Quotas()
    quotas.recall({"test-cloud": 0.5})
    again.recall(quotas.reckoning)
    assert again.reckoning == {"test-cloud": 0.5}


def test_a_final_asked_for_later_is_checked_also_where_nothing_is_reckoned() -> None:
    quotas = heard(gpu_seconds_per_hour=0.0)
    quotas.accepted("t", "vid_1", 0.0, here=True, now_ns=0)
    assert allows(quotas, 0.0, final=False)
    assert not allows(quotas, 0.0, draft_known=True)
