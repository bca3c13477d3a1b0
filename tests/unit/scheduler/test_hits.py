"""How likely requests repeat earlier ones, and how good that is known."""

import random

import pytest

from adaptivegen.nodes import Way
from scheduler.decide.decide import record
from scheduler.decide.hits import MAX_TENANTS, MOST_AT_ONCE, PRIORS, Hits
from tests.unit.scheduler.builders import NOW_NS, of_plan, place, query, report, view


def test_a_chance_is_learned_and_forgotten_again() -> None:
    hits = Hits()
    assert hits.known("e", "t") == PRIORS["known"][0]
    for _ in range(400):
        hits.asked("e", "t", True)
    assert hits.known("e", "t") > 0.95
    for _ in range(800):
        hits.asked("e", "t", False)
    assert hits.known("e", "t") < 0.06


def test_a_tenant_begins_where_its_edge_is_and_goes_its_own_way() -> None:
    hits = Hits()
    for _ in range(200):
        hits.asked("e", "many", True)
    assert hits.known("e", "new") == pytest.approx(hits.known("e", ""), abs=0.01)
    assert hits.known("other", "many") == PRIORS["known"][0]
    for _ in range(30):
        hits.asked("e", "new", False)
    assert hits.known("e", "new") < 0.3 < 0.8 < hits.known("e", "many")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_what_is_told_comes_as_often_as_it_is_told(share: float) -> None:
    hits, rng = Hits(), random.Random(5)
    for _ in range(2000):
        hits.asked("e", "t", rng.random() < share)
    edge = next(known for known in hits.all() if not known.tenant)
    assert edge.seen == 2000
    assert edge.expected == pytest.approx(edge.came, abs=60)
    assert edge.brier == pytest.approx(share * (1 - share), abs=0.02)  # as good as can be for such


def test_an_edge_tells_of_its_cache_in_counts_of_its_life() -> None:
    hits = Hits()
    assert hits.cached("edge-1") == 0.5
    told = [
        (1, 0, 0),
        (1, 0, 3),
        (1, 0, 3),
        (1, 6, 3),
        (2, 4, 0),
        (1, 90, 90),
    ]  # again, more, another life, an older one
    for seq, (life, cached, fetched) in enumerate(told):
        hits.hear(report(seq=seq, started_at_ns=life, repeats_cached=cached, repeats_fetched=fetched))
    (edge,) = hits.all()
    assert (edge.what, edge.seen, edge.came) == ("cached", 13, 10)
    assert hits.cached("edge-1") == pytest.approx(11 / 15, abs=0.02)


def test_what_an_edge_counted_before_it_was_heard_of_is_not_taken_for_new() -> None:
    hits = Hits()
    hits.hear(report(started_at_ns=1, repeats_cached=300, repeats_fetched=3000))
    assert hits.all() == []
    hits.hear(report(started_at_ns=1, seq=2, repeats_cached=301, repeats_fetched=3000))
    (edge,) = hits.all()
    assert (edge.seen, edge.came) == (1, 1)


def test_counts_that_go_back_or_leap_are_bounded() -> None:
    hits = Hits()
    hits.hear(report(started_at_ns=1))
    hits.hear(report(started_at_ns=1, seq=2, repeats_cached=2**62))
    hits.hear(report(started_at_ns=1, seq=3, repeats_cached=5))
    (edge,) = hits.all()
    assert edge.seen == MOST_AT_ONCE


def test_no_more_tenants_are_remembered_than_may_be_nor_told_than_are_asked_for() -> None:
    hits = Hits()
    for number in range(MAX_TENANTS + 10):
        hits.asked("e", f"t{number}", False)
    assert len(hits.all(2 * MAX_TENANTS)) == MAX_TENANTS + 1
    assert len(hits.all(10)) == 10
    hits.forget("e")
    assert hits.all() == []


def test_an_edge_that_is_forgotten_takes_its_own_tenants_with_it_and_no_others() -> None:
    hits = Hits()
    for number in range(MAX_TENANTS + 2):  # the first two have given way
        hits.asked(f"e{number % 2}", f"t{number}", False)
    hits.forget("e0")
    told = hits.all(2 * MAX_TENANTS)
    assert {known.edge_id for known in told} == {"e1"}
    assert len(told) == MAX_TENANTS // 2 + 1
    hits.asked("e0", "t0", True)
    assert [known.tenant for known in hits.all(2 * MAX_TENANTS) if known.edge_id == "e0"] == ["", "t0"]


def test_every_request_counts_once_and_an_upgrade_never() -> None:
    seen = view()
    for known, changes in ((True, {}), (False, {}), (False, {"draft_known": True, "requested_plan": "refine"})):
        asked = query(content_known=known, **changes)
        record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    edge, tenant = seen.hits.all()
    assert (edge.seen, edge.came, tenant.tenant) == (2, 1, "local")


def test_a_hit_costs_the_way_to_the_cache_as_far_as_it_is_likely_not_there() -> None:
    way = {"store.get": Way(delay_s=2.0, bytes_per_s=1e12)}
    seen = view(report("edge-1", ways=way), report("worker-1"))
    asked = query(content_known=True)
    before = of_plan(place(seen, asked), "hit")
    assert before.final_s == pytest.approx(1.0)  # nothing is known: half of the way
    assert before.final_upper_s is not None and before.final_upper_s >= 2.0
    for beat in range(20):
        seen.hear(report("edge-1", ways=way, seq=beat + 2, repeats_cached=20 * (beat + 1)), now_ns=NOW_NS)
    after = of_plan(place(seen, asked), "hit")
    assert after.final_s == pytest.approx(0.0, abs=0.05)
    assert after.moved_bytes < 0.05 * before.moved_bytes
    assert place(seen, asked).plan == "hit"
