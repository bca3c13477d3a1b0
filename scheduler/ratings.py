"""The ratings people gave, with how good such clips are by the models' cards: what the QoE function is fitted to."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping

from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import NotFound, first_error
from adaptivegen.jobs.rating import PREFIX, Rating, decode_rating
from adaptivegen.models.card import ModelCard, ScoredPlan
from scheduler.decide.fit import Rated
from scheduler.decide.qoe import QoeSettings, quality_of

BATCH = 32


async def rated(blob: BlobStore, cards: Mapping[str, ModelCard], qoe: QoeSettings, *, limit: int) -> list[Rated]:
    """The newest ratings, newest first; those that this version cannot read are left out. Raises a storage error."""
    keys = [meta.key async for meta in blob.list(PREFIX)]
    newest = heapq.nlargest(limit, keys, key=_at_ns)
    found: list[Rating] = []
    for start in range(0, len(newest), BATCH):
        try:
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(_read(blob, key)) for key in newest[start : start + BATCH]]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        found += [rating for read in reads if (rating := read.result()) is not None]
    return [_with_qualities(rating, cards, qoe) for rating in found]


async def _read(blob: BlobStore, key: str) -> Rating | None:
    try:
        return decode_rating(await blob.get(key))
    except NotFound:
        return None  # deleted between the listing and the reading


def _at_ns(key: str) -> int:
    last = key.rpartition("/")[2]
    return int(last) if last.isdecimal() else 0


def _with_qualities(rating: Rating, cards: Mapping[str, ModelCard], qoe: QoeSettings) -> Rated:
    final: ScoredPlan = "refine" if rating.plan == "refine" else "cloud"
    final_quality = _quality(
        cards.get(rating.cloud_model), final, rating.final_size, rating.final_steps, qoe.unmeasured_final
    )
    draft_quality = _quality(
        cards.get(rating.draft_model), "draft", rating.draft_size, rating.draft_steps, qoe.unmeasured_draft
    )
    return Rated(
        rater=rating.tenant,
        iterating=rating.intent == "iterate",
        stars=rating.stars,
        draft_s=rating.draft_wait_s,
        draft_quality=final_quality if rating.plan == "hit" else draft_quality,
        final_s=rating.final_wait_s,
        final_quality=final_quality,
    )


def _quality(card: ModelCard | None, plan: ScoredPlan, size: str, steps: int, assumed: float) -> float:
    """By the card, as far as it is known what was made; a clip that was not made has none that matters."""
    width, _, height = size.partition("x")
    if card is None or not (width.isdecimal() and height.isdecimal() and int(width) * int(height) > 0):
        return assumed
    steps = steps or card.limits.steps_default
    return quality_of(card, plan, steps=steps, width=int(width), height=int(height), assumed=assumed)
