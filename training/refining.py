"""From where, and in how many steps, a draft is made final: every pair of t0 and steps tried on the same drafts.

What is looked for is the fewest steps whose finals keep their drafts and are read as well as finals from noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from adaptivegen.models.base import Generator
from training import evaluate
from training.evaluate import Asked, Figures, Recipe
from training.judge import Judge
from training.statistics import Figure
from training.tables import percent, table

T0_TRIED = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
STEPS_TRIED = (2, 3, 4, 6)
KEPT, NEAR = 0.97, 0.97  # least share of readings kept, and of tracks within 3 % of the frame
SIDE = 128  # the judge looks at 64 pixels, so the doubled size would only cost time


@dataclass(frozen=True, slots=True)
class Trial:
    """Finals refined from t0 in so many steps: what they keep of their drafts, and how they are read."""

    t0: float
    steps: int
    kept: Figure
    near: Figure
    accuracy: Figures

    @property
    def good(self) -> bool:
        """Whether they keep their drafts."""
        return self.kept.value >= KEPT and self.near.value >= NEAR


@dataclass(frozen=True, slots=True)
class Search:
    """All trials, and finals of the same prompts and seeds from noise."""

    trials: list[Trial]
    noise: Figures

    def best(self) -> Trial | None:
        """The fewest steps that are good and no worse than from noise; then the best read; None where none is."""
        enough = [
            trial for trial in self.trials if trial.good and trial.accuracy["mean"].value >= self.noise["mean"].value
        ]
        return min(enough, key=lambda trial: (trial.steps, -trial.accuracy["mean"].value), default=None)


def search(
    draft: Generator,
    cloud: Generator,
    recipes: Mapping[str, Recipe],
    judge: Judge,
    asked: Asked,
    say: Callable[[str], None],
) -> Search:
    """Run all trials. recipes: "draft" and "cloud"."""
    drafts = evaluate.make_clips(draft, asked.prompts, recipes["draft"])
    found = evaluate.seen(judge, drafts)
    whole = replace(recipes["cloud"], side=SIDE)
    noise = evaluate.seen(judge, evaluate.make_clips(cloud, asked.prompts, whole))
    trials = []
    for t0 in T0_TRIED:
        for steps in STEPS_TRIED:
            say(f"refining from {t0:g} in {steps} steps")
            clips = evaluate.make_clips(
                cloud, asked.prompts, replace(whole, steps=steps), starts=drafts, strength=t0, task="refine"
            )
            refined = evaluate.seen(judge, clips)
            kept = evaluate.agreement(found, refined, asked.scenes)
            accuracy = evaluate.accuracy(refined, asked.scenes)
            trials.append(Trial(t0, steps, kept["kept"], kept["track_3%"], accuracy))
    return Search(trials, evaluate.accuracy(noise, asked.scenes))


def markdown(result: Search) -> str:
    """A table of the trials, the line from noise last."""
    rows = [
        [f"{trial.t0:g}", str(trial.steps), percent(trial.kept), percent(trial.near)]
        + [percent(trial.accuracy[name]) for name in ("mean", "all")]
        for trial in result.trials
    ]
    rows.append(["noise", "", "", "", *(percent(result.noise[name]) for name in ("mean", "all"))])
    return table(["t0", "steps", "kept", "tracks within 3 %", "attributes", "all right"], rows)
