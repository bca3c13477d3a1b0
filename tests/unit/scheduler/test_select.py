"""Which of several like places is drawn, and with which chance."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.errors import SettingsInvalid
from scheduler.decide.select import SAMPLE, SAMPLE_BEYOND, Place, SelectSettings, chances, drawn, sampled

SETTINGS = SelectSettings()


def places(*done_s: float, load_s: float = 0.0) -> list[Place]:
    return [Place(f"p{index}", at_s, load_s) for index, at_s in enumerate(done_s)]


def drawn_of(offers: list[Place], times: int = 2000, *, home: str = "", stay: str = "") -> Counter[str]:
    rng = random.Random(1)
    return Counter(drawn(chances(offers, SETTINGS, home=home, stay=stay), rng) for _ in range(times))


def test_the_soonest_is_taken() -> None:
    assert chances(places(1.0, 0.5, 2.0), SETTINGS) == {"p1": 1.0}


def test_near_ties_are_drawn_by_headroom() -> None:
    offers = [Place("free", 1.0, 0.0), Place("busy", 1.02, 1.0), Place("new", 1.0, 0.0, weight=0.1)]
    found = drawn_of(offers, times=16_000)
    assert found["free"] / 16_000 == pytest.approx(1 / 1.6, abs=0.02)
    assert found["busy"] / 16_000 == pytest.approx(0.5 / 1.6, abs=0.02)
    assert found["new"] / 16_000 == pytest.approx(0.1 / 1.6, abs=0.02)


def test_two_hundred_at_once_do_not_all_choose_the_same() -> None:
    found = drawn_of(places(*[1.0] * 10), times=200)
    assert len(found) == 10
    assert max(found.values()) < 40


def test_home_is_taken_where_it_is_about_as_good() -> None:
    offers = [Place("home", 1.04, 0.1), Place("other", 1.0, 0.0)]
    assert drawn_of(offers, home="home") == {"home": 2000}
    far = [Place("home", 1.2, 0.1), Place("other", 1.0, 0.0)]
    assert drawn_of(far, home="home") == {"other": 2000}


def test_a_hot_place_is_not_taken_though_it_would_be_the_soonest() -> None:
    cold = [Place(f"cold{index}", 2.0, 0.1) for index in range(9)]
    assert "hot" not in drawn_of([Place("hot", 1.0, 50.0), *cold])
    assert drawn_of([Place("hot", 1.0, 50.0)]) == {"hot": 2000}


def test_a_session_stays_whatever_the_others_offer() -> None:
    assert drawn_of(places(1.0, 5.0), stay="p1") == {"p1": 2000}
    assert drawn_of(places(1.0, 5.0), stay="gone") == {"p0": 2000}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 1.0)), min_size=1, max_size=12))
def test_chances_sum_to_one(given_places: list[tuple[float, float, float]]) -> None:
    found = chances([Place(f"p{index}", *values) for index, values in enumerate(given_places)], SETTINGS)
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(chance > 0.0 for chance in found.values())


def test_many_places_are_sampled_and_the_sessions_kept() -> None:
    names = [f"n{index}" for index in range(256)]
    found = sampled(names, random.Random(1), keep=["n200"])
    assert "n200" in found
    assert SAMPLE <= len(found) <= SAMPLE + 1
    assert len({frozenset(sampled(names, random.Random(seed), keep=[])) for seed in range(20)}) == 20
    few = names[:SAMPLE_BEYOND]
    assert sampled(few, random.Random(1), keep=[]) == few


@pytest.mark.parametrize(
    ("name", "value"), [("explore", 0.03), ("explore", -0.1), ("hot_quantile", 0.2), ("near_s", float("nan"))]
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        SelectSettings(**{name: value})
