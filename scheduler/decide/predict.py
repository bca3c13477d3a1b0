"""How long a generation takes: the work from the model card's profile, the wait from what nodes report. Pure.

Work is known beforehand (steps times the step time measured for the shape); only waiting depends on the moment.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from adaptivegen.models.card import ModelCard, Profile
from scheduler.decide.view import Node, View

TIE_S = 1e-3  # pools whose waits differ by less are the same to us


@dataclass(frozen=True, slots=True)
class Work:
    """Predicted seconds of one generation on an idle node; `note` says when the shape itself was not measured."""

    first_look_s: float
    generate_s: float
    encode_s: float
    note: str = ""

    @property
    def total_s(self) -> float:
        """From the start to the encoded clip."""
        return self.generate_s + self.encode_s


@dataclass(frozen=True, slots=True)
class PoolWait:
    """The chosen pool; `wait_s` is None when no healthy worker serves the model."""

    pool: str
    wait_s: float | None
    workers: int


def work_of(card: ModelCard, *, width: int, height: int, frames: int, steps: int) -> Work | None:
    """The work of a clip of this shape in `steps`; None when the card has no profile.

    A shape that was not measured is scaled by its number of pixels from the nearest one that was.
    """
    volume = width * height * frames
    if not card.profile or volume <= 0:
        return None
    profile = min(card.profile, key=lambda known: _distance(known, width, height, frames))
    exact = (profile.width, profile.height, profile.frames) == (width, height, frames)
    scale = 1.0 if exact else volume / (profile.width * profile.height * profile.frames)
    generate_ms = profile.text_ms + scale * (steps * profile.step_ms + profile.upsample_ms)
    measured = f"{profile.width}x{profile.height} with {profile.frames} frames"
    return Work(
        first_look_s=(profile.text_ms + scale * max(0.0, profile.first_look_ms - profile.text_ms)) / 1e3,
        generate_s=generate_ms / 1e3,
        encode_s=scale * profile.encode_ms / 1e3,
        note="" if exact else f"times of {card.name} are scaled from {measured}",
    )


def _distance(profile: Profile, width: int, height: int, frames: int) -> tuple[bool, float]:
    """Measured shapes first, then the nearest number of pixels; among equals the card's first stands."""
    same = (profile.width, profile.height, profile.frames) == (width, height, frames)
    volume = profile.width * profile.height * profile.frames
    return not same, abs(math.log(volume / (width * height * frames)))


def draft_work(card: ModelCard, *, width: int, height: int, frames: int) -> Work | None:
    """The work of a draft: at the size asked for if the draft model offers it, else at its first size."""
    if f"{width}x{height}" not in card.limits.sizes:
        first_width, _, first_height = card.limits.sizes[0].partition("x")
        width, height = int(first_width), int(first_height)
    if frames not in card.limits.frame_counts():
        frames = card.limits.frame_counts()[0]
    return work_of(card, width=width, height=height, frames=frames, steps=card.limits.steps_default)


def draft_wait_s(node: Node | None, *, now_ns: int) -> float:
    """Seconds until the edge's draft model is free; an edge that has not reported yet is taken to be idle."""
    return node.remaining_s(now_ns) if node is not None else 0.0


def pool_wait(view: View, model: str, *, now_ns: int, rng: random.Random) -> PoolWait:
    """The pool in which a new final would start first; equals are drawn by chance, so that schedulers do not herd."""
    offers: list[PoolWait] = []
    for pool, workers in sorted(view.nodes.workers(model, now_ns=now_ns).items()):
        slots = [free_at_s for node in workers for free_at_s in node.slots_free_at_s(now_ns)]
        offers.append(PoolWait(pool, view.nodes.backlog(pool).wait_s(slots), len(workers)))
    known = [offer.wait_s for offer in offers if offer.wait_s is not None]
    if not known:
        return PoolWait(view.nodes.last_pool(model) or view.default_pool, None, 0)
    best_s = min(known)
    return rng.choice([offer for offer in offers if offer.wait_s is not None and offer.wait_s <= best_s + TIE_S])
