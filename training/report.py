"""The report of the evaluation: every figure of the family on fixed seeds, as JSON and as pages of contact sheets.

Runs `evaluate`'s measures over the exported models; the cards and the tables of docs/models.md come from its result.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptivegen.models.base import Clip, Generator, SplitGenerator, Task
from adaptivegen.models.cascade import Networks
from training import evaluate, streams
from training.evaluate import Asked, Figures, Recipe
from training.judge import Judge, Seen
from training.statistics import Figure, share
from training.tables import markdown
from training.train_judge import judge_accuracy

REAL_SEED, OTHER_SEED = 810_001, 820_001
FINAL_SEED = 1_000_000  # of the first final, so that finals are independent of the drafts, which begin at 0
SPLIT_AT = 0.5  # where the draft takes a split generation over from the cloud
TASKS_TRIED: tuple[Task, ...] = ("animate", "extend", "interpolate")
T0_TRIED = (0.3, 0.5, 0.7)
DRAFT_STEPS_TRIED = (1, 2, 4)
SHEET_SIDE = 64


@dataclass(frozen=True, slots=True)
class Family:
    """The opened models and how they are run by default.

    whole: the draft before it was rounded to int8; variants: of the cloud, by name, run as the cloud is; live: the
    draft's networks, for streams.
    """

    draft: SplitGenerator
    whole: Generator
    cloud: SplitGenerator
    variants: dict[str, SplitGenerator]
    live: Networks
    draft_recipe: Recipe
    cloud_recipe: Recipe
    refine_steps: int
    t0: float


@dataclass(frozen=True, slots=True)
class Renders:
    """Real clips of the asked scenes, what the judge reads in them, and in a second set with another seed."""

    clips: list[Clip]
    found: Seen
    other: Seen


@dataclass(slots=True)
class Evaluation:
    """One run over the family: `count` clips per large set, a third of it per small one."""

    family: Family
    judge: Judge
    count: int
    say: Callable[[str], None]

    @property
    def few(self) -> int:
        """Clips of a small set."""
        return max(8, self.count // 3)

    def run(self) -> tuple[dict[str, Any], dict[str, list[list[Clip]]]]:
        """All figures by section, and the clips of the contact sheets as rows by page."""
        one, two = (evaluate.asked(self.count, n, novel=novel) for n, novel in ((1, True), (2, None)))
        drafts, found_drafts = self._made("drafts", self.family.draft, one, self.family.draft_recipe)
        finals, found_finals = self._made("finals", self.family.cloud, one, self.family.cloud_recipe, FINAL_SEED)
        renders = self._renders(one)
        draft = self._section(found_drafts, drafts, one, renders, self.family.draft_recipe) | self._draft_only(one)
        whole = self._made("drafts in float32", self.family.whole, one, self.family.draft_recipe)[1]
        draft["whole"] = evaluate.accuracy(whole, one.scenes)
        cloud = self._section(found_finals, finals, one, renders, self.family.cloud_recipe)
        for name, section, model, recipe in (
            ("draft", draft, self.family.draft, self.family.draft_recipe),
            ("cloud", cloud, self.family.cloud, self.family.cloud_recipe),
        ):
            clips, found = self._made(f"{name}, two objects", model, two, recipe)
            section["two"] = evaluate.accuracy(found, two.scenes)
            if name == "draft":
                pairs = clips
        refine, refined = self._refine(one, drafts, found_drafts, found_finals)
        variants = {name: self._variant(model, one, two) for name, model in self.family.variants.items()}
        judge = {
            name: share(*counts) for name, counts in judge_accuracy(self.judge, min(1000, 10 * self.count)).items()
        }
        figures = {
            "judge": judge,
            "draft": draft,
            "cloud": cloud,
            "variants": variants,
            "refine": refine,
            "live": self._live(one.first(self.few)),
            "count": self.count,
        }
        rows = 12
        sheets = {
            "drafts-and-finals": [list(row) for row in zip(drafts[:rows], refined[:rows], finals[:rows], strict=True)],
            "two-objects": in_rows(pairs[: 3 * rows], 3),
        }
        return figures, sheets

    def _made(
        self, label: str, model: Generator, asked: Asked, recipe: Recipe, seed: int = 0
    ) -> tuple[list[Clip], Seen]:
        """One clip per prompt, with seeds from `seed` on."""
        self.say(f"{label}: {len(asked)} clips of {recipe.side} pixels in {recipe.steps} steps")
        clips = evaluate.make_clips(model, asked.prompts, recipe, seeds=itertools.count(seed))
        return clips, evaluate.seen(self.judge, clips)

    def _renders(self, one: Asked) -> Renders:
        """What both models are compared with on one-object scenes."""
        clips, other = (evaluate.real_clips(one.scenes, seed) for seed in (REAL_SEED, OTHER_SEED))
        return Renders(clips, evaluate.seen(self.judge, clips), evaluate.seen(self.judge, other))

    def _section(
        self, found: Seen, clips: Sequence[Clip], one: Asked, renders: Renders, recipe: Recipe
    ) -> dict[str, Any]:
        """What is measured of both models on one-object scenes."""
        accuracy = evaluate.accuracy(found, one.scenes)
        return {
            "one": accuracy,
            "motions": evaluate.motion_table(found, one.scenes),
            "trajectory_error": evaluate.trajectory_error(found, one.scenes),
            "trajectory_error_real": evaluate.trajectory_error(renders.found, one.scenes),
            "flicker": evaluate.flicker(clips),
            "flicker_real": evaluate.flicker(renders.clips),
            **evaluate.distance_ratio(found, renders.found, renders.other),
            "mos": mean_opinion(accuracy, recipe.side),
        }

    def _variant(self, model: Generator, one: Asked, two: Asked) -> dict[str, Any]:
        """A variant of the cloud on the cloud's prompts and seeds."""
        recipe, name = self.family.cloud_recipe, model.card.name
        accuracy = evaluate.accuracy(self._made(name, model, one, recipe, FINAL_SEED)[1], one.scenes)
        some = two.first(self.few)
        pairs = self._made(f"{name}, two objects", model, some, recipe)[1]
        two_objects = evaluate.accuracy(pairs, some.scenes)
        return {"one": accuracy, "two": two_objects, "mos": mean_opinion(accuracy, recipe.side)}

    def _live(self, one: Asked) -> dict[str, Any]:
        """Streams redrawn in other colours, by the steps per chunk."""
        self.say(f"live: {len(one)} streams")
        return streams.measured(self.family.live, self.judge, one, REAL_SEED)

    def _draft_only(self, one: Asked) -> dict[str, Any]:
        """Steps, paraphrases, words outside the grammar and diversity, which cheap drafts can show."""
        family, few = self.family, self.few
        section: dict[str, Any] = {"steps": {}}
        for steps in DRAFT_STEPS_TRIED:
            recipe = replace(family.draft_recipe, steps=steps)
            found = self._made("drafts by steps", family.draft, one.first(few), recipe)[1]
            section["steps"][str(steps)] = evaluate.accuracy(found, one.scenes[:few])
        held = evaluate.asked(few, 1, novel=True, held=True)
        found = self._made("held-out wordings", family.draft, held, family.draft_recipe)[1]
        section["paraphrased"] = evaluate.accuracy(found, held.scenes)
        strange = evaluate.out_of_grammar()
        found = self._made("out of grammar", family.draft, strange, family.draft_recipe)[1]
        section["out_of_grammar"] = evaluate.accuracy(found, strange.scenes)
        section["tasks"] = self._tasks(one.first(few))
        groups, real_groups = [], []
        for prompt, scene in zip(one.prompts[:8], one.scenes[:8], strict=True):
            seeds = range(1000, 1000 + evaluate.SEEDS_PER_PROMPT)
            clips = evaluate.make_clips(family.draft, [prompt] * len(seeds), family.draft_recipe, seeds=seeds)
            groups.append(evaluate.seen(self.judge, clips))
            real = evaluate.real_clips([scene] * len(seeds), REAL_SEED)
            real_groups.append(evaluate.seen(self.judge, real))
        return section | evaluate.diversity(groups, real_groups)

    def _tasks(self, one: Asked) -> dict[str, Figures]:
        """The draft on frames of renders: the first one moved, a clip gone on with, its ends filled in between."""
        starts = evaluate.real_clips(one.scenes, REAL_SEED)
        section: dict[str, Figures] = {}
        for task in TASKS_TRIED:
            self.say(f"{task}: {len(one)} clips")
            clips = evaluate.make_clips(
                self.family.draft, one.prompts, self.family.draft_recipe, starts=starts, task=task
            )
            section[task] = evaluate.accuracy(evaluate.seen(self.judge, clips), one.scenes)
        return section

    def _refine(
        self, one: Asked, drafts: list[Clip], found_drafts: Seen, found_finals: Seen
    ) -> tuple[dict[str, Any], list[Clip]]:
        """Refined finals beside others: what of the draft is kept, and whether quality suffers.

        The others are made from noise: with the draft's seed, which gives the same layout, or with another.
        """
        family = self.family
        recipe = replace(family.cloud_recipe, steps=family.refine_steps)
        section: dict[str, Any] = {"t0": {}, "steps": recipe.steps, "default_t0": family.t0}
        chosen: list[Clip] = []
        for t0 in sorted({*T0_TRIED, family.t0}):
            count = len(one) if t0 == family.t0 else self.few
            self.say(f"refine from t0 {t0:g}: {count} clips in {recipe.steps} steps")
            clips = evaluate.make_clips(
                family.cloud, one.prompts[:count], recipe, starts=drafts[:count], strength=t0, task="refine"
            )
            found = evaluate.seen(self.judge, clips)
            kept = evaluate.agreement(found_drafts, found, one.scenes[:count])
            section["t0"][f"{t0:g}"] = {"kept": kept, "accuracy": evaluate.accuracy(found, one.scenes[:count])}
            if t0 == family.t0:
                chosen = clips
                section["mos"] = mean_opinion(section["t0"][f"{t0:g}"]["accuracy"], recipe.side)
        same = self._made("finals of the drafts' seeds", family.cloud, one.first(self.few), family.cloud_recipe)[1]
        section["same_seed"] = evaluate.agreement(found_drafts, same, one.scenes[: self.few])
        section["split"] = self._split(one)
        section["independent"] = evaluate.agreement(found_drafts, found_finals, one.scenes)
        return section, chosen

    def _split(self, one: Asked) -> dict[str, Any]:
        """Half of the flow on the cloud in half of its steps, the rest by the draft in half of its own."""
        family, count = self.family, self.few
        cloud, draft = family.cloud_recipe, family.draft_recipe
        first, second = (replace(part, steps=max(1, part.steps // 2), side=draft.side) for part in (cloud, draft))
        self.say(f"split at {SPLIT_AT:g}: {count} clips in {first.steps} and {second.steps} steps")
        clips = evaluate.split_clips(family.cloud, family.draft, one.prompts[:count], (first, second), SPLIT_AT)
        found = evaluate.seen(self.judge, clips)
        return {
            "at": SPLIT_AT,
            "steps": [first.steps, second.steps],
            "accuracy": evaluate.accuracy(found, one.scenes[:count]),
        }


def mean_opinion(accuracy: Figures, side: int) -> Figure:
    """Q on the scale 1..5: 1 + 4 A S, A the mean attribute accuracy, S = log2(side) / log2(256) for sharpness.

    An assumption until people's ratings replace it; the interval propagates the mean interval of the accuracies.
    """
    sharp = math.log2(side) / 8.0
    mean = accuracy["mean"]
    low, middle, high = (1.0 + 4.0 * sharp * part for part in (mean.low, mean.value, mean.high))
    return Figure(middle, low, high, mean.n)


def in_rows(clips: list[Clip], width: int) -> list[list[Clip]]:
    """Whole rows of `width` clips, or one row of fewer; what does not fill a row is left out."""
    width = min(width, len(clips))
    return [clips[start : start + width] for start in range(0, len(clips) - width + 1, width)]


def contact_sheet(rows: Sequence[Sequence[Clip]], instants: int = 4, side: int = SHEET_SIDE) -> NDArray[np.uint8]:
    """One image: each row of clips side by side, `instants` frames each, shrunk to side x side by averaging."""
    lines = []
    for clips in rows:
        tiles = []
        for clip in clips:
            picks = np.linspace(0, len(clip) - 1, instants).round().astype(int)
            step = clip.shape[1] // side
            blocks = clip[picks].reshape(instants, side, step, side, step, 3).mean((2, 4))
            tiles += [*blocks.round().astype(np.uint8), np.full((side, 4, 3), 255, np.uint8)]
        lines.append(np.concatenate(tiles, axis=1))
        lines.append(np.full((4, lines[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(lines)


def plain(value: Any) -> Any:
    """Figures as rounded JSON values."""
    if isinstance(value, Figure):
        return {key: round(part, 4) for key, part in asdict(value).items()}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def write(figures: dict[str, Any], sheets: dict[str, list[list[Clip]]], folder: Path) -> None:
    """report.json, report.md and one PNG per page into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(plain(figures), indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(figures), encoding="utf-8")
    for name, rows in sheets.items():
        Image.fromarray(contact_sheet(rows)).quantize(192).save(folder / f"{name}.png", optimize=True)
