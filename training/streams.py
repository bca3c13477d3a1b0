"""Measures live sessions: streams of rendered scenes are redrawn with their objects in other colours.

What is asked for is that the colours become the new ones while everything else stays as it is in the stream, and that
nothing jumps where one chunk ends and the next begins. The session is told what the stream shows.
"""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptivegen.models.base import Clip
from adaptivegen.models.cascade import Networks
from adaptivegen.models.live import OUT_FRAMES, LiveSession, LiveSettings
from training import evaluate
from training.captions import sample_caption
from training.evaluate import Asked
from training.grammar import COLOURS, Scene
from training.judge import FRAMES, Judge
from training.statistics import mean, share
from training.world import clip_times, scene_batch, trajectory

CHUNKS = 4
SHIFT = 5  # places in COLOURS, so that the colours of a scene stay different from one another
TRIED = (*(LiveSettings(strength, steps) for strength in (0.2, 0.35) for steps in (1, 2)), LiveSettings())


def recoloured(scene: Scene, shift: int = SHIFT) -> Scene:
    """The same scene with colours so many places further on in COLOURS."""
    things = (
        replace(thing, colour=COLOURS[(COLOURS.index(thing.colour) + shift) % len(COLOURS)]) for thing in scene.things
    )
    return replace(scene, things=tuple(things))


def redrawn(networks: Networks, prompt: str, shows: str, stream: Clip, settings: LiveSettings) -> Clip:
    """A whole stream (CHUNKS * OUT_FRAMES, H, W, 3) through one session, chunk by chunk; as many frames of 128x128."""
    session = LiveSession(networks, prompt, settings, shows=shows)
    return np.concatenate([session.push(chunk) for chunk in np.split(stream, CHUNKS)])


def jump(clip: Clip) -> float:
    """How much more changes from frame to frame where chunks meet than elsewhere; 1 where nothing shows."""
    change: NDArray[Any] = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))  # (T - 1,)
    seams = np.arange(1, CHUNKS) * OUT_FRAMES - 1
    return float(change[seams].mean() / max(1e-6, np.delete(change, seams).mean()))


def measured(networks: Networks, judge: Judge, asked: Asked, seed: int) -> dict[str, dict[str, Any]]:
    """By strength and steps per chunk: streams redrawn into what is asked, the same scenes in other colours.

    The judge sees every second frame: the clip of half the stream's rate, in which things move as their scene says.
    """
    sources = [recoloured(scene, -SHIFT) for scene in asked.scenes]
    words = random.Random(seed)
    shown = [sample_caption(scene, words) for scene in sources]
    streams = evaluate.real_clips(sources, seed, frames=CHUNKS * OUT_FRAMES)
    path = trajectory(scene_batch(sources, seed), clip_times(FRAMES))
    truth = torch.stack([path.x, path.y], dim=-1)  # (B, K, T, 2)
    jump_real = mean([jump(stream) for stream in streams])
    section = {}
    for settings in TRIED:
        parts = zip(asked.prompts, shown, streams, strict=True)
        made = [redrawn(networks, *part, settings) for part in parts]
        found = evaluate.seen(judge, [clip[::2] for clip in made])
        near = [
            evaluate.track_gap(found.tracks[row, place], truth[row, slot]) < evaluate.NEAR
            for row, scene in enumerate(asked.scenes)
            for slot, place in enumerate(evaluate.matched(found, row, scene))
        ]
        section[f"{settings.strength:g} in {settings.steps}"] = {
            "accuracy": evaluate.accuracy(found, asked.scenes) | {"track_3%": share(sum(near), len(near))},
            "jump": mean([jump(clip) for clip in made]),
            "jump_real": jump_real,
        }
    return section
