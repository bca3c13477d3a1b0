"""Paired comparisons over replications: means, t-intervals, p-values adjusted after Holm. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and half of its 95 % interval; p: of the mean being 0, two-sided. NaN where one value tells nothing."""

    mean: float
    half: float
    p: float


def interval(values: Sequence[float]) -> Interval:
    """By Student's t over the values, of which there is at least one; raises ValueError where there is none."""
    if not values:
        raise ValueError("no values")
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    error = statistics.stdev(values) / math.sqrt(count)
    half = float(student.ppf(0.5 + LEVEL / 2, count - 1)) * error
    if error == 0.0:
        return Interval(mean, 0.0, 1.0 if mean == 0.0 else 0.0)
    return Interval(mean, half, 2.0 * float(student.sf(abs(mean) / error, count - 1)))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Of the differences ours - theirs; raises ValueError where they are not pairs."""
    return interval([mine - other for mine, other in zip(ours, theirs, strict=True)])


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted for their number, step-down (Holm 1979); NaN stays NaN and counts for nothing."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, least = dict.fromkeys(p_values, math.nan), 0.0
    for rank, (p, name) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[name] = least
    return adjusted


def quantile(values: Sequence[float], level: float) -> float:
    """By linear interpolation between the nearest ranks; NaN of nothing."""
    if not values:
        return math.nan
    ranked = sorted(values)
    place = level * (len(ranked) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])
