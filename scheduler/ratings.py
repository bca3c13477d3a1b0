"""The ratings people gave, with how good such clips are by the models' cards: what the QoE function is fitted to."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import NotFound
from adaptivegen.experience import Rated
from adaptivegen.jobs.rating import PREFIX, Rating, decode_rating
from adaptivegen.models.card import ModelCard, ScoredPlan
from adaptivegen.rpc.admin_rows import Ratings
from scheduler.decide.qoe import QoeSettings, quality_of

MAX_SINCE = 5000


async def gather(blob: BlobStore, cards: Mapping[str, ModelCard], qoe: QoeSettings, *, limit: int) -> Ratings:
    """Of the newest ratings those that can be fitted to. Left out is what this version cannot read, what a client rated
    without having seen when its parts came, finals that were asked for later, and clips that stalled. Raises a storage
    error.

    Of more than `limit` everybody's newest are taken, then everybody's second: who rates most does not speak for all.
    """
    by_tenant: dict[str, list[tuple[int, str]]] = {}
    async for meta in blob.list(PREFIX):
        newest = by_tenant.setdefault(meta.key.removeprefix(PREFIX).partition("/")[0], [])
        heapq.heappush(newest, (meta.last_modified_ns, meta.key))
        if len(newest) > limit:
            heapq.heappop(newest)
    turns = itertools.zip_longest(*(sorted(newest, reverse=True) for newest in by_tenant.values()))
    in_turn = itertools.chain.from_iterable(sorted(filter(None, turn), reverse=True) for turn in turns)
    keys = [key for _, key in sorted(itertools.islice(in_turn, limit), reverse=True)]
    rated: list[Rated] = []
    for start in range(0, len(keys), AT_ONCE):  # other calls get their turn between the pieces
        found = await read_all(keys[start : start + AT_ONCE], lambda key: _read(blob, key))
        rated += [_with_qualities(rating, cards, qoe) for rating in found if rating is not None and rating.tells]
    return Ratings(tuple(rated), len(keys) - len(rated))


class RatingsSince:
    """What was rated since a moment, by the store's clock: the first `MAX_SINCE`, each read once and once more where it
    was changed."""

    def __init__(self, blob: BlobStore, at_ns: int) -> None:
        self._blob = blob
        self._at_ns = at_ns
        self._read: dict[str, tuple[int, Rating | None]] = {}

    async def read(self) -> list[Rating]:
        """All of them, as they are now. Raises a storage error."""
        found = [(meta.last_modified_ns, meta.key) async for meta in self._blob.list(PREFIX)]
        for changed_ns, key in heapq.nsmallest(MAX_SINCE, (one for one in found if one[0] >= self._at_ns)):
            known = self._read.get(key)
            if (known is None and len(self._read) < MAX_SINCE) or (known is not None and known[0] != changed_ns):
                self._read[key] = changed_ns, await _read(self._blob, key)
        return [rating for _, rating in self._read.values() if rating is not None]


async def _read(blob: BlobStore, key: str) -> Rating | None:
    try:
        return decode_rating(await blob.get(key))
    except NotFound:
        return None  # deleted between the listing and the reading


def _with_qualities(rating: Rating, cards: Mapping[str, ModelCard], qoe: QoeSettings) -> Rated:
    final: ScoredPlan = "refine" if rating.plan == "refine" else "cloud"
    final_quality = _quality(
        cards.get(rating.cloud_model), final, rating.final_size, rating.final_steps, qoe.unmeasured_final
    )
    draft_quality = _quality(
        cards.get(rating.drafted_with or rating.draft_model),
        "draft",
        rating.draft_size,
        rating.draft_steps,
        qoe.unmeasured_draft,
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
    if card is None or not size:
        return assumed
    width, height = map(int, size.split("x"))
    steps = steps or card.limits.steps_default
    return quality_of(card, plan, steps=steps, width=width, height=height, assumed=assumed)
