"""What transfers that happen anyway tell of the ways they took."""

import math
import random

import pytest

from adaptivegen.nodes import WAYS_TOLD, Way
from adaptivegen.ways import FORGET_AFTER_S, LONGEST_S, Transfers


def told(transfers: Transfers, name: str = "a", *, now_s: float = 0.0) -> Way:
    return transfers.told(now_s=now_s)[name]


def test_the_second_transfer_takes_the_place_of_the_first_which_had_to_connect() -> None:
    transfers = Transfers()
    transfers.observe("a", 1000, 5.0, now_s=0.0)
    assert told(transfers).seconds(1000) == pytest.approx(5.0)
    transfers.observe("a", 1000, 0.2, now_s=1.0)
    assert told(transfers).seconds(1000) == pytest.approx(0.2)


@pytest.mark.parametrize(("delay_s", "rate"), [(0.05, 1e6), (0.5, 1e5), (0.0, 1e7), (0.3, 1e11)])
def test_delay_and_rate_are_told_apart_by_transfers_of_several_sizes(delay_s: float, rate: float) -> None:
    transfers, rng = Transfers(), random.Random(3)
    for number in range(60):
        size = rng.choice((20_000, 100_000, 400_000, 1_000_000))
        transfers.observe("a", size, (delay_s + size / rate) * rng.uniform(0.97, 1.03), now_s=float(number))
    way = told(transfers, now_s=60.0)
    for size in (20_000, 200_000, 2_000_000):
        assert way.seconds(size) == pytest.approx(delay_s + size / rate, rel=0.15, abs=0.02)


def test_transfers_of_one_size_predict_that_size_and_neither_part_is_below_nothing() -> None:
    transfers = Transfers()
    for number in range(20):
        transfers.observe("a", 50_000, 0.4, now_s=float(number))
    way = told(transfers, now_s=20.0)
    assert way.seconds(50_000) == pytest.approx(0.4)
    assert way.delay_s > 0.2  # so little is mostly delay
    assert 0.4 < way.seconds(100_000) < 0.8
    for size, seconds in ((1_000_000, 0.1), (10, 3.0), (1_000_000, 0.1), (10, 3.0)):  # larger, and sooner
        transfers.observe("odd", size, seconds, now_s=20.0)
    odd = told(transfers, "odd", now_s=20.0)
    assert odd.delay_s >= 0.0 and odd.bytes_per_s >= 1.0


def test_a_way_that_changed_is_known_anew_after_some_transfers() -> None:
    transfers = Transfers()
    for number, seconds in enumerate([0.1] * 20 + [1.0] * 15):
        transfers.observe("a", 50_000, seconds, now_s=float(number))
    assert told(transfers, now_s=40.0).seconds(50_000) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("size", "seconds"), [(0, 1.0), (-1, 1.0), (10, math.nan), (10, math.inf)])
def test_what_is_no_transfer_is_passed_over(size: int, seconds: float) -> None:
    transfers = Transfers()
    transfers.observe("a", size, seconds, now_s=0.0)
    assert transfers.told(now_s=0.0) == {}


@pytest.mark.parametrize(("seconds", "taken_s"), [(-0.1, 0.0), (1e9, LONGEST_S)])
def test_impossible_times_are_bounded(seconds: float, taken_s: float) -> None:
    transfers = Transfers()
    transfers.observe("a", 1000, seconds, now_s=0.0)
    assert told(transfers).seconds(1000) == pytest.approx(taken_s, abs=1e-6)


def test_a_way_not_used_for_long_is_not_told_and_no_more_are_kept_than_are_told() -> None:
    transfers = Transfers()
    transfers.observe("a", 1000, 0.1, now_s=0.0)
    assert transfers.told(now_s=FORGET_AFTER_S + 1) == {}
    for number in range(WAYS_TOLD + 5):
        transfers.observe(f"e{number}", 1000, 0.1, now_s=0.0)
    found = transfers.told(now_s=0.0)
    assert len(found) == WAYS_TOLD and "a" not in found and f"e{WAYS_TOLD + 4}" in found
