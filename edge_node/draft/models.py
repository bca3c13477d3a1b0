"""The versions of an edge's draft model: which one drafts for a request, and what is ahead of them.

A version that is tried is loaded beside the one that serves (`adaptivegen.generation.kept`), and drafts for its share
of the sessions where it is loaded; an edge that has not loaded it drafts with the one that serves, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from adaptivegen.desired import DesiredModels
from adaptivegen.drafting import has_room
from adaptivegen.generation.kept import Kept, ModelSet
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.models.card import ModelCard
from adaptivegen.models.lines import Line
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.nodes import FinishedWork
from adaptivegen.request import GenerationRequest
from edge_node.versions import sticky

UNMEASURED_S = 1.0  # that a draft is taken to last by a card without a profile


@dataclass(frozen=True, slots=True)
class Drafter:
    """The version that is to draft; note: why it is not the one that its session has, empty where it is."""

    card: ModelCard
    note: str = ""


def pick(line: Line, stays_with: str, loaded: Sequence[str]) -> str:
    """The version for what is to stay with one; `loaded` is not empty, and the first of it serves. Pure."""
    version = line.version_of(stays_with)
    return version if version in loaded else loaded[0]


class DraftModels:
    """All versions at this edge. line: the name of the draft model that it was started with; kept: what is loaded."""

    def __init__(self, line: str, desired: DesiredModels, library: ModelLibrary, kept: ModelSet) -> None:
        self.line = line
        self.kept = kept
        self._desired = desired
        self._library = library

    # ---- which one --------------------------------------------------------------------------------------------

    @property
    def serving(self) -> ModelCard:
        """The version that drafts unless another is tried."""
        return self.kept.main.card

    def choose(self, request: GenerationRequest, tenant: str) -> Drafter:
        """The version for a request, whose seed is drawn: a session stays with one, as in the cloud."""
        line, key = self._desired.of(self.line), sticky(request, tenant)
        version = pick(line, key, self.kept.loaded)
        if version == line.version_of(key):
            return Drafter(self.held(version).card)
        note = f"{line.version_of(key)} was not loaded at the edge, so {version} was to make the draft"
        return Drafter(self.held(version).card, note)

    def held(self, version: str) -> Kept:
        """A version if it can be used now, else the one that serves."""
        return self.kept.find(version) or self.kept.main

    def with_digest(self, digest: str) -> Kept | None:
        """The version of this digest, if it can be used now."""
        found = (self.kept.find(name) for name in self.kept.loaded)
        return next((held for held in found if held is not None and held.card.digest == digest), None)

    def card(self, version: str) -> ModelCard:
        """The card of a version, loaded here or not. Raises ModelNotFound, InvalidRequest."""
        held = self.kept.find(version)
        return held.card if held is not None else self._library.card(version)

    def using(self, held: Kept) -> AbstractAsyncContextManager[ModelRunner]:
        """A version that is not ended while the block lasts."""
        return self.kept.using(held)

    # ---- what is ahead of them --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the version that serves is loaded."""
        return self.kept.ready

    def can(self, version: str) -> bool:
        """Whether what is to be drafted with a version has a model that is loaded."""
        return self.held(version).runner.ready

    @property
    def queued(self) -> int:
        """Drafts that wait for a model."""
        return sum(held.runner.queued for held in self.kept.held)

    @property
    def waiting(self) -> Counter[str]:
        """These by tenant."""
        found: Counter[str] = Counter()
        for held in self.kept.held:
            found.update(held.runner.waiting)
        return found

    def has_room(self, tenant: str, at_most: int) -> bool:
        """Whether a further draft of a tenant may wait where `at_most` do (`drafting.has_room`)."""
        return has_room(tenant, self.waiting, queued=self.queued, at_most=at_most)

    @property
    def busy(self) -> int:
        """Models that draft now."""
        return sum(held.runner.busy for held in self.kept.held)

    @property
    def remaining_s(self) -> float:
        """Seconds of drafts ahead, by the cards."""
        return sum((held.runner.queued + held.runner.busy) * usual_s(held.card) for held in self.kept.held)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the draft at hand has begun, of several the first."""
        return max((held.runner.elapsed_s for held in self.kept.held), default=0.0)

    @property
    def finished(self) -> tuple[FinishedWork, ...]:
        """The last drafts, of all versions."""
        return self.kept.finished

    @property
    def failed_in_row(self) -> int:
        """Of the version that serves: an edge is not unwell because one that it tries is."""
        return self.kept.main.runner.failed_in_row

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the versions that can be used now, the one that serves first."""
        others = (self.kept.find(name) for name in self.kept.loaded[1:])
        return (self.serving.digest, *(held.card.digest for held in others if held is not None))


def usual_s(card: ModelCard) -> float:
    """Seconds that one draft takes by the card's profile."""
    if not card.profile:
        return UNMEASURED_S
    profile = card.profile[0]
    fixed_ms = profile.text_ms + profile.upsample_ms + profile.encode_ms
    return (fixed_ms + card.limits.steps_default * profile.step_ms) / 1e3
