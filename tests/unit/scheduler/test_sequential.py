"""Intervals that may be looked at after every outcome: how often they miss, and how soon they tell."""

import math
import random

import pytest

from scheduler.decide.sequential import FEWEST, Interval, Mean, Share

RISK = 0.05
RUNS = 300


def missed_share(true: float, rng: random.Random, *, looks: int) -> bool:
    """Whether the interval ever leaves the true share out, looked at after every outcome."""
    share = Share()
    for _ in range(looks):
        share.add(rng.random() < true)
        if share.evidence_against(true) > -math.log(RISK):  # that is where it ends, as another test holds
            interval = share.interval(RISK)
            assert not interval.low <= true <= interval.high
            return True
    return False


def test_an_interval_ends_where_the_evidence_reaches_the_risk() -> None:
    share = Share(7, 20)
    interval = share.interval(RISK)
    for end in interval:
        assert share.evidence_against(end) == pytest.approx(-math.log(RISK), rel=1e-6)
    assert share.evidence_against(interval.low + 0.01) < -math.log(RISK) < share.evidence_against(interval.low - 0.01)


@pytest.mark.parametrize("true", [0.01, 0.1, 0.5])
def test_a_share_is_left_out_at_any_time_no_oftener_than_the_risk(true: float) -> None:
    rng = random.Random(4)
    misses = sum(missed_share(true, rng, looks=200) for _ in range(RUNS))
    assert misses <= RUNS * RISK + 3 * math.sqrt(RUNS * RISK * (1 - RISK))


def missed_mean(rng: random.Random, *, looks: int) -> bool:
    mean, true = Mean(), 0.3
    for _ in range(looks):
        mean.add(rng.gauss(true, 0.4))
        interval = mean.interval(RISK, least_spread=0.01)
        if not interval.low <= true <= interval.high:
            return True
    return False


def test_a_mean_is_left_out_at_any_time_about_as_seldom_as_the_risk() -> None:
    rng = random.Random(5)
    misses = sum(missed_mean(rng, looks=400) for _ in range(RUNS))
    assert misses <= RUNS * RISK + 3 * math.sqrt(RUNS * RISK * (1 - RISK))


def test_a_fixed_interval_would_miss_far_oftener_when_it_is_looked_at_all_the_time() -> None:
    rng, misses = random.Random(5), 0
    for _ in range(RUNS):
        mean = Mean()
        for _ in range(400):
            mean.add(rng.gauss(0.3, 0.4))
            radius = 1.96 * math.sqrt(mean.squares / max(1, mean.count - 1) / mean.count)
            if mean.count >= FEWEST and abs(mean.value - 0.3) > radius:
                misses += 1
                break
    assert misses > 3 * RUNS * RISK


def test_intervals_grow_tighter() -> None:
    rng, share, mean = random.Random(6), Share(), Mean()
    widths = []
    for count in range(1, 2001):
        share.add(rng.random() < 0.2)
        mean.add(rng.gauss(0, 1))
        if count in (20, 200, 2000):
            found = share.interval(RISK), mean.interval(RISK, least_spread=0.01)
            widths.append([interval.high - interval.low for interval in found])
    for part in zip(*widths, strict=True):
        assert part[0] > 2 * part[1] > 4 * part[2]


def test_nothing_is_known_before_anything_was_seen() -> None:
    assert Share().interval(RISK) == Interval(0.0, 1.0)
    assert Share().value is None
    mean = Mean()
    for _ in range(FEWEST - 1):
        mean.add(1.0)
    assert mean.interval(RISK, least_spread=0.1) == Interval(-math.inf, math.inf)


def test_a_few_failures_of_all_are_enough_against_many_successes() -> None:
    good, bad = Share(0, 100), Share(3, 3)
    assert bad.interval(RISK / 2).minus(good.interval(RISK / 2)).low > 0.05


def test_equal_numbers_prove_no_more_than_their_least_spread_allows() -> None:
    mean = Mean()
    for _ in range(20):
        mean.add(2.0)
    narrow, wide = mean.interval(RISK, least_spread=0.01), mean.interval(RISK, least_spread=0.1)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low) > 0


@pytest.mark.parametrize(("hits", "count"), [(0, 50), (50, 50), (1, 1), (0, 1), (7, 20)])
def test_a_share_is_within_its_own_interval_and_between_0_and_1(hits: int, count: int) -> None:
    interval = Share(hits, count).interval(RISK)
    assert 0.0 <= interval.low <= hits / count <= interval.high <= 1.0
    assert (interval.low == 0.0) == (hits == 0) and (interval.high == 1.0) == (hits == count)
