"""How content a user is expected to be, from 1 to 5, and what a cloud second costs in that currency. Pure.

QoE = 1 + w (Qd - 1) D(td; 0.5, 10) + (1 - w) (Qf - 1) D(tf; 5, 120)
D(t; b, m) = clip(1 - ln(t/b) / ln(m/b), 0, 1)

Waiting counts by its logarithm (Egger et al. 2012; ITU-T G.1030). Qd and Qf are the measured qualities of draft and
final, td and tf the seconds until each is there. The anchors are guesses until ratings are collected: settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from adaptivegen.errors import SettingsInvalid
from adaptivegen.models.card import ModelCard, ScoredPlan

WORST, BEST = 1.0, 5.0
LEAST_S, LONGEST_S = 1e-3, 7 * 86400.0  # of an anchor
NEAREST = 0.99  # that the best may come to the worst: their logarithms are divided by
DEAREST = 1e6  # QoE points of a cloud second
NEVER_S = 1e9  # no wait is as long


@dataclass(frozen=True, slots=True)
class QoeSettings:
    """Weights of the draft by intent, anchors of waiting in seconds, and qualities assumed for unmeasured models."""

    draft_weight_iterate: float = 0.5
    draft_weight_render: float = 0.15
    draft_best_s: float = 0.5
    draft_worst_s: float = 10.0
    final_best_s: float = 5.0
    final_worst_s: float = 120.0
    unmeasured_draft: float = 2.5
    unmeasured_final: float = 3.5

    def __post_init__(self) -> None:
        for name in ("draft_weight_iterate", "draft_weight_render"):
            _check(name, getattr(self, name), 0.0, 1.0)
        for part in ("draft", "final"):
            worst_s = getattr(self, f"{part}_worst_s")
            _check(f"{part}_worst_s", worst_s, 2 * LEAST_S, LONGEST_S)
            _check(f"{part}_best_s", getattr(self, f"{part}_best_s"), LEAST_S, worst_s * NEAREST)
        for name in ("unmeasured_draft", "unmeasured_final"):
            _check(name, getattr(self, name), WORST, BEST)

    def draft_weight(self, intent: str) -> float:
        """w: what the draft counts for."""
        return self.draft_weight_iterate if intent == "iterate" else self.draft_weight_render


@dataclass(frozen=True, slots=True)
class Costs:
    """QoE points one cloud second must bring. Higher when iterating: most of those finals would be thrown away."""

    cost_iterate: float = 1.0
    cost_render: float = 0.005

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name), 0.0, DEAREST)

    def of(self, gpu_s: float, *, intent: str) -> float:
        """What `gpu_s` cloud seconds cost, in QoE points."""
        return gpu_s * (self.cost_iterate if intent == "iterate" else self.cost_render)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # nor if it is no number
        raise SettingsInvalid(f"{name} is {value}; allowed: {least:g} to {most:g}", param=name)


def scarcity(settings: QoeSettings, *, final_quality: float, wait_s: float, work_s: float) -> float:
    """What one more cloud second costs those who wait, in QoE points. wait_s: until a worker is free for the last of
    them; work_s: of a worker that a final needs on average.

    In overload each of the `wait_s / work_s` finals behind it comes later by a second, for which the logarithm of
    waiting takes the worth of a final over `wait_s`; so the length of the wait falls out, and a second costs as much as
    it could do. Below the wait that still pleases fully nobody is late yet, but may become so by what else arrives: it
    grows with the wait.
    """
    most = _scarcest(settings, final_quality=final_quality, work_s=work_s)
    return most * min(1.0, max(0.0, wait_s) / settings.final_best_s)


def scarce_from(settings: QoeSettings, price: float, *, final_quality: float, work_s: float) -> float:
    """The wait from which on a cloud second costs those who wait more than `price`, in QoE points; NEVER_S for none."""
    most = _scarcest(settings, final_quality=final_quality, work_s=work_s)
    return settings.final_best_s * max(0.0, price) / most if price < most else NEVER_S


def _scarcest(settings: QoeSettings, *, final_quality: float, work_s: float) -> float:
    """In the longest line."""
    weight = (settings.draft_weight_iterate + settings.draft_weight_render) / 2
    worth = (1.0 - weight) * (final_quality - WORST)
    return worth / (max(work_s, LEAST_S) * math.log(settings.final_worst_s / settings.final_best_s))


def patience(wait_s: float, *, best_s: float, worst_s: float) -> float:
    """D: 1 up to `best_s`, 0 from `worst_s` on, falling with the logarithm between them."""
    if wait_s <= best_s:
        return 1.0
    return min(1.0, max(0.0, 1.0 - math.log(wait_s / best_s) / math.log(worst_s / best_s)))


def qoe(
    settings: QoeSettings,
    *,
    intent: str,
    draft_quality: float,
    draft_s: float | None,
    final_quality: float,
    final_s: float | None,
) -> float:
    """The function above; a part that never comes (None) adds nothing."""
    weight = settings.draft_weight(intent)
    value = WORST
    if draft_s is not None:
        seen = patience(draft_s, best_s=settings.draft_best_s, worst_s=settings.draft_worst_s)
        value += weight * (draft_quality - 1.0) * seen
    if final_s is not None:
        seen = patience(final_s, best_s=settings.final_best_s, worst_s=settings.final_worst_s)
        value += (1.0 - weight) * (final_quality - 1.0) * seen
    return value


def quality_of(
    card: ModelCard | None, plan: ScoredPlan, *, steps: int, width: int, height: int, assumed: float
) -> float:
    """The measured mean opinion score of clips made so, or the assumed one where none was measured.

    Of the card's scores of this plan those of the nearest size count, and between two numbers of steps the line through
    them over the logarithm of the steps; below the least and above the most it is theirs. A card without such scores
    has one for all its clips, or none.
    """
    if card is None:
        return assumed
    lines = [score for score in card.scores if score.plan == plan]
    if not lines:
        mos = card.quality.get("mos")
        return assumed if mos is None else _on_scale(mos.value)
    area = width * height
    nearest = min((score.width * score.height for score in lines), key=lambda other: abs(math.log(other / area)))
    points = sorted((score.steps, score.mos.value) for score in lines if score.width * score.height == nearest)
    below = max((point for point in points if point[0] <= steps), default=points[0])
    above = min((point for point in points if point[0] >= steps), default=points[-1])
    if below[0] == above[0]:
        return _on_scale(below[1])
    share = math.log(steps / below[0]) / math.log(above[0] / below[0])
    return _on_scale(below[1] + share * (above[1] - below[1]))


def _on_scale(value: float) -> float:
    return min(BEST, max(WORST, value))
