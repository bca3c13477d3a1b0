"""The balancers that ours is compared with do what their papers say."""

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from scheduler.decide.balanced import BALANCERS
from scheduler.decide.baselines import (
    HOT_QUANTILE,
    PENALTY_S,
    TAU_S,
    AlwaysHome,
    Balancer,
    LeastRequest,
    PeakEwma,
    Prequal,
    RoundRobin,
    TwoChoices,
)
from tests.unit.scheduler.builders import report

NAMES = ["a", "b", "c", "d"]
ALL: tuple[Callable[[], Balancer], ...] = (AlwaysHome, RoundRobin, LeastRequest, TwoChoices, PeakEwma, Prequal)


def picks(balancer: Balancer, times: int = 400, now_s: float = 0.0) -> Counter[str]:
    rng = random.Random(1)
    return Counter(balancer.pick(NAMES, home="a", now_s=now_s, rng=rng) for _ in range(times))


@pytest.mark.parametrize("make", ALL)
def test_one_edge_is_always_picked(make: Callable[[], Balancer]) -> None:
    balancer = make()
    assert balancer.pick(["a"], home="a", now_s=0.0, rng=random.Random(1)) == "a"


@pytest.mark.parametrize("make", ALL[1:])
def test_equal_edges_share(make: Callable[[], Balancer]) -> None:
    assert all(60 <= count <= 140 for count in picks(make()).values())


def test_round_robin_takes_one_after_another_and_begins_again() -> None:
    balancer, rng = RoundRobin(), random.Random(1)
    taken = [balancer.pick(NAMES, home="a", now_s=0.0, rng=rng) for _ in range(9)]
    assert taken[:4] != taken[1:5]
    assert sorted(taken[:4]) == NAMES
    first = NAMES.index(taken[0])
    assert taken == [NAMES[(first + number) % 4] for number in range(9)]


def test_always_home_never_leaves() -> None:
    assert picks(AlwaysHome()) == {"a": 400}


def test_least_request_goes_where_the_least_is_under_way() -> None:
    balancer = LeastRequest()
    for name in ("a", "a", "b", "c"):
        balancer.sent(name, now_s=0.0)
    assert picks(balancer) == {"d": 400}
    balancer.done("b", took_s=1.0, now_s=1.0)
    assert set(picks(balancer)) == {"b", "d"}


def test_two_choices_never_picks_the_fullest() -> None:
    balancer = TwoChoices()
    balancer.sent("a", now_s=0.0)
    found = picks(balancer, times=1200)
    assert "a" not in found
    assert all(count > 250 for count in found.values())


def test_a_peak_is_believed_at_once_and_forgotten_slowly() -> None:
    balancer = PeakEwma(tau_s=10.0)
    for name in NAMES:
        balancer.done(name, took_s=1.0, now_s=0.0)
    balancer.done("a", took_s=9.0, now_s=1.0)
    assert "a" not in picks(balancer, now_s=2.0)
    for name in ("b", "c", "d"):
        balancer.done(name, took_s=1.0, now_s=60.0)
    assert picks(balancer, now_s=60.0)["a"] > 100  # without news its cost has decayed


@pytest.mark.parametrize("tau_s", [10.0, TAU_S])
def test_a_cost_decays_by_its_mean_lifetime_and_is_mixed_with_what_is_seen(tau_s: float) -> None:
    balancer = PeakEwma(tau_s=tau_s)
    balancer.done("a", took_s=8.0, now_s=0.0)
    balancer.done("a", took_s=2.0, now_s=5.0)
    kept = math.exp(-5.0 / tau_s)
    mean_s = 8.0 * kept + 2.0 * (1.0 - kept)
    balancer.sent("a", now_s=5.0)
    assert balancer.load("a", 5.0) == pytest.approx(mean_s * 2)  # with the one that would be sent
    assert balancer.load("a", 7.0) == pytest.approx(mean_s * math.exp(-2.0 / tau_s) * 2)
    assert balancer.load("a", 9.0) == pytest.approx(mean_s * math.exp(-4.0 / tau_s) * 2)  # of one second only once


def test_a_time_is_a_peak_beside_what_the_cost_had_decayed_to_when_it_was_last_asked_for() -> None:
    asked, unasked = PeakEwma(tau_s=10.0), PeakEwma(tau_s=10.0)
    for balancer in (asked, unasked):
        balancer.done("a", took_s=8.0, now_s=0.0)
    assert asked.load("a", 20.0) == pytest.approx(8.0 * math.exp(-2.0))  # 1.1 s
    for balancer in (asked, unasked):
        balancer.done("a", took_s=2.0, now_s=20.0)
    assert asked.load("a", 20.0) == 2.0
    assert unasked.load("a", 20.0) == pytest.approx(8.0 * math.exp(-2.0) + 2.0 * (1.0 - math.exp(-2.0)))


def test_peak_ewma_remembers_for_fifty_seconds_unless_told_otherwise() -> None:
    balancer = BALANCERS["peak_ewma"]()
    assert isinstance(balancer, PeakEwma)
    balancer.done("a", took_s=1.0, now_s=0.0)
    assert TAU_S == 50.0
    assert balancer.load("a", 50.0) == pytest.approx(math.exp(-1.0))


def test_prequals_hot_nodes_are_those_above_the_84th_of_a_hundred_probes() -> None:
    assert HOT_QUANTILE == 0.84
    balancer, rng = Prequal(), random.Random(1)
    for told in range(1, 99):  # and two that are asked for below, so that a hundred were told
        balancer.hear(report(in_flight=told).model_copy(update={"node_id": "c"}), now_s=0.0)
    for name, took_s in (("a", 0.1), ("b", 2.0)):
        balancer.sent(name, now_s=0.0)
        balancer.done(name, took_s=took_s, now_s=2.0)
    balancer.hear(report(in_flight=1).model_copy(update={"node_id": "b"}), now_s=9.0)
    balancer.hear(report(in_flight=82).model_copy(update={"node_id": "a"}), now_s=9.0)
    assert {balancer.pick(["a", "b"], home="a", now_s=9.0, rng=rng) for _ in range(20)} == {"a"}  # cold, and fast
    balancer.hear(report(in_flight=90).model_copy(update={"node_id": "a"}), now_s=9.0)
    assert {balancer.pick(["a", "b"], home="a", now_s=9.0, rng=rng) for _ in range(20)} == {"b"}


def test_prequal_leaves_hot_nodes_and_takes_the_fastest_of_the_cold() -> None:
    balancer = Prequal(hot_quantile=0.75)
    for name, in_flight in (("a", 9), ("b", 1), ("c", 1), ("d", 1)):
        balancer.hear(report(f"edge-{name}", in_flight=0).model_copy(update={"node_id": name}), now_s=0.0)
        for _ in range(in_flight):
            balancer.sent(name, now_s=0.0)
    for name, took_s in (("a", 0.1), ("b", 2.0), ("c", 1.0), ("d", 3.0)):
        balancer.done(name, took_s=took_s, now_s=1.0)
    assert picks(balancer) == {"c": 400}


def test_prequal_counts_on_what_it_sends_until_the_next_report() -> None:
    balancer = Prequal(hot_quantile=0.5)
    for name in NAMES:
        balancer.hear(report().model_copy(update={"node_id": name}), now_s=0.0)
    balancer.sent("a", now_s=0.0)
    assert "a" not in picks(balancer)
    balancer.hear(report().model_copy(update={"node_id": "a"}), now_s=0.5)
    assert picks(balancer)["a"] > 60


def test_prequal_knows_hot_nodes_by_what_probes_have_told_before() -> None:
    balancer = Prequal(hot_quantile=0.84)
    for second in range(40):  # mostly idle
        for name in ("a", "b"):
            balancer.hear(report().model_copy(update={"node_id": name}), now_s=float(second))
    for name, took_s in (("a", 0.1), ("b", 2.0)):
        balancer.sent(name, now_s=40.0)
        balancer.done(name, took_s=took_s, now_s=42.0)
    rng = random.Random(1)
    busy = report(in_flight=1, queued=2).model_copy(update={"node_id": "a"})
    balancer.hear(busy, now_s=43.0)
    balancer.hear(report().model_copy(update={"node_id": "b"}), now_s=43.0)
    assert {balancer.pick(["a", "b"], home="a", now_s=43.0, rng=rng) for _ in range(20)} == {"b"}  # the fast one is hot
    balancer.hear(report(in_flight=4).model_copy(update={"node_id": "b"}), now_s=44.0)
    assert {balancer.pick(["a", "b"], home="a", now_s=44.0, rng=rng) for _ in range(20)} == {"a"}  # both are hot


def test_peak_ewma_sends_one_request_to_a_node_of_which_nothing_is_known() -> None:
    balancer = PeakEwma()
    balancer.done("a", took_s=1.0, now_s=0.0)
    rng = random.Random(1)
    assert balancer.pick(["a", "b"], home="a", now_s=0.1, rng=rng) == "b"
    balancer.sent("b", now_s=0.1)
    assert balancer.load("b", 0.1) == PENALTY_S + 1
    assert balancer.pick(["a", "b"], home="a", now_s=0.2, rng=rng) == "a"
