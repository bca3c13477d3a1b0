"""The QoE function's weights and anchors from people's ratings, and how sure one may be of them. Pure.

Stars are taken for QoE plus a common offset (people are stricter or milder than a model's measured quality says) plus
noise. Fitted is by least squares, drawn towards what was believed before: with few ratings that stays, with many the
ratings decide. How sure one may be is told by fitting again, to ratings drawn anew (by rater where there are enough,
since one person's ratings are no independent evidence) and drawn towards a belief that is drawn anew as well
(randomised maximum a posteriori), lest the belief pass for evidence. Whether it is worth a change is told by ratings
that the fit did not see. Needs scipy, which the extra `qoe` brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Rated
from scheduler.decide.qoe import QoeSettings

NOISE_STARS = 1.0  # deviation of a rating, against which the deviations of `SHIFT` count
OFFSET_STARS = 0.5  # deviation of the common offset
SHIFT = (1.0, 1.0, 0.7, 0.4, 0.7, 0.4)  # how far a value is believed to be off before ratings: see `_encoded`
FEW, FEW_RATERS = 50, 10
RESAMPLES, FOLDS = 100, 5
FITTED = (
    "draft_weight_iterate",
    "draft_weight_render",
    "draft_best_s",
    "draft_worst_s",
    "final_best_s",
    "final_worst_s",
)
Floats = NDArray[np.float64]
_DEVIATIONS: Floats = np.array([*SHIFT, OFFSET_STARS])


@dataclass(frozen=True, slots=True)
class FittedValue:
    """One value of the policy: now, as fitted, and the 95 % interval of the fit."""

    name: str
    now: float
    fitted: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the ratings say that it is another than now."""
        return not self.low <= self.now <= self.high


@dataclass(frozen=True, slots=True)
class Fit:
    """What the ratings say. Errors are root mean squares in stars, of ratings that the fit had not seen.

    better: whether the fitted values are sure to be so, by raters it had not seen; never with few ratings or raters.
    """

    values: tuple[FittedValue, ...]
    ratings: int
    raters: int
    offset_stars: float
    error_now: float
    error_fitted: float
    better: bool
    notes: tuple[str, ...]


def fit(rated: Sequence[Rated], now: QoeSettings, *, prior: QoeSettings, seed: int, resamples: int = RESAMPLES) -> Fit:
    """Fit `FITTED` to ratings, and compare with the values in force now; the same seed, the same outcome.

    prior: what is believed before any rating, no earlier fit: else the same ratings would count twice; resamples: how
    often intervals draw the ratings anew. Raises InvalidRequest for fewer than two ratings.
    """
    if len(rated) < 2:
        raise InvalidRequest(f"{len(rated)} ratings can be fitted to; it takes 2 or more", param="ratings")
    table, centre = _Table.of(rated), _encoded(prior)
    rng = np.random.default_rng(seed)
    raters = sorted({one.rater for one in rated})
    by_rater = len(raters) >= FEW_RATERS
    groups = np.array([raters.index(one.rater) for one in rated]) if by_rater else np.arange(len(rated))
    best = _solved(table, centre, centre)
    drawn = []
    for _ in range(resamples):
        believed = centre + rng.normal(size=len(centre)) * _DEVIATIONS
        drawn.append(_values(_solved(table.rows(_drawn(groups, rng)), believed, best)))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    off_now, off_fitted = _unseen(table, groups, _encoded(now), centre, rng)
    values = tuple(
        FittedValue(name, getattr(now, name), *map(float, column))
        for name, column in zip(FITTED, zip(_values(best), low, high, strict=True), strict=True)
    )
    return Fit(
        values=values,
        ratings=len(rated),
        raters=len(raters),
        offset_stars=float(best[-1]),
        error_now=float(np.sqrt((off_now**2).mean())),
        error_fitted=float(np.sqrt((off_fitted**2).mean())),
        better=by_rater and len(rated) >= FEW and _surely_positive(off_now**2 - off_fitted**2, groups),
        notes=tuple(_notes(rated, by_rater=by_rater)),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Ratings as columns; a wait that never ended is infinite."""

    iterating: NDArray[np.bool_]
    stars: Floats
    draft_s: Floats
    draft_gain: Floats
    final_s: Floats
    final_gain: Floats

    @classmethod
    def of(cls, rated: Sequence[Rated]) -> _Table:
        def seconds(values: Sequence[float | None]) -> Floats:
            return np.array([math.inf if value is None else max(value, 1e-3) for value in values])

        return cls(
            iterating=np.array([one.iterating for one in rated]),
            stars=np.array([float(one.stars) for one in rated]),
            draft_s=seconds([one.draft_s for one in rated]),
            draft_gain=np.array([one.draft_quality - 1.0 for one in rated]),
            final_s=seconds([one.final_s for one in rated]),
            final_gain=np.array([one.final_quality - 1.0 for one in rated]),
        )

    def rows(self, chosen: NDArray[Any]) -> _Table:
        """These ratings only, as often as they are named."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self.__slots__})

    def expected(self, point: Floats) -> Floats:
        """Stars by the QoE function and the offset at a point of the fit."""
        iterate, render, draft_best_s, draft_worst_s, final_best_s, final_worst_s = _values(point)
        weight = np.where(self.iterating, iterate, render)
        drafts = self.draft_gain * _patience(self.draft_s, draft_best_s, draft_worst_s)
        finals = self.final_gain * _patience(self.final_s, final_best_s, final_worst_s)
        made: Floats = 1.0 + weight * drafts + (1.0 - weight) * finals + point[-1]
        return made


def _patience(wait_s: Floats, best_s: float, worst_s: float) -> Floats:
    """`scheduler.decide.qoe.patience` of many waits."""
    made: Floats = np.clip(1.0 - np.log(wait_s / best_s) / math.log(worst_s / best_s), 0.0, 1.0)
    return made


def _encoded(now: QoeSettings) -> Floats:
    """The point of the fit where the values in force are: logits of weights, and of anchors the logarithm of the best
    and of the logarithm of their ratio, so that every point is a legal policy. The offset is last."""

    def logit(share: float) -> float:
        share = min(0.99, max(0.01, share))
        return math.log(share / (1.0 - share))

    def anchors(best_s: float, worst_s: float) -> tuple[float, float]:
        return math.log(best_s), math.log(math.log(worst_s / best_s))

    weights = logit(now.draft_weight_iterate), logit(now.draft_weight_render)
    draft, final = anchors(now.draft_best_s, now.draft_worst_s), anchors(now.final_best_s, now.final_worst_s)
    return np.array([*weights, *draft, *final, 0.0])


def _values(point: Floats) -> Floats:
    """The values of `FITTED` at a point of the fit."""
    iterate, render, draft_best, draft_ratio, final_best, final_ratio = point[:-1]
    draft_worst, final_worst = draft_best + math.exp(draft_ratio), final_best + math.exp(final_ratio)
    weights = 1.0 / (1.0 + np.exp(-np.array([iterate, render])))
    return np.array([*weights, *np.exp([draft_best, draft_worst, final_best, final_worst])])


def _solved(table: _Table, centre: Floats, start: Floats, *, offset_only: bool = False) -> Floats:
    """The point that fits these ratings best, drawn towards `centre`."""
    from scipy.optimize import least_squares

    free = np.arange(len(centre)) >= (len(SHIFT) if offset_only else 0)

    def off(moved: Floats) -> Floats:
        point = centre.copy()
        point[free] = moved
        return np.concatenate([(table.expected(point) - table.stars) / NOISE_STARS, (point - centre) / _DEVIATIONS])

    point = centre.copy()
    low, high = centre - 4.0 * _DEVIATIONS, centre + 4.0 * _DEVIATIONS
    point[free] = least_squares(off, np.clip(start, low, high)[free], bounds=(low[free], high[free])).x
    return point


def _drawn(groups: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Rows of as many groups as there are, drawn with replacement."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return np.concatenate([members[chosen] for chosen in rng.integers(len(members), size=len(members))])


def _unseen(
    table: _Table, groups: NDArray[Any], now: Floats, centre: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """By how much stars are off, each by a fit that did not see its rating's group: of the offset alone, and of all."""
    names = np.unique(groups)
    fold_of = dict(zip(names.tolist(), rng.permutation(len(names)) % min(FOLDS, len(names)), strict=True))
    folds = np.array([fold_of[group] for group in groups.tolist()])
    off_now, off_fitted = np.zeros(len(groups)), np.zeros(len(groups))
    for fold in np.unique(folds):
        seen, unseen = table.rows(np.flatnonzero(folds != fold)), table.rows(np.flatnonzero(folds == fold))
        for off, around, offset_only in ((off_now, now, True), (off_fitted, centre, False)):
            point = _solved(seen, around, around, offset_only=offset_only)
            off[folds == fold] = unseen.expected(point) - unseen.stars
    return off_now, off_fitted


def _surely_positive(gains: Floats, groups: NDArray[Any]) -> bool:
    """Whether the mean gain is above twice its standard error, the ratings of a group counted as one."""
    means = np.array([gains[groups == group].mean() for group in np.unique(groups)])
    return bool(means.mean() > 2.0 * means.std(ddof=1) / math.sqrt(len(means)))


def _notes(rated: Sequence[Rated], *, by_rater: bool) -> list[str]:
    notes = []
    if len(rated) < FEW:
        notes.append(f"{len(rated)} ratings are few: what was believed before weighs as much as they do.")
    if not by_rater:
        notes.append(
            f"With fewer than {FEW_RATERS} raters tastes are not told from videos: nothing is sure to be better."
        )
    for name, iterating in (("draft_weight_iterate", True), ("draft_weight_render", False)):
        if not any(one.iterating == iterating for one in rated):
            notes.append(f"No rating tells of {name}.")
    for part, waits in (("draft", [r.draft_s for r in rated]), ("final", [r.final_s for r in rated])):
        seen = [wait for wait in waits if wait is not None]
        if not seen or max(seen) < 3.0 * max(min(seen), 0.1):
            notes.append(f"All waits for the {part} are alike, so its anchors are hardly told by these ratings.")
    return notes
