"""Policies behind the port of placing: each decides as its paper says, and says so."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from adaptivegen.errors import InvalidRequest, ModelNotFound
from adaptivegen.nodes import FinishedWork, NodeReport
from adaptivegen.placement import Decision, PlacementQuery
from scheduler.decide.balanced import placing_of
from scheduler.decide.decide import decide
from scheduler.decide.drafters import NEVER_S
from scheduler.decide.placing import PLACINGS, Placing, PlacingName
from scheduler.decide.view import View
from tests.unit.scheduler.builders import JOB, NOW_NS, draft_card, outcome, query, report, view

BASELINES = PLACINGS[1:]
BALANCERS = ("round_robin", "least_request", "two_choices", "peak_ewma", "prequal")
DIGEST = draft_card().digest
SECOND_NS = 10**9


def lending(edge_id: str, **changes: object) -> NodeReport:
    return report(edge_id, lends=DIGEST, grpc_address=f"{edge_id}:1", **changes)


def two_edges() -> View:
    return view(lending("edge-1"), lending("edge-2"), report("worker-1"))


def asked(number: int = 0, **changes: object) -> PlacementQuery:
    return query(job_id=f"vid_{number:026d}", draft_digest=DIGEST, **changes)


def place(placing: Placing, request: PlacementQuery, *, now_ns: int = NOW_NS, seed: int = 1) -> Decision:
    decision = placing.decide(request, now_ns=now_ns, rng=random.Random(seed))
    placing.record(request, decision, now_ns=now_ns)
    return decision


def finished(number: int, seconds: float) -> FinishedWork:
    return FinishedWork(
        number=number, model="pocket-draft", width=128, height=128, frames=24, steps=4, guidance=1.0, seconds=seconds
    )


def beat(placing: Placing, edge_id: str, *done: FinishedWork, at_ns: int, seq: int, **changes: object) -> None:
    placing.hear(lending(edge_id, seq=seq, finished=done, **changes), now_ns=at_ns)


def test_ours_behind_the_port_is_ours() -> None:
    told = placing_of("ours", two_edges()).decide(asked(), now_ns=NOW_NS, rng=random.Random(3))
    assert told == decide(two_edges(), asked(), now_ns=NOW_NS, rng=random.Random(3))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_says_who_decided_and_predicts_nothing(name: PlacingName) -> None:
    decision = place(placing_of(name, two_edges()), asked())
    assert name in decision.reasons[0]
    assert [candidate.plan for candidate in decision.candidates] == ["hit", "draft", "refine", "cloud"]
    assert not any(candidate.final_s or candidate.draft_s or candidate.score for candidate in decision.candidates)


@pytest.mark.parametrize("name", PLACINGS)
def test_nobody_places_what_cannot_be(name: PlacingName) -> None:
    placing = placing_of(name, two_edges())
    with pytest.raises(ModelNotFound):
        place(placing, asked(cloud_model="none"))
    with pytest.raises(InvalidRequest):
        place(placing, asked(width=0))


@pytest.mark.parametrize("name", PLACINGS)
def test_a_known_clip_is_a_hit_and_what_is_asked_for_is_done(name: PlacingName) -> None:
    placing = placing_of(name, two_edges())
    assert place(placing, asked(1, content_known=True)).plan == "hit"
    assert place(placing, asked(2, requested_plan="cloud")).plan == "cloud"
    assert place(placing, asked(3, requested_plan="draft")).plan == "draft"


@pytest.mark.parametrize("name", BALANCERS)
def test_balancers_refine_at_either_edge_and_hedge_nothing(name: PlacingName) -> None:
    placing = placing_of(name, two_edges())
    made = [place(placing, asked(number), seed=number) for number in range(200)]
    assert {decision.plan for decision in made} == {"refine"}
    assert all(60 <= count <= 140 for count in Counter(decision.drafter for decision in made).values())
    for decision in made:
        assert decision.place(decision.drafter) is not None
        at_home = not decision.drafted_elsewhere
        assert decision.backup_edge_id == ("edge-2" if at_home else "")  # home is the second try of what is elsewhere
        assert decision.backup_after_s == (NEVER_S if at_home else 0.0)


@pytest.mark.parametrize(("name", "plan"), [("always_edge", "draft"), ("always_cloud", "cloud")])
def test_a_fixed_plan_is_taken_at_home(name: PlacingName, plan: str) -> None:
    decision = place(placing_of(name, two_edges()), asked())
    assert (decision.plan, decision.drafter) == (plan, "edge-1")
    assert bool(decision.final_steps) == (plan == "cloud")


def test_a_static_split_gives_half_to_the_cloud_whatever_is_wanted() -> None:
    placing = placing_of("static_split", two_edges())
    plans = [place(placing, asked(number, intent="iterate")).plan for number in range(10)]
    assert plans == ["draft", "refine"] * 5


def test_without_an_edge_that_can_draft_the_cloud_begins_from_noise() -> None:
    decision = place(placing_of("round_robin", view(lending("edge-1", draining=True), report("worker-1"))), asked())
    assert decision.plan == "cloud"
    assert "no edge can draft" in decision.reasons[0]


def test_edges_that_are_ejected_or_lend_nothing_are_not_picked() -> None:
    seen = view(lending("edge-1"), lending("edge-2"), report("edge-3", grpc_address="edge-3:1"), report("worker-1"))
    placing = placing_of("round_robin", seen)
    beat(placing, "edge-2", at_ns=NOW_NS, seq=2, failed_in_row=5)
    assert {place(placing, asked(number)).drafter for number in range(6)} == {"edge-1"}


def test_least_request_hears_in_heartbeats_what_is_over() -> None:
    placing = placing_of("least_request", two_edges())
    first = place(placing, asked(1)).drafter
    second = place(placing, asked(2)).drafter
    assert {first, second} == {"edge-1", "edge-2"}
    beat(placing, second, finished(1, 0.4), at_ns=NOW_NS + SECOND_NS, seq=2)
    later_ns = NOW_NS + SECOND_NS
    picked = {placing.decide(asked(9), now_ns=later_ns, rng=random.Random(seed)).drafter for seed in range(20)}
    assert picked == {second}


def test_peak_ewma_leaves_an_edge_after_one_slow_draft() -> None:
    placing = placing_of("peak_ewma", two_edges())
    for number in (1, 2):
        place(placing, asked(number))
    at_ns = NOW_NS + 2 * SECOND_NS
    beat(placing, "edge-1", finished(1, 0.3), at_ns=at_ns, seq=2)
    beat(placing, "edge-2", finished(1, 1.5), at_ns=at_ns, seq=2)
    assert place(placing, asked(3), now_ns=at_ns).drafter == "edge-1"
    assert place(placing, asked(4), now_ns=at_ns).drafter == "edge-1"  # 0.3 s x 2 is still less than 1.5 s


def test_a_failed_draft_is_no_longer_under_way() -> None:
    placing = placing_of("least_request", two_edges())
    first = place(placing, asked(1)).drafter
    place(placing, asked(2))
    beat(placing, first, at_ns=NOW_NS + SECOND_NS, seq=2, failed_in_row=1)
    assert place(placing, asked(3), now_ns=NOW_NS + SECOND_NS).drafter == first


def test_prequal_takes_the_faster_of_two_that_are_not_hot() -> None:
    placing = placing_of("prequal", two_edges())
    seen: set[str] = set()
    number, at_ns = 0, NOW_NS
    while len(seen) < 2:
        number += 1
        seen.add(place(placing, asked(number), now_ns=at_ns, seed=number).drafter)
    at_ns += 2 * SECOND_NS
    beat(placing, "edge-1", finished(1, 0.3), at_ns=at_ns, seq=2)
    beat(placing, "edge-2", finished(1, 1.5), at_ns=at_ns, seq=2)
    picked = {placing.decide(asked(99), now_ns=at_ns, rng=random.Random(seed)).drafter for seed in range(20)}
    assert picked == {"edge-1"}


@pytest.mark.parametrize("name", PLACINGS)
def test_the_jobs_of_every_policy_are_known_and_end(name: PlacingName) -> None:
    seen = two_edges()
    placing = placing_of(name, seen)
    decision = place(placing, asked(requested_plan="refine"))
    assert decision.job_id in seen.jobs
    off = placing.ended(outcome(decision, final_s=1.0, draft_s=0.5, gpu_s=0.5), now_ns=NOW_NS + SECOND_NS)
    assert decision.job_id not in seen.jobs
    assert bool(off) == (name == "ours")  # of what was not predicted nothing is learned


def test_of_an_upgrade_no_draft_is_sent_anywhere() -> None:
    decision = place(placing_of("round_robin", two_edges()), asked(draft_known=True, requested_plan="refine"))
    assert (decision.plan, decision.draft_places, decision.job_id == JOB) == ("refine", (), True)
