"""Shares and means with their 95 % intervals, and the Frechet distance between two clouds of features. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.96


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval over n observations."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, n: int) -> Figure:
    """A proportion with Wilson's score interval."""
    if n == 0:
        return Figure(0.0, 0.0, 1.0, 0)
    p = hits / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Figure(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def mean(values: Sequence[float] | NDArray[np.float64]) -> Figure:
    """A mean with the normal interval of its standard error."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return Figure(0.0, 0.0, 0.0, 0)
    middle = float(data.mean())
    half = Z * float(data.std(ddof=1)) / math.sqrt(len(data)) if len(data) > 1 else 0.0
    return Figure(middle, middle - half, middle + half, len(data))


def average(figures: Sequence[Figure]) -> Figure:
    """The mean of figures, with the mean of their intervals."""
    count = len(figures)
    return Figure(
        sum(figure.value for figure in figures) / count,
        sum(figure.low for figure in figures) / count,
        sum(figure.high for figure in figures) / count,
        min(figure.n for figure in figures),
    )


def frechet(first: NDArray[np.float64], second: NDArray[np.float64], components: int = 32) -> float:
    """Frechet distance (Heusel et al. 2017) between features (N, F) and (M, F), on `components` principal axes.

    A few hundred clips cannot fill a covariance of hundreds of features, so both are first projected on the leading
    principal axes of the second, which is the reference.
    """
    from scipy.linalg import sqrtm

    centre = second.mean(0)
    axes = np.linalg.svd(second - centre, full_matrices=False)[2][:components].T  # (F, components)
    a, b = (first - centre) @ axes, (second - centre) @ axes
    cov_a, cov_b = (np.cov(part, rowvar=False) + 1e-6 * np.eye(axes.shape[1]) for part in (a, b))
    root = sqrtm(cov_a @ cov_b)
    gap = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    return gap + float(np.trace(cov_a + cov_b - 2 * np.real(root)))
