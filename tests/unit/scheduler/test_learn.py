"""What is learned of nodes and of predictions, and that it converges, forgets accidents and covers what it promises."""

import math
import random
from collections.abc import Callable

import pytest

from adaptivegen.errors import SettingsInvalid
from scheduler.decide.learn import FURTHEST, MAX_MODELS, MAX_NODES, LearnSettings, Speeds
from scheduler.decide.spreads import Spread

Node = tuple[str, str, str]
NODE: Node = ("worker-1", "worker", "pocket-cloud")


def worked(speeds: Speeds, ratio: float, *, at_s: float, node: Node = NODE, predicted_s: float = 4.0) -> float | None:
    return speeds.observe(*node, observed_s=ratio * predicted_s, predicted_s=predicted_s, now_s=at_s)


@pytest.mark.parametrize("seed", range(40))
def test_a_new_node_is_predicted_within_15_percent_after_20_jobs(seed: int) -> None:
    rng = random.Random(seed)
    true, speeds, now_s = math.exp(rng.uniform(-1.5, 1.5)), Speeds(), 0.0
    for _ in range(20):
        now_s += rng.expovariate(0.2)
        worked(speeds, true * math.exp(rng.gauss(0.0, 0.1)), at_s=now_s, predicted_s=rng.uniform(0.5, 20.0))
    assert speeds.factor(*NODE) == pytest.approx(true, rel=0.15)


def test_an_unknown_node_is_as_the_middle_one_of_its_class_and_an_unknown_class_as_its_card() -> None:
    speeds = Speeds()
    assert speeds.factor(*NODE) == 1.0
    for number, ratio in ((1, 2.0), (2, 3.0), (3, 15.0)):
        for step in range(30 * number):  # how often a node speaks does not matter
            worked(speeds, ratio, at_s=step, node=(f"worker-{number}", "worker", "pocket-cloud"))
    assert speeds.factor("worker-9", "worker", "pocket-cloud") == pytest.approx(3.0, rel=0.05)
    assert speeds.factor("edge-1", "edge", "pocket-cloud") == 1.0
    assert speeds.factor("worker-9", "worker", "other") == 1.0
    speeds.forget("worker-3")
    assert speeds.factor("worker-9", "worker", "pocket-cloud") == pytest.approx(2.5, rel=0.05)


def test_what_is_remembered_is_bounded() -> None:
    speeds = Speeds()
    for number in range(MAX_NODES + 5):
        worked(speeds, 2.0, at_s=0.0, node=(f"worker-{number}", "worker", "m"))
    for number in range(MAX_MODELS + 5):
        worked(speeds, 2.0, at_s=0.0, node=("worker-7", "worker", f"m{number}"))
    known = list(speeds.known())
    assert len({node for node, _, _ in known}) == MAX_NODES
    assert sum(node == "worker-7" for node, _, _ in known) == MAX_MODELS


def test_one_accident_hardly_counts_and_a_second_one_is_believed() -> None:
    speeds = Speeds()
    for step in range(30):
        worked(speeds, 1.0, at_s=5.0 * step)
    worked(speeds, 12.0, at_s=160.0)
    assert speeds.factor(*NODE) < 1.1
    worked(speeds, 1.0, at_s=165.0)
    assert speeds.factor(*NODE) < 1.1
    for step in range(3):
        worked(speeds, 3.0, at_s=170.0 + step)
    assert speeds.factor(*NODE) == pytest.approx(3.0, rel=0.1)


def test_what_is_long_known_gives_way_after_long_silence() -> None:
    often, rarely = Speeds(), Speeds()
    for step in range(50):
        worked(often, 1.0, at_s=step)
        worked(rarely, 1.0, at_s=step)
    worked(often, 1.2, at_s=50.0)
    worked(rarely, 1.2, at_s=50_000.0)
    assert often.factor(*NODE) < rarely.factor(*NODE) <= 1.2


@pytest.mark.parametrize("observed_s", [0.0, -1.0, math.nan, math.inf])
def test_times_that_are_none_teach_nothing(observed_s: float) -> None:
    speeds = Speeds()
    assert speeds.observe(*NODE, observed_s=observed_s, predicted_s=1.0, now_s=0.0) is None
    assert speeds.observe(*NODE, observed_s=1.0, predicted_s=observed_s, now_s=0.0) is None
    assert speeds.factor(*NODE) == 1.0


def test_a_lie_moves_a_factor_no_further_than_its_bounds() -> None:
    speeds = Speeds()
    for step in range(100):
        worked(speeds, 1e9, at_s=step)
    assert speeds.factor(*NODE) <= math.exp(FURTHEST) * 1.001


def test_what_was_off_is_told_by_what_was_expected_before() -> None:
    speeds = Speeds()
    assert worked(speeds, 2.0, at_s=0.0) == pytest.approx(math.log(2.0))
    off = worked(speeds, 2.0, at_s=1.0)
    assert off is not None
    assert abs(off) < 0.1


def gauss(rng: random.Random, _: int) -> float:
    return rng.gauss(0.0, 0.1)


def narrow(rng: random.Random, _: int) -> float:
    return rng.gauss(0.0, 0.01)


def heavy(rng: random.Random, _: int) -> float:
    return rng.gauss(0.0, 0.1) + (rng.expovariate(1.0) if rng.random() < 0.05 else 0.0)


def bursty(rng: random.Random, step: int) -> float:
    return rng.gauss(0.0, 0.1 if step // 100 % 2 else 0.4)


def late(rng: random.Random, _: int) -> float:
    return rng.expovariate(2.0)


@pytest.mark.parametrize("noise", [gauss, narrow, heavy, bursty, late])
def test_the_upper_prediction_covers_95_percent_of_outcomes(noise: Callable[[random.Random, int], float]) -> None:
    shares = []
    for seed in range(10):
        rng, spread = random.Random(seed), Spread()
        assert spread.coverage is None
        for step in range(200):
            spread.observe(noise(rng, step))
        seen, covered = spread.seen, spread.covered
        for step in range(200, 1000):
            spread.observe(noise(rng, step))
        shares.append((spread.covered - covered) / (spread.seen - seen))
    assert all(0.92 <= share <= 0.975 for share in shares)
    assert 0.93 <= sum(shares) / len(shares) <= 0.97


def test_the_upper_prediction_follows_what_is_off() -> None:
    near, far = Spread(), Spread()
    rng = random.Random(1)
    for _ in range(500):
        value = rng.gauss(0.0, 1.0)
        near.observe(0.02 * value)
        far.observe(0.3 * value)
    assert near.upper < 0.1
    assert 0.35 < far.upper < 0.8
    far.observe(math.nan)
    assert far.seen == 500


@pytest.mark.parametrize("changes", [{"noise": 0.0}, {"patience": -1.0}, {"coverage": 1.0}, {"coverage": math.nan}])
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        LearnSettings(**changes)
    assert caught.value.param == next(iter(changes))
