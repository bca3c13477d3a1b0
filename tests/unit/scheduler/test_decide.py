"""Which plan is chosen, and that every choice explains itself."""

import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptivegen.errors import InvalidRequest, ModelNotFound
from adaptivegen.placement import Candidate, Decision, refusal_of
from scheduler.decide.decide import decide, record
from scheduler.decide.policy import Policy
from scheduler.decide.qoe import Costs, QoeSettings, qoe
from scheduler.decide.view import View
from tests.unit.scheduler.builders import (
    JOB,
    NOW_NS,
    cards,
    cloud_card,
    draft_card,
    of_plan,
    place,
    query,
    report,
    scored,
    table,
    view,
    with_scores,
)

LATER_NS = NOW_NS + 60 * 10**9


def said(decision: Decision) -> str:
    return " ".join(decision.reasons)


def test_rendering_on_an_idle_system_refines() -> None:
    decision = place(view())
    assert (decision.plan, decision.edge_id, decision.pool) == ("refine", "edge-1", "default")
    assert (decision.final_steps, decision.refine_t0) == (12, 0.5)
    assert (decision.decided_by, decision.decided_at_ns) == ("scheduler-1", NOW_NS)
    chosen = decision.chosen()
    assert chosen is not None
    assert chosen.first_look_s == pytest.approx(0.07)
    assert chosen.draft_s == pytest.approx(0.37)
    assert chosen.final_s == pytest.approx(0.37 + 6.17)  # the final waits for its draft
    assert chosen.gpu_s == pytest.approx(6.12)


def test_every_plan_is_listed_with_its_reason() -> None:
    decision = place(view())
    assert [candidate.plan for candidate in decision.candidates] == ["hit", "draft", "refine", "cloud", "reduced"]
    assert all(candidate.reason for candidate in decision.candidates)
    cloud = of_plan(decision, "cloud")
    assert cloud.draft_s is None
    assert cloud.final_s == pytest.approx(12.17)


def test_reasons_are_sentences() -> None:
    for decision in (place(view()), place(view(report("edge-1"))), place(view(), query(requested_plan="split"))):
        assert decision.reasons
        for reason in decision.reasons:
            assert re.fullmatch(r"[A-Z].*\.", reason), reason


def test_known_content_is_a_hit_whatever_was_asked_for() -> None:
    decision = place(view(), query(content_known=True, requested_plan="cloud"))
    assert decision.plan == "hit"
    assert decision.final_steps == 0
    assert "already stored" in said(decision)


def test_rendering_never_takes_draft_alone_unless_asked() -> None:
    assert not of_plan(place(view()), "draft").feasible
    decision = place(view(), query(requested_plan="draft"))
    assert decision.plan == "draft"
    assert decision.final_steps == 0
    assert decision.refine_t0 is None


def test_iterating_takes_a_draft_when_finals_are_dear() -> None:
    decision = place(view(), query(intent="iterate"))
    assert decision.plan == "draft"
    assert all(of_plan(decision, plan).feasible for plan in ("draft", "refine", "cloud"))


def test_iterating_takes_the_final_too_when_it_is_cheap() -> None:
    seen = view()
    cheap = View(nodes=seen.nodes, cards=seen.cards, decider="s", policy=Policy(costs=Costs(cost_iterate=0.001)))
    assert place(cheap, query(intent="iterate")).plan == "refine"


@pytest.mark.parametrize("plan", ["draft", "refine", "cloud"])
@pytest.mark.parametrize("intent", ["render", "iterate"])
def test_a_feasible_plan_that_was_asked_for_is_taken(plan: str, intent: str) -> None:
    decision = place(view(), query(requested_plan=plan, intent=intent))
    assert decision.plan == plan
    assert f"Plan {plan} was asked for and is possible." in decision.reasons


def test_a_plan_asked_for_in_vain_is_explained() -> None:
    decision = place(view(report("edge-1", ready=False), report("worker-1")), query(requested_plan="refine"))
    assert decision.plan == "cloud"
    assert "Plan refine was asked for and is not possible: edge edge-1 is not ready to draft." in decision.reasons


@pytest.mark.parametrize("plan", ["hit", "near-hit", "split", "bogus" * 1000])
def test_an_unknown_or_unmade_plan_is_explained(plan: str) -> None:
    decision = place(view(), query(requested_plan=plan))
    assert decision.plan == "refine"
    assert "was asked for and is not possible" in decision.reasons[0]
    assert len(decision.reasons[0]) < 200


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ready": False}, "is not ready to draft"),
        ({"draining": True}, "is being drained"),
        ({"models": ("other",)}, "does not serve pocket-draft"),
    ],
)
def test_an_edge_that_cannot_draft_gets_its_final_from_noise(changes: dict[str, object], why: str) -> None:
    decision = place(view(report("edge-1", **changes), report("worker-1")))
    assert decision.plan == "cloud"
    assert (decision.final_steps, decision.refine_t0) == (24, None)
    assert f"There is no draft: edge edge-1 {why}." in decision.reasons


def test_an_edge_not_heard_of_yet_is_believed_since_it_asks() -> None:
    decision = place(view(report("worker-1")))
    assert decision.plan == "refine"
    assert "has sent no fresh report" in said(decision)


def test_a_stale_edge_is_believed_since_it_asks() -> None:
    seen = view()
    seen.nodes.observe(report("worker-1", seq=2), now_ns=LATER_NS)
    decision = place(seen, now_ns=LATER_NS)
    assert decision.plan == "refine"
    assert "has sent no fresh report" in said(decision)


@pytest.mark.parametrize(
    "workers",
    [
        (),
        (report("worker-1", ready=False),),
        (report("worker-1", draining=True), report("worker-2", models=("other",))),
    ],
)
def test_without_a_healthy_worker_the_final_is_queued_and_that_is_said(workers: tuple[object, ...]) -> None:
    decision = place(view(report("edge-1"), *workers))  # type: ignore[arg-type]
    assert decision.plan == "refine"
    chosen = decision.chosen()
    assert chosen is not None
    assert chosen.final_s is None
    assert "No healthy worker serves pocket-cloud: the final is queued and its time is not known." in decision.reasons


def test_all_nodes_unhealthy_still_decides() -> None:
    decision = place(view(report("edge-1", ready=False), report("worker-1", ready=False)))
    assert decision.plan == "cloud"
    assert "queued" in said(decision)


def test_workers_that_fell_silent_are_not_counted_on() -> None:
    seen = view()
    decision = place(seen, now_ns=LATER_NS)
    assert of_plan(decision, "refine").final_s is None


def test_a_refine_waits_for_whichever_is_later_draft_or_worker() -> None:
    seen = view(report("edge-1"), report("worker-1", in_flight=1, remaining_s=30.0))
    assert of_plan(place(seen), "refine").final_s == pytest.approx(30 + 6.17)
    seen = view(report("edge-1", remaining_s=3.0), report("worker-1"))
    assert of_plan(place(seen), "refine").final_s == pytest.approx(3.37 + 6.17)


def test_a_hopelessly_busy_edge_loses_to_the_cloud() -> None:
    decision = place(view(report("edge-1", remaining_s=600.0), report("worker-1")))
    assert decision.plan == "cloud"


def test_models_that_do_not_pair_are_not_refined() -> None:
    decision = place(view(models=cards(draft_card(), cloud_card(refines=False))))
    assert decision.plan == "cloud"
    assert "does not continue drafts of pocket-draft" in said(decision)


def test_a_draft_model_without_measured_times_is_no_draft() -> None:
    decision = place(view(models=cards(draft_card(profiled=False), cloud_card())))
    assert decision.plan == "cloud"
    assert "the card of pocket-draft has no measured times" in said(decision)


def test_nothing_measured_still_decides_and_says_so() -> None:
    decision = place(view(models=cards(draft_card(), cloud_card(profiled=False))))
    assert decision.plan == "refine"
    assert "although nothing can be predicted" in said(decision)
    assert decision.final_steps == 12


def test_an_unknown_draft_model_is_no_draft() -> None:
    decision = place(view(), query(draft_model="unheard-of"))
    assert decision.plan == "cloud"
    assert "no model card unheard-of" in said(decision)


def test_unmeasured_quality_is_assumed_aloud() -> None:
    decision = place(view(models=cards(draft_card(mos=None), cloud_card(mos=None))))
    assert "The quality of pocket-cloud was not measured, so it is assumed." in decision.reasons


def test_every_plan_is_weighed_by_the_quality_of_clips_that_are_made_so() -> None:
    draft = with_scores(draft_card(), scored("draft", 4, 128, 2.0), scored("draft", 1, 128, 1.5))
    cloud = with_scores(
        cloud_card(),
        scored("cloud", 24, 256, 5.0),
        scored("cloud", 6, 256, 4.0),
        scored("cloud", 24, 128, 3.0),
        scored("refine", 12, 256, 4.8),
    )
    models = cards(draft, cloud)

    def expected(candidate: Candidate, first: float, last: float) -> float:
        times = {"draft_s": candidate.draft_s, "final_s": candidate.final_s}
        return qoe(QoeSettings(), intent="render", draft_quality=first, final_quality=last, **times)

    whole = place(view(models=models))
    for plan, final in (("refine", 4.8), ("cloud", 5.0)):
        assert of_plan(whole, plan).qoe == pytest.approx(expected(of_plan(whole, plan), 2.0, final))
    fewer = of_plan(place(view(models=models), query(final_steps=12)), "cloud")
    assert fewer.qoe == pytest.approx(expected(fewer, 2.0, 4.5))
    small = of_plan(place(view(models=models), query(width=128, height=128)), "cloud")
    assert small.qoe == pytest.approx(expected(small, 2.0, 3.0))
    hit = of_plan(place(view(models=models), query(content_known=True)), "hit")
    assert hit.qoe == pytest.approx(expected(hit, 5.0, 5.0))


def test_a_reference_does_not_stand_in_the_way_of_a_draft() -> None:
    assert place(view(), query(has_reference=True)).plan == "refine"


def test_asked_for_steps_are_used_and_timed() -> None:
    decision = place(view(), query(final_steps=2))
    assert decision.final_steps == 2
    assert of_plan(decision, "refine").gpu_s == pytest.approx(1.12)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 0}, "width"),
        ({"height": -1}, "height"),
        ({"frames": 0}, "frames"),
        ({"width": 2**31, "height": 2**31}, "width x height x frames"),
        ({"final_steps": 65}, "final_steps"),
        ({"final_steps": -1}, "final_steps"),
    ],
)
def test_impossible_numbers_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        place(view(), query(**changes))
    assert caught.value.param == field


def test_a_cloud_model_without_a_card_is_refused() -> None:
    with pytest.raises(ModelNotFound, match="known: pocket-cloud, pocket-draft"):
        place(view(), query(cloud_model="x" * 200))


def test_a_decision_changes_nothing_until_it_is_recorded() -> None:
    seen = view()
    before = seen.digest()
    first = place(seen)
    assert seen.digest() == before == first.view_digest
    record(seen, query(), first, now_ns=NOW_NS)
    assert seen.digest() != before


def test_the_next_request_sees_what_the_last_one_sent_out() -> None:
    seen = view()
    asked = query()
    record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    following = place(seen, query(job_id="vid_" + "1" * 26))
    assert of_plan(following, "refine").draft_s == pytest.approx(0.74)
    assert of_plan(following, "refine").final_s == pytest.approx(6.17 * 2)
    seen.jobs.settle(JOB, gpu_s=0.0, now_ns=NOW_NS)
    assert of_plan(place(seen), "cloud").final_s == pytest.approx(12.17)


def test_a_herd_of_requests_spreads_over_equal_pools() -> None:
    seen = view(report("edge-1"), report("worker-1"), report("worker-2", pool="big"))
    rng = random.Random(5)
    pools: list[str] = []
    for number in range(200):
        asked = query(job_id=f"vid_{number:026d}", requested_plan="cloud")
        decision = decide(seen, asked, now_ns=NOW_NS, rng=rng)
        record(seen, asked, decision, now_ns=NOW_NS)
        pools.append(decision.pool)
    assert 80 <= pools.count("big") <= 120


def test_the_same_view_query_time_and_chance_give_the_same_decision() -> None:
    one = View(nodes=table(report("edge-1"), report("worker-1")), cards=cards(), decider="s")
    other = View(nodes=table(report("worker-1"), report("edge-1")), cards=cards(), decider="s")
    assert place(one) == place(other)


@settings(max_examples=60, deadline=None)
@given(
    edge=st.fixed_dictionaries({"remaining_s": st.floats(0, 1e9), "ready": st.booleans(), "draining": st.booleans()}),
    worker=st.fixed_dictionaries(
        {
            "remaining_s": st.floats(0, 1e9),
            "ready": st.booleans(),
            "capacity": st.integers(0, 4096),
            "in_flight": st.integers(0, 10**6),
        }
    ),
    intent=st.sampled_from(["iterate", "render"]),
    asked=st.sampled_from([None, "draft", "refine", "cloud", "hit"]),
    frames=st.integers(1, 2**20),
)
def test_whatever_nodes_report_a_decision_is_made_and_its_numbers_are_sane(
    edge: dict[str, object], worker: dict[str, object], intent: str, asked: str | None, frames: int
) -> None:
    seen = view(report("edge-1", **edge), report("worker-1", **worker))
    decision = place(seen, query(intent=intent, requested_plan=asked, frames=frames))
    chosen = decision.chosen()
    refusal = refusal_of(decision)
    assert (chosen is not None and chosen.feasible) or (refusal is not None and refusal.retry_after_s)
    assert decision.reasons
    assert all(1.0 <= candidate.qoe <= 5.0 for candidate in decision.candidates)


def test_importing_the_decision_code_loads_no_runtime() -> None:
    code = (
        "import sys, scheduler.decide.decide; "
        "print(sorted({'torch', 'grpc', 'nats', 'onnxruntime', 'aiortc', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
