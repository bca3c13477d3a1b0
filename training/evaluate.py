"""Measures what the exported models make, with the judge, through the very `Generator` that the services use.

Every function takes clips and what was asked of them and gives figures with intervals; `report` runs them all on fixed
seeds. Scenes, captions and seeds are none that training, or the judge's training, has seen.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from adaptivegen.models.base import Clip, GenerationInput, Generator, SplitGenerator, Task
from adaptivegen.models.latent import Latent
from training.captions import sample_caption
from training.grammar import (
    BACKGROUNDS,
    LIGHTINGS,
    MOTIONS,
    OBJECT_ATTRIBUTES,
    SCENE_ATTRIBUTES,
    Scene,
    Thing,
    sample_scene,
)
from training.judge import Judge, Seen, hard, judge_input
from training.statistics import Figure, average, frechet, mean, share
from training.world import clip_times, render, scene_batch, trajectory

EVALUATION_SEED = 700_001
SEEDS_PER_PROMPT = 4
NEAR = 0.03  # of the frame: how near two tracks are that count as one
Figures = dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts, and the scenes they describe."""

    scenes: list[Scene]
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def first(self, count: int) -> "Asked":
        """The first `count` of them."""
        return Asked(self.scenes[:count], self.prompts[:count])


@dataclass(frozen=True, slots=True)
class Recipe:
    """How clips are made: steps, guidance, side in pixels."""

    steps: int
    guidance: float
    side: int


def asked(count: int, objects: int, *, novel: bool | None, held: bool = False, seed: int = EVALUATION_SEED) -> Asked:
    """Seeded scenes of so many objects. novel: held-out combinations only; held: held-out wordings."""
    rng = random.Random(f"{seed} {objects} {novel}")
    scenes = [sample_scene(rng, counts=(objects,), novel=novel) for _ in range(count)]
    words = random.Random(f"{seed} {objects} words")
    return Asked(scenes, [sample_caption(scene, words, held=held) for scene in scenes])


OUT_OF_GRAMMAR: tuple[tuple[str, Scene], ...] = (
    ("crimson ball drifting west at dusk", Scene((Thing("circle", "red", motion="left"),), lighting="dusk")),
    ("a golden star leaping above the ocean", Scene((Thing("star", "yellow", motion="bounce"),), "sea")),
    ("an emerald cube climbing in the Alps", Scene((Thing("square", "green", motion="up"),), "mountains")),
    (
        "tiny azure hoop whirling round and round clockwise",
        Scene((Thing("ring", "blue", "small", motion="clockwise"),)),
    ),
    (
        "a jet-black cross falling among skyscrapers at midnight",
        Scene((Thing("cross", "black", motion="down"),), "city", lighting="night"),
    ),
    (
        "enormous pink valentine getting bigger in a snowstorm",
        Scene((Thing("heart", "pink", "big", motion="grow"),), "snow"),
    ),
    ("lavender rhombus floating skywards over grass", Scene((Thing("diamond", "purple", motion="up"),), "meadow")),
    ("snowy white pyramid turning in the cosmos", Scene((Thing("triangle", "white", motion="spin"),), "space")),
    (
        "the tangerine sphere rolls eastwards across dunes",
        Scene((Thing("circle", "orange", motion="right"),), "desert"),
    ),
    ("chocolate-coloured box sitting in a wood", Scene((Thing("square", "brown", motion="still"),), "forest")),
    ("aqua starfish sinking under a starry firmament", Scene((Thing("star", "cyan", motion="down"),), "space")),
    ("a silver disc vanishing into the distance in the sky", Scene((Thing("circle", "grey", motion="shrink"),), "sky")),
)


def out_of_grammar() -> Asked:
    """Prompts in words and forms that the grammar does not make, and what a person would expect of them."""
    return Asked([scene for _, scene in OUT_OF_GRAMMAR], [prompt for prompt, _ in OUT_OF_GRAMMAR])


def quiet(*_: object) -> None:
    """An on_step that ignores its report."""


def make_clips(
    model: Generator,
    prompts: Sequence[str],
    recipe: Recipe,
    *,
    starts: Sequence[Clip] | None = None,
    strength: float | None = None,
    task: Task = "restyle",
    seeds: Iterable[int] | None = None,
    report: Callable[[int], None] = quiet,
) -> list[Clip]:
    """One clip per prompt, seeds 0, 1, 2, ... unless given."""
    clips = []
    frames = model.card.limits.frame_counts()[0]
    for index, (prompt, seed) in enumerate(zip(prompts, seeds or itertools.count(), strict=False)):
        request = GenerationInput(prompt, seed, recipe.side, recipe.side, frames, recipe.steps, recipe.guidance)
        start = None if starts is None else starts[index]
        made = model.generate(
            request, start=start, strength=strength, task=task, on_step=quiet, should_stop=lambda: False
        )
        clips.append(made)
        report(index + 1)
    return clips


def split_clips(
    cloud: SplitGenerator, edge: SplitGenerator, prompts: Sequence[str], recipes: tuple[Recipe, Recipe], at: float
) -> list[Clip]:
    """One clip per prompt, seeds 0, 1, ...: begun by the cloud until `at`, sent as bytes, finished at the edge."""
    clips = []
    frames = edge.card.limits.frame_counts()[0]
    for seed, prompt in enumerate(prompts):
        first, second = (
            GenerationInput(prompt, seed, part.side, part.side, frames, part.steps, part.guidance) for part in recipes
        )
        latent = cloud.begin(first, at, on_step=quiet, should_stop=lambda: False)
        sent = Latent.from_bytes(latent.to_bytes())
        clips.append(edge.finish(second, sent, on_step=quiet, should_stop=lambda: False))
    return clips


def real_clips(
    scenes: Sequence[Scene], seed: int, side: int = 128, frames: int = 24, *, begin: float = 0.0
) -> list[Clip]:
    """Renders of the scenes with other jitter than any training clip, from their beginning or later."""
    batch = scene_batch(scenes, seed, begin=begin)
    parts = [render(batch.take(slice(i, i + 8)), frames, side, side).clip for i in range(0, len(scenes), 8)]
    return list(torch.cat(parts).numpy())


def elsewhere(scene: Scene) -> Scene:
    """The same things, moved and filmed alike, before the background five places on and in the next light."""
    background = BACKGROUNDS[(BACKGROUNDS.index(scene.background) + 5) % len(BACKGROUNDS)]
    lighting = LIGHTINGS[(LIGHTINGS.index(scene.lighting) + 1) % len(LIGHTINGS)]
    return replace(scene, background=background, lighting=lighting)


@torch.no_grad()
def seen(judge: Judge, clips: Sequence[Clip]) -> Seen:
    """What the judge reads, clip by clip."""
    readings = [hard(judge(judge_input(torch.from_numpy(clip)[None]))) for clip in clips]
    fields = ("things", "sure", "setting", "tracks", "features")
    return Seen(*(torch.cat([getattr(reading, name) for reading in readings]) for name in fields))


def matched(found: Seen, row: int, scene: Scene) -> list[int]:
    """For each asked object the index of the read object that fits it best; read objects are used once.

    The best assignment over all attributes, the colour counting double: a wrong colour costs one attribute only.
    """
    wanted = torch.tensor([thing.indices() for thing in scene.things])  # (n, 5)
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])
    agree = ((found.things[row][None] == wanted[:, None]) * weights).sum(-1)  # (n, K)
    agree = agree + 1.5 * (found.sure[row] > 0.5)[None]
    orders = itertools.permutations(range(found.things.shape[1]), len(scene.things))
    best = max(orders, key=lambda order: float(sum(agree[i, k] for i, k in enumerate(order))))
    return list(best)


def hits(found: Seen, scenes: Sequence[Scene]) -> dict[str, NDArray[np.bool_]]:
    """Per attribute whether each object, or each scene, is read as asked; `count` and `all` per scene."""
    rows: dict[str, list[bool]] = {name: [] for name in (*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES, "count", "all")}
    for row, scene in enumerate(scenes):
        setting = (found.setting[row] == torch.tensor(scene.indices())).tolist()
        right = [bool(found.counts[row] == len(scene.things))]
        rows["count"].append(right[0])
        for thing, place in zip(scene.things, matched(found, row, scene), strict=True):
            same = (found.things[row, place] == torch.tensor(thing.indices())).tolist()
            for name, value in zip(OBJECT_ATTRIBUTES, same, strict=True):
                rows[name].append(value)
            right += same
        for name, value in zip(SCENE_ATTRIBUTES, setting, strict=True):
            rows[name].append(value)
        rows["all"].append(all(right) and all(setting))
    return {name: np.asarray(values) for name, values in rows.items()}


def accuracy(found: Seen, scenes: Sequence[Scene]) -> Figures:
    """Share of objects, or scenes, whose attribute is read as asked; `mean` is that of the eight attributes."""
    right = hits(found, scenes)
    figures = {name: share(int(values.sum()), len(values)) for name, values in right.items()}
    parts = [figures[name] for name in (*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES)]
    figures["mean"] = average(parts)
    return figures


def track_gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean distance of two tracks (T, 2 or more: x, y, ...) in frame widths."""
    return float((one[:, :2] - other[:, :2]).norm(dim=-1).mean())


def agreement(before: Seen, after: Seen, scenes: Sequence[Scene]) -> Figures:
    """Share of objects, or scenes, that the judge reads alike in two clips, and their tracks' distance.

    `track` is the mean distance of the middles in frame widths, `track_3%` the share of objects within NEAR. `kept` is
    the share of all readings together.
    """
    rows: dict[str, list[bool]] = {name: [] for name in (*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES)}
    distances: list[float] = []
    for row, scene in enumerate(scenes):
        pairs = zip(matched(before, row, scene), matched(after, row, scene), strict=True)
        for first, second in pairs:
            same = (before.things[row, first] == after.things[row, second]).tolist()
            for name, value in zip(OBJECT_ATTRIBUTES, same, strict=True):
                rows[name].append(value)
            distances.append(track_gap(before.tracks[row, first], after.tracks[row, second]))
        for index, name in enumerate(SCENE_ATTRIBUTES):
            rows[name].append(bool(before.setting[row, index] == after.setting[row, index]))
    figures = {name: share(sum(values), len(values)) for name, values in rows.items()}
    everything = [value for values in rows.values() for value in values]
    figures["kept"] = share(sum(everything), len(everything))
    figures["track"] = mean(distances)
    figures["track_3%"] = share(sum(distance < NEAR for distance in distances), len(distances))
    return figures


def trajectory_error(found: Seen, scenes: Sequence[Scene]) -> Figure:
    """Mean distance between the tracked path of each object and that of its motion, in frame widths.

    Where the object starts is free, so both paths are centred; where on its circle an orbit starts is free too, so the
    nearest of 16 phases counts.
    """
    distances = []
    for row, scene in enumerate(scenes):
        for slot, place in enumerate(matched(found, row, scene)):
            made = found.tracks[row, place, :, :2]
            ideal = _ideal_paths(scene, slot)  # (16, T, 2)
            gap = (made - made.mean(0))[None] - (ideal - ideal.mean(1, keepdim=True))
            distances.append(float(gap.norm(dim=-1).mean(1).min()))
    return mean(distances)


def _ideal_paths(scene: Scene, slot: int) -> torch.Tensor:
    """The renderer's path of one object at 16 phases, (16, T, 2)."""
    batch = scene_batch([scene] * 16, 0)
    batch.jitter[:] = 0.5
    batch.jitter[:, 3:6] = (torch.arange(16) / 16)[:, None]
    path = trajectory(batch, clip_times(8))
    return torch.stack([path.x[:, slot], path.y[:, slot]], dim=-1)


def flicker(clips: Sequence[Clip]) -> Figure:
    """Mean absolute second difference in time, of 255: what changes back and forth rather than moves on."""
    values = []
    for clip in clips:
        frames = clip[::3].astype(np.float32) if len(clip) >= 24 else clip.astype(np.float32)
        values.append(float(np.abs(frames[2:] - 2 * frames[1:-1] + frames[:-2]).mean()))
    return mean(values)


def distance_ratio(made: Seen, real: Seen, other: Seen) -> Figures:
    """Frechet distance made-real, real-real (two sets of renders of one size), and their quotient."""
    arrays = [part.features.double().numpy() for part in (made, real, other)]
    n = len(arrays[0])
    to_real, among_real = frechet(arrays[0], arrays[1]), frechet(arrays[2], arrays[1])
    quotient = to_real / among_real
    figures = {"frechet": to_real, "frechet_real": among_real, "frechet_ratio": quotient}
    return {name: Figure(value, value, value, n) for name, value in figures.items()}


def diversity(groups: Sequence[Seen], real_groups: Sequence[Seen]) -> Figures:
    """Mean distance in features between clips of one prompt with other seeds, as a share of the renders' own.

    Near zero means collapse: one clip per prompt whatever the seed.
    """

    def spread(group: Seen) -> float:
        pairs = itertools.combinations(group.features, 2)
        return float(np.mean([float((a - b).norm()) for a, b in pairs]))

    made, real = [spread(group) for group in groups], [spread(group) for group in real_groups]
    ratio = [a / b for a, b in zip(made, real, strict=True)]
    return {"diversity": mean(ratio)}


def motion_table(found: Seen, scenes: Sequence[Scene]) -> dict[str, Figure]:
    """Share of objects whose motion is read as asked, by motion: what the models are bad at."""
    right = hits(found, scenes)["motion"]
    wanted = [thing.motion for scene in scenes for thing in scene.things]
    rows = {name: [bool(right[i]) for i, motion in enumerate(wanted) if motion == name] for name in MOTIONS}
    return {name: share(sum(values), len(values)) for name, values in rows.items() if values}
