"""What plans move from node to node, how long that takes, and that it is not counted twice."""

import random
from dataclasses import replace

import pytest

from adaptivegen.nodes import Way
from scheduler.decide.decide import decide, record
from scheduler.decide.sizes import GUESS
from scheduler.decide.view import View
from tests.unit.scheduler.builders import FINAL_S, NOW_NS, of_plan, outcome, place, query, report, view

DRAFT_B, FINAL_B = GUESS * 128 * 128 * 24, GUESS * 256 * 256 * 24
REFINE_S = 0.37 + 6.17


def way(seconds: float) -> Way:
    """One that takes so long, whatever is moved."""
    return Way(delay_s=seconds, bytes_per_s=1e12)


def slow(*, fetch_s: float = 0.5, put_s: float = 1.0, get_s: float = 2.0) -> View:
    """An edge and a worker that lie apart."""
    ways = {"edge-1": way(fetch_s), "store.put": way(put_s), "store.get": way(9.0)}
    return view(report("edge-1", ways={"store.get": way(get_s)}), report("worker-1", ways=ways))


def test_a_final_takes_moving_it_and_its_draft_too() -> None:
    decision = place(slow())
    refine, cloud, near = of_plan(decision, "refine"), of_plan(decision, "cloud"), of_plan(place(view()), "refine")
    assert refine.final_s == pytest.approx(REFINE_S + 3.5)
    assert refine.transfer_s == pytest.approx(3.5)
    assert cloud.final_s == pytest.approx(FINAL_S + 3.0)
    assert near.transfer_s == 0.0
    assert refine.qoe < near.qoe
    assert any("3.50 s for moving clips" in reason for reason in decision.reasons)


def test_what_is_larger_takes_longer() -> None:
    seen = view(report("edge-1", ways={"store.get": Way(delay_s=0.1, bytes_per_s=1e5)}), report("worker-1"))
    large, small = (of_plan(place(seen, query(width=w, height=w)), "cloud") for w in (256, 128))
    assert large.transfer_s == pytest.approx(0.1 + FINAL_B / 1e5)
    assert small.transfer_s == pytest.approx(0.1 + FINAL_B / 4 / 1e5)


def test_a_draft_that_is_in_the_store_is_fetched_from_there() -> None:
    asked = query(draft_known=True, requested_plan="refine")
    assert of_plan(place(slow(), asked), "refine").final_s == pytest.approx(6.17 + 9.0 + 3.0)


def test_bytes_are_those_of_every_way_that_a_plan_uses() -> None:
    decision = place(view(), query(intent="iterate"))
    assert of_plan(decision, "draft").moved_bytes == pytest.approx(DRAFT_B)  # to the store
    assert of_plan(decision, "refine").moved_bytes == pytest.approx(2 * DRAFT_B + 2 * FINAL_B)
    assert of_plan(decision, "cloud").moved_bytes == pytest.approx(2 * FINAL_B)
    assert of_plan(decision, "hit").moved_bytes == 0.0
    upgrade = place(view(), query(draft_known=True, requested_plan="refine"))
    assert of_plan(upgrade, "refine").moved_bytes == pytest.approx(DRAFT_B + 2 * FINAL_B)


def test_a_draft_that_another_edge_lends_moves_once_more() -> None:
    digest = "0" * 64
    home = report("edge-1", remaining_s=30.0, in_flight=1)
    peer = report("edge-2", lends=digest, grpc_address="127.0.0.1:2")
    decision = place(view(home, peer, report("worker-1")), query(draft_digest=digest))
    assert decision.draft_edge_id == "edge-2"
    assert of_plan(decision, "refine").moved_bytes == pytest.approx(3 * DRAFT_B + 2 * FINAL_B)


def test_of_pools_that_are_equal_otherwise_the_one_near_the_store_is_taken() -> None:
    near, far = (report(f"worker-{n}", pool=pool, ways={"store.put": way(s)}) for n, pool, s in _POOLS)
    seen = view(report("edge-1"), near, far)
    assert {decide(seen, query(), now_ns=NOW_NS, rng=random.Random(seed)).pool for seed in range(20)} == {"near"}


_POOLS = ((1, "near", 0.1), (2, "far", 5.0))


def test_a_model_is_not_held_up_by_what_its_worker_moves() -> None:
    seen = slow()
    record(seen, query(), place(seen), now_ns=NOW_NS)
    assert seen.jobs.line("default").work_s == pytest.approx(6.17)


@pytest.mark.parametrize("seconds", [1e9, 600.0])
def test_no_way_is_believed_to_take_longer_than_ten_minutes(seconds: float) -> None:
    seen = view(report("edge-1", ways={"store.get": way(seconds)}), report("worker-1"))
    assert of_plan(place(seen), "cloud").transfer_s == 600.0


def test_transfers_are_not_counted_twice_and_a_far_edge_does_not_spoil_predictions_for_a_near_one() -> None:
    """Two edges, of which one is four seconds from the store: outcomes tell the truth, half of them of each."""

    def off(tells: bool) -> dict[str, float]:
        def fresh() -> View:
            far = report("edge-1", ways={"store.get": way(4.0)} if tells else {})
            return view(far, report("edge-2"), report("worker-1"))

        seen, rng, worst = fresh(), random.Random(9), {"edge-1": 0.0, "edge-2": 0.0}
        for number in range(300):
            name = "edge-2" if number % 2 else "edge-1"
            decision = place(seen, asked := query(edge_id=name))
            record(seen, asked, decision, now_ns=NOW_NS)
            chosen = decision.chosen()
            assert chosen is not None and chosen.final_s is not None
            true_s = (REFINE_S + (4.0 if name == "edge-1" else 0.0)) * rng.uniform(0.97, 1.03)
            if number >= 100:
                worst[name] = max(worst[name], abs(chosen.final_s / true_s - 1.0))
            seen.ended(outcome(decision, final_s=true_s, draft_s=0.37), now_ns=NOW_NS)
            seen = replace(fresh(), learned=seen.learned)  # idle again
        return worst

    assert max(off(tells=True).values()) < 0.08
    assert max(off(tells=False).values()) > 0.3
