"""How much work a generation is on a node as fast as the card says: known beforehand, from its profile. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from adaptivegen.models.card import ModelCard


class Work(NamedTuple):
    """Predicted seconds of one generation on an idle node; `note` says when the shape itself was not measured."""

    first_look_s: float
    generate_s: float
    encode_s: float
    note: str = ""

    @property
    def total_s(self) -> float:
        """From the start to the encoded clip."""
        return self.generate_s + self.encode_s

    def times(self, factor: float) -> Work:
        """The same on a node that takes so many times as long."""
        if factor == 1.0:
            return self
        return Work(self.first_look_s * factor, self.generate_s * factor, self.encode_s * factor, self.note)


def work_of(card: ModelCard, *, width: int, height: int, frames: int, steps: int) -> Work | None:
    """The work of a clip of this shape in `steps`; None when the card has no profile."""
    return _work(card, (width, height, frames), steps, enlarges=True)


def begun_work(card: ModelCard, *, width: int, height: int, frames: int, steps: int) -> Work | None:
    """The same of a clip's first `steps`, which another model finishes: nothing is enlarged or encoded."""
    return _work(card, (width, height, frames), steps, enlarges=False)


def _work(card: ModelCard, shape: tuple[int, int, int], steps: int, *, enlarges: bool) -> Work | None:
    found = card.measured(*shape)
    if found is None:
        return None
    profile, scale = found
    exact = (profile.width, profile.height, profile.frames) == shape
    generate_ms = profile.text_ms + scale * (steps * profile.step_ms + (profile.upsample_ms if enlarges else 0.0))
    measured = f"{profile.width}x{profile.height} with {profile.frames} frames"
    return Work(
        first_look_s=(profile.text_ms + scale * max(0.0, profile.first_look_ms - profile.text_ms)) / 1e3,
        generate_s=generate_ms / 1e3,
        encode_s=scale * profile.encode_ms / 1e3 if enlarges else 0.0,
        note="" if exact else f"times of {card.name} are scaled from {measured}",
    )


def draft_size(card: ModelCard, *, width: int, height: int) -> tuple[int, int]:
    """The size asked for if the draft model offers it, else its first size."""
    if f"{width}x{height}" in card.limits.sizes:
        return width, height
    return _sides(card.limits.sizes[0])


@lru_cache(maxsize=1024)
def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def draft_shape(card: ModelCard, *, width: int, height: int, frames: int) -> tuple[int, int, int]:
    """Width, height and frames of a draft: of the size that `draft_size` gives, as long as asked if that is offered."""
    width, height = draft_size(card, width=width, height=height)
    counts = card.limits.frame_counts()
    return width, height, frames if frames in counts else counts[0]


def draft_work(card: ModelCard, *, width: int, height: int, frames: int) -> Work | None:
    """The work of a draft of the shape that `draft_shape` gives."""
    width, height, frames = draft_shape(card, width=width, height=height, frames=frames)
    return work_of(card, width=width, height=height, frames=frames, steps=card.limits.steps_default)
