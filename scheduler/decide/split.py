"""A final that a worker begins and an edge finishes: whether two models can, and how much work each would have. Pure.

All of it follows from the models' cards and the shape of the clip.
"""

from __future__ import annotations

from typing import NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.models.pairs import difference, latent_bytes
from scheduler.decide.work import Work, begun_work, work_of


class SplitWork(NamedTuple):
    """begin: of the worker, without enlarging and encoding; finish: of the edge, from there to the MP4; latents_bytes:
    what goes from one to the other."""

    begin: Work
    finish: Work
    latents_bytes: int


def split_obstacle(cloud: ModelCard, draft: ModelCard, *, width: int, height: int, frames: int) -> str:
    """Why the draft model cannot finish such a clip of the cloud's; empty where it can."""
    if cloud.split is None or draft.name not in cloud.split.finishers:
        return f"{cloud.name} begins no videos for {draft.name}"
    why = difference(draft, cloud)
    if why:
        return f"{draft.name} and {cloud.name} are an advisory pair: {why}"
    if f"{width}x{height}" not in draft.limits.sizes or frames not in draft.limits.frame_counts():
        return f"{draft.name} makes no videos of {width}x{height} with {frames} frames"
    return ""


def split_work(
    cloud: ModelCard, draft: ModelCard, *, width: int, height: int, frames: int, steps: int
) -> SplitWork | None:
    """The work of each, `steps` of them the cloud's; None where a card has no profile, or the cloud's no split."""
    if cloud.split is None:
        return None
    begin = begun_work(cloud, width=width, height=height, frames=frames, steps=steps)
    finish = work_of(draft, width=width, height=height, frames=frames, steps=cloud.split.finish_steps)
    if begin is None or finish is None:
        return None
    return SplitWork(begin, finish, latent_bytes(cloud))
