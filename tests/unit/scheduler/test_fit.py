"""Fitting the QoE function to ratings: what they say comes out, what they do not say stays, and how sure it is."""

from __future__ import annotations

import random
from dataclasses import asdict, replace

import numpy as np
import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Rated
from scheduler.decide.fit import FITTED, Fit, _encoded, _Table, _values, fit
from scheduler.decide.qoe import QoeSettings, qoe

pytest.importorskip("scipy", reason="the extra qoe (scipy) is not installed")

NOW = QoeSettings()
TRUE = QoeSettings(
    draft_weight_iterate=0.75,
    draft_weight_render=0.3,
    draft_best_s=1.0,
    draft_worst_s=5.0,
    final_best_s=3.0,
    final_worst_s=30.0,
)


def expected(rated: Rated, by: QoeSettings) -> float:
    return qoe(
        by,
        intent="iterate" if rated.iterating else "render",
        draft_quality=rated.draft_quality,
        draft_s=rated.draft_s,
        final_quality=rated.final_quality,
        final_s=rated.final_s,
    )


def asked(rng: random.Random, rater: str) -> Rated:
    """A video of some waits and qualities."""
    return Rated(
        rater=rater,
        iterating=rng.random() < 0.5,
        stars=3,
        draft_s=None if rng.random() < 0.1 else rng.lognormvariate(0.5, 1.0),
        draft_quality=rng.uniform(2.5, 4.5),
        final_s=None if rng.random() < 0.2 else rng.lognormvariate(2.5, 1.0),
        final_quality=rng.uniform(3.5, 5.0),
    )


def ratings(by: QoeSettings, *, raters: int, each: int, mild: float = 0.0, seed: int = 1) -> list[Rated]:
    """People who follow these settings, each with a taste and moods of their own."""
    rng = random.Random(seed)
    found = []
    for number in range(raters):
        taste = rng.gauss(mild, 0.3)
        for _ in range(each):
            one = asked(rng, f"rater-{number}")
            stars = round(expected(one, by) + taste + rng.gauss(0.0, 0.5))
            found.append(replace(one, stars=min(5, max(1, stars))))
    return found


def values(found: Fit) -> dict[str, float]:
    return {value.name: value.fitted for value in found.values}


def test_many_ratings_are_taken_together_as_one_by_one() -> None:
    rng = random.Random(3)
    some = [asked(rng, "a") for _ in range(200)]
    together = _Table.of(some).expected(_encoded(TRUE))
    assert together == pytest.approx([expected(one, TRUE) for one in some], abs=1e-9)
    assert _values(_encoded(TRUE)) == pytest.approx([getattr(TRUE, name) for name in FITTED])


def test_what_people_value_otherwise_comes_out_and_is_told_to_be_better() -> None:
    found = fit(ratings(TRUE, raters=40, each=20), NOW, prior=NOW, seed=7, resamples=30)
    assert found.better
    assert found.error_fitted < found.error_now - 0.05
    for value in found.values:
        true = getattr(TRUE, value.name)
        nearer = abs(np.log(value.fitted / true)) < abs(np.log(value.now / true))
        assert nearer, value
    apart = {value.name for value in found.values if value.told_apart}
    assert {"draft_weight_iterate", "draft_worst_s", "final_worst_s"} <= apart


def test_intervals_hold_what_is_true_about_as_often_as_they_say() -> None:
    """Of four sets of ratings with six values each 19 or more, where 95 % are promised, less the pull of the prior."""
    held = 0
    for seed in range(4):
        found = fit(ratings(TRUE, raters=30, each=12, seed=seed), NOW, prior=NOW, seed=7, resamples=30)
        held += sum(value.low <= getattr(TRUE, value.name) <= value.high for value in found.values)
    assert held >= 19


def test_ratings_that_agree_with_the_values_in_force_are_no_reason_for_others() -> None:
    found = fit(ratings(NOW, raters=40, each=20), NOW, prior=NOW, seed=7, resamples=30)
    assert not found.better
    assert sum(value.told_apart for value in found.values) <= 1
    for value in found.values:
        assert value.fitted == pytest.approx(value.now, rel=0.35)


def test_few_ratings_move_little_and_are_called_few() -> None:
    found = fit(ratings(TRUE, raters=3, each=2), NOW, prior=NOW, seed=7, resamples=30)
    assert not found.better
    assert any("few" in note for note in found.notes)
    for value in found.values:
        assert 0.4 < value.fitted / value.now < 2.5


def test_milder_people_are_no_other_values() -> None:
    found = fit(ratings(NOW, raters=40, each=20, mild=0.5), NOW, prior=NOW, seed=7, resamples=30)
    assert found.offset_stars == pytest.approx(0.5, abs=0.15)
    assert not found.better


@pytest.mark.parametrize("stars", [1, 5])
def test_whatever_people_say_the_outcome_is_a_legal_policy(stars: int) -> None:
    alike = [replace(one, stars=stars) for one in ratings(NOW, raters=12, each=10)]
    found = fit(alike, NOW, prior=NOW, seed=7, resamples=30)
    QoeSettings(**{**asdict(NOW), **values(found)})
    for value in found.values:
        assert value.low <= value.fitted * 1.01 and value.fitted <= value.high * 1.01


def test_what_no_rating_tells_of_is_said() -> None:
    alike = [replace(one, iterating=True, draft_s=1.0) for one in ratings(NOW, raters=2, each=30)]
    notes = " ".join(fit(alike, NOW, prior=NOW, seed=7, resamples=30).notes)
    for words in ("No rating tells of draft_weight_render", "waits for the draft are alike", "fewer than 10 raters"):
        assert words in notes


def test_the_same_ratings_and_seed_give_the_same_answer() -> None:
    some = ratings(TRUE, raters=12, each=5)
    assert fit(some, NOW, prior=NOW, seed=7, resamples=30) == fit(some, NOW, prior=NOW, seed=7, resamples=30)


def test_ratings_that_were_fitted_to_before_do_not_count_twice() -> None:
    some = ratings(TRUE, raters=30, each=12)
    first = fit(some, NOW, prior=NOW, seed=7, resamples=30)
    again = fit(some, replace(NOW, **values(first)), prior=NOW, seed=7, resamples=30)
    assert values(again) == pytest.approx(values(first))
    assert first.better and not again.better


@pytest.mark.parametrize("some", [2, 49])
def test_a_handful_of_ratings_is_never_sure_to_be_better(some: int) -> None:
    alike = [replace(one, stars=1) for one in ratings(NOW, raters=49, each=1)][:some]
    assert not fit(alike, NOW, prior=NOW, seed=7, resamples=5).better


def test_many_ratings_of_few_people_are_never_sure_to_be_better() -> None:
    assert not fit(ratings(TRUE, raters=4, each=40), NOW, prior=NOW, seed=7, resamples=5).better


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_fit_anything_are_refused(count: int) -> None:
    with pytest.raises(InvalidRequest, match="2 or more"):
        fit(ratings(NOW, raters=1, each=1)[:count], NOW, prior=NOW, seed=7, resamples=30)
