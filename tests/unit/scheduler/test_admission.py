"""What a tenant may have, what the cloud can do in time, and the order in which overload degrades."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from adaptivegen.errors import InvalidRequest, Overloaded, PermissionDenied, QuotaExceeded
from adaptivegen.placement import Decision, refusal_of
from scheduler.decide.decide import decide, record
from scheduler.decide.quota import AdmissionSettings
from scheduler.decide.steps import ROOM
from scheduler.decide.view import View
from tests.unit.scheduler.builders import (
    NOW_NS,
    cards,
    cloud_card,
    draft_card,
    of_plan,
    open_job,
    place,
    query,
    report,
    scored,
    view,
    with_scores,
)

HOUR_S = 3600.0


def limited(seen: View | None = None, **values: float) -> View:
    """A view in which tenant `local` has this quota."""
    seen = seen or view()
    seen.quotas.set({"local": values})
    return seen


def busy(seen: View, work_s: float, *, job_tenant: str = "other", **changes: object) -> View:
    """With so much work in the pool's line."""
    seen.jobs.place(open_job("vid_" + "9" * 26, tenant=job_tenant, work_s=work_s, gpu_s=work_s, **changes))
    return seen


def refused(decision: Decision, error: type[Exception], *, param: str) -> float | None:
    """The time after which to ask again, of a decision that refuses so."""
    refusal = refusal_of(decision)
    assert isinstance(refusal, error), decision.reasons
    assert refusal.param == param
    assert refusal.message == f"{' '.join(decision.reasons)} Request {decision.job_id}."
    assert (decision.final_steps, decision.refine_t0, decision.chosen()) == (0, None, None)
    return refusal.retry_after_s


# ---- quotas -----------------------------------------------------------------------------------------------------


def test_who_has_as_many_jobs_as_allowed_is_told_when_the_first_ends() -> None:
    seen = limited(concurrent_jobs=1)
    first = place(seen)
    record(seen, query(), first, now_ns=NOW_NS)
    chosen = first.chosen()
    assert chosen is not None
    second = query(job_id="vid_" + "1" * 26)
    assert refused(place(seen, second), QuotaExceeded, param="concurrent_jobs") == pytest.approx(chosen.final_s)
    assert place(seen, second.model_copy(update={"tenant": "other"})).plan == "refine"
    assert place(seen).plan == "refine"  # the first again, as after a lost answer
    seen.jobs.settle(first.job_id, gpu_s=0.0, now_ns=NOW_NS)
    assert place(seen, second).plan == "refine"


def test_a_hit_needs_no_quota() -> None:
    assert place(limited(concurrent_jobs=0), query(content_known=True)).plan == "hit"


def test_a_tenant_may_have_no_jobs_at_all() -> None:
    assert refused(place(limited(concurrent_jobs=0)), QuotaExceeded, param="concurrent_jobs") is None


def test_the_hours_seconds_count_what_was_used_and_what_is_under_way() -> None:
    seen = limited(gpu_seconds_per_hour=20.0)
    seen.jobs.usage.add("local", 10.0, decided_at_s=NOW_NS / 1e9 - 1800.0, now_s=NOW_NS / 1e9)
    assert place(seen).plan == "refine"  # of 6.12 s
    record(seen, query(), place(seen), now_ns=NOW_NS)
    again = place(seen, query(job_id="vid_" + "1" * 26))
    retry_s = refused(again, QuotaExceeded, param="gpu_seconds_per_hour")
    assert retry_s is not None and 1500.0 <= retry_s <= 2100.0  # when what was used half an hour ago is over
    assert "used 10.0 seconds" in again.reasons[0] and "allowed: 20 per hour" in again.reasons[0]


def test_an_hours_seconds_do_not_refuse_the_job_that_was_just_accepted() -> None:
    seen = limited(gpu_seconds_per_hour=10.0)
    record(seen, query(), place(seen), now_ns=NOW_NS)
    assert place(seen).plan == "refine"


def test_who_iterates_without_seconds_left_still_gets_drafts() -> None:
    decision = place(limited(gpu_seconds_per_hour=0.0), query(intent="iterate"))
    assert (decision.plan, decision.refused) == ("draft", "")
    assert "in the last hour" in of_plan(decision, "refine").reason


def test_a_job_that_no_hour_has_room_for_is_refused_without_a_time() -> None:
    assert refused(place(limited(gpu_seconds_per_hour=1.0)), QuotaExceeded, param="gpu_seconds_per_hour") is None


def test_a_reduced_final_may_fit_where_a_whole_one_does_not() -> None:
    decision = place(limited(gpu_seconds_per_hour=4.0), query(allow_reduced=True))
    assert (decision.plan, decision.final_steps, decision.refine_t0) == ("reduced", 6, 0.5)
    assert any("6 steps in place of 12" in reason for reason in decision.reasons)


def test_who_has_stored_as_much_as_allowed_is_refused_without_a_time() -> None:
    seen = limited(stored_bytes=1000)
    seen.stored.by_tenant = {"local": 999, "other": 10**12}
    assert place(seen).plan == "refine"
    seen.stored.by_tenant["local"] = 1000
    assert refused(place(seen), QuotaExceeded, param="stored_bytes") is None


def test_the_tier_priority_is_for_those_who_may_have_it() -> None:
    asked = query(tier="priority")
    assert refused(place(view(), asked), PermissionDenied, param="service_tier") is None
    assert place(limited(priority=1), asked).plan == "refine"


# ---- overload ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "admitted_s", "refused_s"), [("flex", 290.0, 310.0), ("default", 470.0, 490.0), ("priority", 590.0, 610.0)]
)
def test_the_longer_the_line_the_fewer_tiers_may_join_it(tier: str, admitted_s: float, refused_s: float) -> None:
    ahead = {"tier": "priority", "work_s": admitted_s}
    assert place(busy(limited(priority=1), **ahead), query(tier=tier)).plan == "refine"  # type: ignore[arg-type]
    full = place(busy(limited(priority=1), **{**ahead, "work_s": refused_s}), query(tier=tier))  # type: ignore[arg-type]
    assert refused(full, Overloaded, param="pool") == pytest.approx(10.0)


def test_a_line_is_as_long_as_it_is_for_the_tenant_that_asks() -> None:
    seen = view()
    for number in range(50):
        seen.jobs.place(open_job(f"job-{number}", tenant="heavy", work_s=20.0))
    assert refused(place(seen, query(tenant="heavy")), Overloaded, param="pool")
    assert place(seen, query(tenant="light")).plan == "refine"


def test_without_any_worker_a_line_is_full_as_with_one() -> None:
    none = view(report("edge-1"))
    assert place(none).plan == "refine"
    assert refused(place(busy(none, 1000.0)), Overloaded, param="pool") == 30.0


def test_a_line_is_made_of_jobs_that_its_workers_can_do() -> None:
    seen = view()
    for number in range(30):
        seen.jobs.place(open_job(f"job-{number}", tenant="other", model="wan", work_s=20.0))
    assert of_plan(place(seen), "refine").final_s == pytest.approx(0.37 + 6.17)


def test_those_who_are_told_to_ask_again_are_told_different_times_and_find_a_place() -> None:
    seen = busy(view(), 490.0, job_tenant="local")
    told: dict[str, float] = {}
    for number in range(5):
        asked = query(job_id=f"vid_{number:026d}", keeps_id=True)
        decision = place(seen, asked)
        told[asked.job_id] = refused(decision, Overloaded, param="pool") or 0.0
        record(seen, asked, decision, now_ns=NOW_NS)
    waits_s = list(told.values())
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] - waits_s[0] == pytest.approx(4 * 6.12, rel=0.01)  # what each brings
    at_ns = NOW_NS + round(waits_s[0] * 1e9)
    for node in ("edge-1", "worker-1"):
        seen.hear(report(node, seq=2), now_ns=at_ns)
    kept, newcomer = (query(job_id=job_id, keeps_id=True) for job_id in (next(iter(told)), "vid_" + "7" * 26))
    assert place(seen, kept, now_ns=at_ns).plan == "refine"
    assert place(seen, newcomer, now_ns=at_ns).plan == "refuse"


def test_who_cannot_be_known_again_keeps_no_place_and_an_empty_line_waits_for_nobody() -> None:
    seen = busy(view(), 490.0, job_tenant="local")
    for number in range(120):
        asked = query(job_id=f"vid_{number:026d}", keeps_id=number % 2 == 0)
        record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    assert len(seen.jobs.promises) == 60
    seen.jobs.settle("vid_" + "9" * 26, gpu_s=1.0, now_ns=NOW_NS)
    assert place(seen, query(job_id="vid_" + "8" * 26)).plan == "refine"


def test_who_allows_fewer_steps_gets_them_before_anybody_is_refused() -> None:
    for ahead_s, plan in ((350.0, "refine"), (370.0, "reduced"), (470.0, "reduced"), (490.0, "refuse")):
        assert place(busy(view(), ahead_s), query(allow_reduced=True)).plan == plan
    assert place(busy(view(), 470.0), query()).plan == "refine"


def test_a_place_that_was_kept_in_vain_is_given_up() -> None:
    seen = busy(view(), 490.0, job_tenant="local")
    for number in range(20):
        asked = query(job_id=f"vid_{number:026d}", keeps_id=True)
        record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    newcomer = query(job_id="vid_" + "7" * 26)
    first_s = refused(place(seen, newcomer), Overloaded, param="pool")
    again = query(job_id=f"vid_{0:026d}")
    assert refused(place(seen, again), Overloaded, param="pool") != first_s  # its own place is not before it
    at_ns = NOW_NS + 3600 * 10**9
    for node in ("edge-1", "worker-1"):
        seen.hear(report(node, seq=2), now_ns=at_ns)
    later_s = refused(place(seen, newcomer, now_ns=at_ns), Overloaded, param="pool")
    assert first_s is not None and first_s > 100.0
    assert later_s == pytest.approx(10.0)


def test_a_few_places_of_a_tenant_with_few_jobs_make_nobody_wait_for_long() -> None:
    seen = busy(view(), 430.0, tier="priority")
    seen.jobs.place(open_job("small", work_s=2.0, gpu_s=2.0))
    seen.jobs.promises.add("x", ("local", "default", "default"), work_s=6.0, after_s=5.0, now_s=NOW_NS / 1e9)
    assert place(seen).plan == "refine"


def test_a_final_of_which_nothing_can_be_predicted_is_no_way_round_a_quota_or_a_line() -> None:
    models = cards(draft_card(), cloud_card(profiled=False))
    assert place(view(models=models)).plan == "refine"
    poor = limited(view(models=models), gpu_seconds_per_hour=1.0)
    assert refused(place(poor), QuotaExceeded, param="gpu_seconds_per_hour") is None
    full = busy(view(models=models), 9000.0)
    assert refused(place(full), Overloaded, param="pool")


def test_how_long_a_line_may_be_is_a_setting() -> None:
    seen = busy(replace(view(), admission=AdmissionSettings(max_wait_s=10.0)), 9.0)
    assert refused(place(seen), Overloaded, param="pool") == pytest.approx(1.0)


# ---- deadlines --------------------------------------------------------------------------------------------------


def test_a_plan_that_meets_the_deadline_goes_before_a_better_one_that_does_not() -> None:
    models = cards(draft_card(mos=1.0), cloud_card())
    seen = view(models=models)
    plain = place(seen, query(requested_plan="cloud"))
    assert plain.plan == "cloud"
    pressed = place(seen, query(requested_plan="cloud", deadline_s=of_plan(plain, "refine").final_upper_s))
    assert pressed.plan == "refine"
    assert "its deadline is" in of_plan(pressed, "cloud").reason


def test_overload_degrades_first_by_fewer_steps_then_by_time_and_says_so() -> None:
    whole, reduced = (of_plan(place(view(), query(allow_reduced=True)), plan) for plan in ("refine", "reduced"))
    assert whole.final_upper_s and reduced.final_upper_s
    assert "of all its steps is possible" in reduced.reason
    assert whole.final_s and reduced.final_s
    between_s, too_short_s = whole.final_s * (ROOM - 0.05), reduced.final_s * 0.9
    first = place(view(), query(deadline_s=between_s, allow_reduced=True))
    assert (first.plan, first.final_steps) == ("reduced", 6)
    assert any(reason.startswith("The final is reduced:") for reason in first.reasons)
    for asked, said in (
        (query(deadline_s=between_s), "may"),
        (query(deadline_s=too_short_s, allow_reduced=True), "will"),
    ):
        late = place(view(), asked)
        assert (late.plan, late.final_steps) == ("refine", 12)
        assert f"{said} be late: its deadline is" in " ".join(late.reasons)
        assert late.candidates and of_plan(late, "refine").final_s


def test_where_fewer_steps_can_still_save_it_a_final_of_all_steps_is_taken_that_is_only_expected_in_time() -> None:
    """They are settled when its turn comes; where they may not be, 95 % of such finals must be in time."""
    whole = of_plan(place(view(), query()), "refine")
    assert whole.final_s and whole.final_upper_s and whole.final_s * ROOM < whole.final_upper_s
    for room, reason in ((ROOM + 0.01, ""), (ROOM - 0.01, "its deadline is")):
        made = place(view(), query(deadline_s=whole.final_s * room, allow_reduced=True))
        assert made.plan == ("reduced" if reason else "refine")
        assert reason in of_plan(made, "refine").reason
        assert of_plan(made, "refine").feasible is not bool(reason)
    strict = place(view(), query(deadline_s=whole.final_s * (ROOM + 0.01)))
    assert "may be late: its deadline is" in " ".join(strict.reasons)


def test_where_every_final_may_be_late_one_that_more_likely_is_not_is_taken() -> None:
    whole, reduced = (of_plan(place(view(), query(allow_reduced=True)), plan) for plan in ("refine", "reduced"))
    assert whole.final_s and reduced.final_s and reduced.final_upper_s
    for deadline_s, taken in (
        (reduced.final_s * (ROOM - 0.05), "reduced"),  # the whole one would be late, too
        (reduced.final_s * 0.9, "refine"),  # both would
    ):
        assert reduced.final_s < whole.final_s
        late = place(view(), query(deadline_s=deadline_s, allow_reduced=True))
        assert (late.plan, late.final_steps) == (taken, 6 if taken == "reduced" else 12)
        said = "may" if taken == "reduced" else "will"
        assert f"{said} be late: its deadline is" in " ".join(late.reasons)
    plain = place(view(), query(deadline_s=reduced.final_s * (ROOM - 0.05)))
    assert plain.plan == "refine"  # fewer steps are not allowed


@pytest.mark.parametrize(("reduced_mos", "taken"), [(4.45, "reduced"), (3.0, "cloud")])
def test_where_only_giving_up_the_draft_is_in_time_a_reduced_final_stands_beside_it(
    reduced_mos: float, taken: str
) -> None:
    scores = scored("cloud", 24, 256, 4.5), scored("refine", 12, 256, 4.48), scored("refine", 6, 256, reduced_mos)
    models = cards(draft_card(), with_scores(cloud_card(), *scores))
    late = view(report("edge-1", remaining_s=8.0, in_flight=1), report("worker-1"), models=models)
    asked = query(allow_reduced=True)
    refined, whole = (of_plan(place(late, asked), plan) for plan in ("refine", "cloud"))
    assert refined.final_s and whole.final_s and whole.final_s < refined.final_s
    deadline_s = ROOM * (whole.final_s + refined.final_s) / 2
    pressed = place(late, asked.model_copy(update={"deadline_s": deadline_s}))
    assert pressed.plan == taken
    assert of_plan(pressed, "cloud").feasible and of_plan(pressed, "reduced").feasible
    assert "its deadline is" in of_plan(pressed, "refine").reason


def test_a_reduced_final_may_be_late_where_a_whole_one_may_not_be_had() -> None:
    late = place(limited(gpu_seconds_per_hour=4.0), query(allow_reduced=True, deadline_s=0.5))
    assert (late.plan, late.refused) == ("reduced", "")
    assert "will be late" in " ".join(late.reasons)


def test_a_final_that_was_asked_for_is_rather_late_than_not_made() -> None:
    late = place(view(), query(intent="iterate", requested_plan="refine", deadline_s=0.5))
    assert late.plan == "refine"
    assert "will be late" in " ".join(late.reasons)


def test_a_trial_of_an_edge_does_not_cost_a_deadline() -> None:
    digest = draft_card().digest
    edges = [report(f"edge-{n}", lends=digest, grpc_address=f"127.0.0.1:{n}") for n in (1, 2)]
    links = [edges[0].model_copy(update={"links": {"edge-2": 0.5}}), edges[1]]
    seen, at_ns = view(*links, report("worker-1")), NOW_NS + 10**12
    for node in (*links, report("worker-1")):
        seen.hear(node.model_copy(update={"seq": 2}), now_ns=at_ns)
    plain = of_plan(place(seen, now_ns=at_ns), "refine").final_upper_s
    assert plain is not None

    def decisions(deadline_s: float | None) -> list[Decision]:
        asked = query(draft_digest=digest, deadline_s=deadline_s)
        return [decide(seen, asked, now_ns=at_ns, rng=random.Random(seed)) for seed in range(300)]

    tried = [decision for decision in decisions(None) if any("For once" in reason for reason in decision.reasons)]
    assert tried  # a trial is made where it costs nothing
    for decision in decisions(plain + 0.05):
        chosen = decision.chosen()
        assert chosen is not None and chosen.feasible
        assert not any("For once" in reason for reason in decision.reasons)


def test_a_full_line_is_refused_even_where_the_request_would_be_late_too() -> None:
    assert refused(place(busy(view(), 1000.0), query(deadline_s=1.0)), Overloaded, param="pool")


def test_a_deadline_is_not_met_by_a_final_whose_time_is_not_known() -> None:
    late = place(view(report("edge-1")), query(deadline_s=1000.0))
    assert late.plan == "refine"
    assert "the time of the final is not known" in " ".join(late.reasons)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_absurd_deadline_is_refused_by_name(deadline_s: float) -> None:
    with pytest.raises(InvalidRequest, match="deadline_s"):
        place(view(), query().model_copy(update={"deadline_s": deadline_s}))


def test_fewer_steps_than_a_model_can_do_with_are_no_plan() -> None:
    decision = place(view(), query(final_steps=1, allow_reduced=True))
    assert "the fewest that pocket-cloud can do with" in of_plan(decision, "reduced").reason


def test_a_reduced_final_without_a_draft_is_half_of_one_from_noise() -> None:
    seen = limited(view(report("worker-1")), gpu_seconds_per_hour=9.0)
    decision = place(seen, query(edge_id="edge-9", allow_reduced=True, draft_model="unknown"))
    assert (decision.plan, decision.final_steps, decision.refine_t0) == ("reduced", 12, None)
    assert decision.makes_final and not decision.makes_draft


def test_a_refusal_sends_nothing_out() -> None:
    seen = limited(concurrent_jobs=0)
    before = seen.digest()
    assert record(seen, query(), place(seen), now_ns=NOW_NS) is None
    assert seen.digest() == before


def test_a_final_that_takes_more_than_another_pays_for_those_who_wait_and_a_single_one_pays_nothing() -> None:
    made = place(busy(view(), 60.0))
    idle = place(view())
    for plan, by in (("refine", 0.0), ("cloud", 6.0)):
        before, now = of_plan(idle, plan), of_plan(made, plan)
        value = now.qoe - view().policy.costs.of(now.gpu_s, intent="render")
        assert before.score == pytest.approx(before.qoe - view().policy.costs.of(before.gpu_s, intent="render"))
        assert (now.score == pytest.approx(value)) is (by == 0.0)
        assert now.score <= value + 1e-9
    assert any(reason.startswith("A cloud second more than needed costs") for reason in made.reasons)
    alone = place(busy(view(), 60.0), query(draft_model="unknown", intent="iterate"))
    cloud = of_plan(alone, "cloud")
    assert cloud.score == pytest.approx(cloud.qoe - view().policy.costs.of(cloud.gpu_s, intent="iterate"))
