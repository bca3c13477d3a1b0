"""The quality table of a report: how good clips are by plan, steps and size. Cards carry it to the scheduler. Pure.

All lines are of the same prompts, so that they differ by how clips are made alone. Q on the scale 1..5 is 1 + 4 A S, A
the mean attribute accuracy, S = log2(side) / log2(256) for sharpness: an assumption until people's ratings replace it.
"""

import math
from dataclasses import dataclass

from adaptivegen.models.card import ScoredPlan
from training.evaluate import Figures, Recipe
from training.statistics import Figure

DRAFT_STEPS_TRIED, CLOUD_STEPS_TRIED, REFINE_STEPS_TRIED = (1, 2), (4, 8), (2,)  # beside the defaults


@dataclass(frozen=True, slots=True)
class Way:
    """How clips are made, with the other settings a model's own. steps: of the model that is scored."""

    plan: ScoredPlan
    steps: int
    side: int


@dataclass(frozen=True, slots=True)
class Scored:
    """One line of the table: accuracy by attribute and its mean, and Q."""

    way: Way
    accuracy: Figures

    @property
    def mos(self) -> Figure:
        """Q of clips made so."""
        return mean_opinion(self.accuracy, self.way.side)


def mean_opinion(accuracy: Figures, side: int) -> Figure:
    """Q of clips of `side` pixels; the interval propagates the mean interval of the accuracies."""
    sharp = math.log2(side) / 8.0
    mean = accuracy["mean"]
    low, middle, high = (1.0 + 4.0 * sharp * part for part in (mean.low, mean.value, mean.high))
    return Figure(middle, low, high, mean.n)


def draft_ways(recipe: Recipe) -> list[Way]:
    """What is tried of a draft model."""
    return [Way("draft", steps, recipe.side) for steps in sorted({*DRAFT_STEPS_TRIED, recipe.steps})]


def final_ways(recipe: Recipe, refine_steps: int, sides: tuple[int, ...]) -> list[Way]:
    """What is tried of a cloud model: every plan at the same sizes, so that plans of one request compare."""
    cloud, refine = sorted({*CLOUD_STEPS_TRIED, recipe.steps}), sorted({*REFINE_STEPS_TRIED, refine_steps})
    return [
        *(Way("cloud", steps, side) for side in sides for steps in cloud),
        *(Way("refine", steps, side) for side in sides for steps in refine),
    ]
