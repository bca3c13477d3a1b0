"""The draft models of an edge that are loaded already, whose processes are stood in for."""

from __future__ import annotations

from typing import Any

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import Clock
from adaptivegen.desired import DesiredModels
from adaptivegen.errors import ModelNotFound
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.models.card import ModelCard
from adaptivegen.models.registry import ModelLibrary
from edge_node.draft.models import DraftModels


class Cards(ModelLibrary):
    """The models that came along, and cards that a test has made."""

    def __init__(self, *made: ModelCard) -> None:
        super().__init__()
        self._made = {card.name: card for card in made}

    def card(self, name: str) -> ModelCard:
        return self._made.get(name) or super().card(name)


def draft_models(
    card: ModelCard,
    runner: Any,
    *more: tuple[ModelCard, Any],
    clock: Clock,
    desired: DesiredModels | None = None,
    known: tuple[ModelCard, ...] = (),
) -> DraftModels:
    """The line of the first card, with these versions loaded; known: cards that are installed beside them."""
    desired = desired or DesiredModels(MemoryBus(clock), clock)
    cards = Cards(card, *(other for other, _ in more), *known)

    def no_process(wanted: ModelCard) -> ModelRunner:
        raise ModelNotFound(f"no process of {wanted.name!r}", param="model")

    kept = ModelSet(lambda: desired.of(card.name).wanted("edge-1"), cards.card, no_process, clock)
    for held, process in ((card, runner), *more):
        kept.adopt(held, process)
    return DraftModels(card.name, desired, cards, kept)
