"""What two models can hand to one another, by their cards. Pure.

A pair is *resumable* where one goes on from the very latents of the other: values of the same space (the same
autoencoder, or pixels) at a point of the same path. Every other pair is *advisory*: one sees the other's frames, and
begins a way of its own from them. Digests of cards do not count here, names and digests of what is shared do.
"""

from __future__ import annotations

import math
from typing import Literal

from adaptivegen.models.card import ModelCard

PairKind = Literal["resumable", "advisory"]
BYTES_PER_VALUE = 2  # float16, as `Latent.to_bytes` writes them; its header of some 100 bytes does not count


def pair_kind(draft: ModelCard, cloud: ModelCard) -> PairKind:
    """Whether each can go on from the other's latents."""
    return "advisory" if difference(draft, cloud) else "resumable"


def difference(draft: ModelCard, cloud: ModelCard) -> str:
    """In words, what keeps a pair from being resumable; empty where nothing does."""
    one, other = draft.path, cloud.path
    if one is None or other is None:
        return f"the card of {cloud.name if one is not None else draft.name} tells of no path"
    if draft.latent_space != cloud.latent_space:
        return f"their latents are of {draft.latent_space} and of {cloud.latent_space}"
    if one.shape != other.shape:
        return f"their latents are of shapes {one.shape} and {other.shape}"
    if one.sampler != other.sampler:
        return f"their samplers are {one.sampler} and {other.sampler}"
    if one.sigmas != other.sigmas:
        return f"their schedules of noise are {one.sigmas} and {other.sigmas}"
    for name in sorted({*one.files, *other.files}):
        if name not in draft.files or name not in cloud.files or draft.files[name].sha256 != cloud.files[name].sha256:
            return f"they do not share the file {name}"
    return ""


def latent_bytes(card: ModelCard) -> int:
    """Bytes of one clip's latents on their way to another node; 0 where the card tells of no path."""
    return BYTES_PER_VALUE * math.prod(card.path.shape) if card.path is not None else 0


def sentence(draft: ModelCard, cloud: ModelCard) -> str:
    """What a pair is and why, for people."""
    why = difference(draft, cloud)
    pair = f"{draft.name} and {cloud.name} are"
    if why:
        return f"{pair} an advisory pair, which hands over frames: {why}."
    return f"{pair} a resumable pair: each could go on from the other's latents."
