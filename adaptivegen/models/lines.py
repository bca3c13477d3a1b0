"""Which version of a model serves whom, as all nodes are told it. Pure.

A *line* is the name that clients ask for and that a node is started with; a *version* is a model card. A line that was
never changed is served by the version of its own name. While a new version is tried, sessions are divided between the
two by a hash, so that a session stays where it is, and whoever had the new version at a small share has it at a larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.models.card import ModelCard, ModelName
from adaptivegen.nodes import NameOrNone

MAX_LINES = 64
KEY = "models"  # of the lines in force, in the policy bucket
Phase = Literal["steady", "trial", "loading", "canary"]


class Line(BaseModel):
    """One line. stable: its version; candidate: the one that is tried, empty where none is; previous: the stable one
    before.

    phase: `trial` loads the candidate at `trial_node` alone, `loading` at all nodes of the line, `canary` gives it
    `percent` of the sessions. rollout: the number of the change that began it, by which sessions are divided.
    """

    model_config = ConfigDict(frozen=True)

    stable: ModelName
    previous: ModelName | None = None
    candidate: ModelName | None = None
    phase: Phase = "steady"
    paused: bool = False
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    trial_node: NameOrNone = ""
    rollout: Annotated[int, Field(ge=0)] = 0

    @property
    def versions(self) -> tuple[str, ...]:
        """The stable version, and the candidate where there is one."""
        return (self.stable, self.candidate) if self.candidate is not None else (self.stable,)

    def wanted(self, node_id: str) -> tuple[str, ...]:
        """The versions that a node is to have loaded, the stable one first."""
        tried = self.candidate is not None and (self.phase in ("loading", "canary") or self.trial_node == node_id)
        return self.versions if tried else (self.stable,)

    def version_of(self, sticky: str) -> str:
        """Who serves a session, or whatever else is to stay with one version."""
        if self.candidate is None or self.phase != "canary":
            return self.stable
        digest = hashlib.blake2b(f"{self.rollout}\n{sticky}".encode(), digest_size=8).digest()
        return self.candidate if int.from_bytes(digest) < self.percent / 100.0 * 2**64 else self.stable


class Lines(BaseModel):
    """All lines that were ever changed, by name; number: of the change that made them so."""

    model_config = ConfigDict(frozen=True)

    lines: Annotated[dict[ModelName, Line], Field(max_length=MAX_LINES)] = {}
    number: Annotated[int, Field(ge=0)] = 0

    def of(self, name: str) -> Line:
        """A line; raises ValidationError for a name that none can have."""
        return self.lines.get(name) or Line(stable=name)


def why_no_successor(stable: ModelCard, candidate: ModelCard, others: Mapping[str, ModelCard]) -> str | None:
    """What keeps a version from serving a line's requests in another's stead; None where nothing does.

    others: cards of models in service; those that continue drafts must know a new draft model.
    """
    if candidate.role != stable.role:
        return f"{candidate.name} is a {candidate.role} model, {stable.name} a {stable.role} model"
    old, new = stable.limits, candidate.limits
    lacking = [size for size in old.sizes if size not in new.sizes]
    if lacking:
        return f"{candidate.name} cannot make {', '.join(lacking)}, as {stable.name} can"
    if new.sizes[0] != old.sizes[0] or new.fps != old.fps or new.seconds[0] != old.seconds[0]:
        return f"{candidate.name} has another default size, rate or length than {stable.name}"
    if not set(old.seconds) <= set(new.seconds):
        return f"{candidate.name} cannot make clips of all lengths that {stable.name} can"
    ranges = ("steps", "guidance", "seed")
    for name in ranges:
        low, high = f"{name}_min", f"{name}_max"
        if getattr(new, low) > getattr(old, low) or getattr(new, high) < getattr(old, high):
            return f"{candidate.name} allows less {name} than {stable.name}"
    if new.guidance_default != old.guidance_default:
        return f"{candidate.name} has another default guidance than {stable.name}, by which requests are completed"
    if new.prompt_max_bytes < old.prompt_max_bytes:
        return f"{candidate.name} takes shorter prompts than {stable.name}"
    return _why_not_refined(stable, candidate, others)


def _why_not_refined(stable: ModelCard, candidate: ModelCard, others: Mapping[str, ModelCard]) -> str | None:
    """Drafts are continued by the models that say so of themselves, and a final by what it was tuned with."""
    if stable.role == "cloud":
        known = set(stable.refine.sources) if stable.refine is not None else set()
        unknown = known - set(candidate.refine.sources if candidate.refine is not None else ())
        return f"{candidate.name} does not continue drafts of {', '.join(sorted(unknown))}" if unknown else None
    for card in others.values():
        if card.refine is not None and stable.name in card.refine.sources and candidate.name not in card.refine.sources:
            return f"{card.name} does not continue drafts of {candidate.name}"
    return None
