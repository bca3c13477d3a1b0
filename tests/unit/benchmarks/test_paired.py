"""The statistics of comparisons, against figures worked out by other means."""

from __future__ import annotations

import math

import pytest

from benchmarks.live.paired import holm, interval, paired, quantile


def test_an_interval_is_students() -> None:
    told = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert told.mean == 3.0
    assert told.half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-5)  # t of 4 degrees, by the table
    assert told.p == pytest.approx(0.0132355, rel=1e-4)  # of t = 4.242641


def test_differences_are_by_pairs() -> None:
    assert paired([2.0, 4.0, 6.0], [1.0, 3.0, 5.0]).mean == 1.0
    assert paired([2.0, 4.0, 6.0], [1.0, 3.0, 5.0]).half == 0.0
    with pytest.raises(ValueError):
        paired([1.0], [1.0, 2.0])


def test_one_value_tells_no_interval_and_none_nothing() -> None:
    told = interval([2.0])
    assert told.mean == 2.0 and math.isnan(told.half) and math.isnan(told.p)
    assert interval([0.0, 0.0]).p == 1.0
    assert interval([1.0, 1.0]).p == 0.0
    with pytest.raises(ValueError):
        interval([])


def test_holm_steps_down_and_never_falls() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert adjusted["a"] == pytest.approx(0.03)
    assert adjusted["c"] == pytest.approx(0.06)
    assert adjusted["b"] == pytest.approx(0.06)  # 0.04 alone would be less than the one before it
    assert math.isnan(adjusted["d"])
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_quantiles_lie_between_ranks() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0, 5.0], 0.5) == 3.0
    assert quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert quantile([7.0], 0.95) == 7.0
    assert math.isnan(quantile([], 0.5))
