"""The report of the evaluation: every figure of the family on fixed seeds, as JSON and as pages of contact sheets.

Runs `evaluate`'s measures over the exported models; the cards and the tables of docs/models.md come from its result.
"""

import itertools
import json
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
from training.family import SPLIT
from training.judge import Judge, Seen
from training.scores import Scored, Way, draft_ways, final_ways, mean_opinion
from training.statistics import Figure, share
from training.tables import markdown
from training.train_judge import judge_accuracy

REAL_SEED, OTHER_SEED = 810_001, 820_001
FINAL_SEED = 1_000_000  # of the first final, so that finals are independent of the drafts, which begin at 0
SPLIT_AT = SPLIT.until  # where the draft takes a split generation over from the cloud
TASKS_TRIED: tuple[Task, ...] = ("animate", "extend", "interpolate")
T0_TRIED = (0.3, 0.5, 0.7)
SHEET_SIDE = 64
JUDGED_RENDERS = 2000  # enough that an interval about 99 % spans less than a point


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
        renders_judged = min(JUDGED_RENDERS, 25 * self.count)
        judge = {name: share(*counts) for name, counts in judge_accuracy(self.judge, renders_judged).items()}
        figures = {
            "judge": judge,
            "draft": draft,
            "cloud": cloud,
            "variants": variants,
            "refine": refine,
            "live": self._live(one.first(self.few)),
            "scores": self._scores(one, drafts, refine["split"]),
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
        """Streams redrawn in other colours, by strength and steps per chunk."""
        self.say(f"live: {len(one)} streams")
        return streams.measured(self.family.live, self.judge, one, REAL_SEED)

    def _draft_only(self, one: Asked) -> dict[str, Any]:
        """Paraphrases, words outside the grammar, tasks and diversity, which cheap drafts can show."""
        family, few = self.family, self.few
        section: dict[str, Any] = {}
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
        """The draft on frames of renders: moved, gone on with, filled in between, redrawn; and how renders go on."""
        starts = evaluate.real_clips(one.scenes, REAL_SEED)
        section: dict[str, Figures] = {}
        for task in TASKS_TRIED:
            self.say(f"{task}: {len(one)} clips")
            clips = evaluate.make_clips(
                self.family.draft, one.prompts, self.family.draft_recipe, starts=starts, task=task
            )
            section[task] = evaluate.accuracy(evaluate.seen(self.judge, clips), one.scenes)
        section["restyle"] = self._restyled(one)
        later = evaluate.real_clips(one.scenes, REAL_SEED, begin=0.5)  # what an extension should be read as
        section["renders gone on with"] = evaluate.accuracy(evaluate.seen(self.judge, later), one.scenes)
        return section

    def _restyled(self, one: Asked) -> Figures:
        """Renders of the same things elsewhere and in another light, redrawn where and as the prompt says.

        `track_3%` is the share of objects that stay where they are in the render.
        """
        self.say(f"restyle: {len(one)} clips")
        sources = evaluate.real_clips([evaluate.elsewhere(scene) for scene in one.scenes], REAL_SEED)
        clips = evaluate.make_clips(self.family.draft, one.prompts, self.family.draft_recipe, starts=sources)
        found, before = evaluate.seen(self.judge, clips), evaluate.seen(self.judge, sources)
        kept = evaluate.agreement(before, found, one.scenes)
        return evaluate.accuracy(found, one.scenes) | {"track_3%": kept["track_3%"]}

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
            clips = self._refined(family.cloud, one.first(count), recipe, drafts, t0)
            found = evaluate.seen(self.judge, clips)
            kept = evaluate.agreement(found_drafts, found, one.scenes[:count])
            section["t0"][f"{t0:g}"] = {"kept": kept, "accuracy": evaluate.accuracy(found, one.scenes[:count])}
            if t0 == family.t0:
                chosen = clips
        same = self._made("finals of the drafts' seeds", family.cloud, one.first(self.few), family.cloud_recipe)[1]
        section["same_seed"] = evaluate.agreement(found_drafts, same, one.scenes[: self.few])
        section["split"] = self._split(one)
        section["independent"] = evaluate.agreement(found_drafts, found_finals, one.scenes)
        return section, chosen

    def _scores(self, one: Asked, drafts: list[Clip], split: dict[str, Any]) -> dict[str, list[Scored]]:
        """The quality table by model, all of the same few prompts."""
        family, sides = self.family, (self.family.cloud_recipe.side, self.family.draft_recipe.side)
        lines = {family.draft.card.name: self._tried(family.draft, draft_ways(family.draft_recipe), one, drafts)}
        for model in (family.cloud, *family.variants.values()):
            ways = final_ways(family.cloud_recipe, family.refine_steps, sides if model is family.cloud else sides[:1])
            lines[model.card.name] = self._tried(model, ways, one, drafts)
        way = Way("split", split["steps"][0], family.draft_recipe.side)
        lines[family.cloud.card.name].append(Scored(way, split["accuracy"]))
        return lines

    def _tried(self, model: Generator, ways: Sequence[Way], one: Asked, drafts: list[Clip]) -> list[Scored]:
        """One model in all these ways."""
        some, lines = one.first(self.few), []
        for way in ways:
            self.say(f"{model.card.name} by {way.plan} in {way.steps} steps of {way.side} pixels: {len(some)} clips")
            default = self.family.draft_recipe if way.plan == "draft" else self.family.cloud_recipe
            recipe = replace(default, steps=way.steps, side=way.side)
            if way.plan == "refine":
                clips = self._refined(model, some, recipe, drafts, self.family.t0)
            else:
                clips = evaluate.make_clips(model, some.prompts, recipe)
            lines.append(Scored(way, evaluate.accuracy(evaluate.seen(self.judge, clips), some.scenes)))
        return lines

    def _refined(self, model: Generator, one: Asked, recipe: Recipe, drafts: list[Clip], t0: float) -> list[Clip]:
        """The drafts of these prompts, made final."""
        starts = drafts[: len(one)]
        return evaluate.make_clips(model, one.prompts, recipe, starts=starts, strength=t0, task="refine")

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
    if isinstance(value, Scored):
        return plain(asdict(value.way) | {"accuracy": value.accuracy, "mos": value.mos})
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


def write(figures: dict[str, Any], sheets: dict[str, list[list[Clip]]], folder: Path) -> None:
    """report.json, report.md and one PNG per page into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(plain(figures), indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(figures), encoding="utf-8")
    for name, rows in sheets.items():
        Image.fromarray(contact_sheet(rows)).quantize(192).save(folder / f"{name}.png", optimize=True)
