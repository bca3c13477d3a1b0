"""What model cards say of the shapes and steps that are asked for: work, quality, the shape of drafts. Pure.

It follows from card and shape alone, and nearly all requests ask for the same few; so a view keeps what it has read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adaptivegen.models.card import ModelCard, ScoredPlan
from scheduler.decide.qoe import quality_of
from scheduler.decide.work import Work, draft_shape, draft_work, work_of

MAX_READ = 1024  # shapes of one card that are kept; beyond it all of them are read anew

Shape = tuple[int, int, int]  # width, height, frames


@dataclass(slots=True)
class _Read:
    """Of one card, by what was asked."""

    card: ModelCard
    works: dict[tuple[int, int, int, int], Work | None] = field(default_factory=dict)
    drafts: dict[Shape, Work | None] = field(default_factory=dict)
    shapes: dict[Shape, Shape] = field(default_factory=dict)
    qualities: dict[tuple[ScoredPlan, int, int, int, float], float] = field(default_factory=dict)


class Readings:
    """The readings of one view. A card that is replaced by another of its name is read anew."""

    def __init__(self) -> None:
        self._cards: dict[str, _Read] = {}

    def __repr__(self) -> str:
        return f"Readings({sorted(self._cards)})"

    def work(self, card: ModelCard, *, width: int, height: int, frames: int, steps: int) -> Work | None:
        """See `work_of`."""
        works, key = self._of(card).works, (width, height, frames, steps)
        if key not in works:
            _make_room(works)
            works[key] = work_of(card, width=width, height=height, frames=frames, steps=steps)
        return works[key]

    def draft_shape(self, card: ModelCard, *, width: int, height: int, frames: int) -> Shape:
        """See `work.draft_shape`."""
        shapes, key = self._of(card).shapes, (width, height, frames)
        if key not in shapes:
            _make_room(shapes)
            shapes[key] = draft_shape(card, width=width, height=height, frames=frames)
        return shapes[key]

    def draft_work(self, card: ModelCard, *, width: int, height: int, frames: int) -> Work | None:
        """See `work.draft_work`."""
        drafts, key = self._of(card).drafts, (width, height, frames)
        if key not in drafts:
            _make_room(drafts)
            drafts[key] = draft_work(card, width=width, height=height, frames=frames)
        return drafts[key]

    def quality(
        self, card: ModelCard, plan: ScoredPlan, *, steps: int, width: int, height: int, assumed: float
    ) -> float:
        """See `qoe.quality_of`."""
        qualities, key = self._of(card).qualities, (plan, steps, width, height, assumed)
        if key not in qualities:
            _make_room(qualities)
            qualities[key] = quality_of(card, plan, steps=steps, width=width, height=height, assumed=assumed)
        return qualities[key]

    def _of(self, card: ModelCard) -> _Read:
        read = self._cards.get(card.name)
        if read is None or read.card is not card:
            read = self._cards[card.name] = _Read(card)
        return read


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= MAX_READ:
        kept.clear()
