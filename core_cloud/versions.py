"""With which version of its model a worker makes a final. Pure.

A job names the version that it was placed for. That one makes it where it is loaded, once: a new version that is being
tried must not cost anybody their video, so after an attempt that ended without a final the one that serves makes it. Of
what was decided for one version, steps and where to start from a draft, nothing holds for another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.card import ModelCard
from adaptivegen.placement import ToldSteps


@dataclass(frozen=True, slots=True)
class Version:
    """name: of the version to use; note: why it is not the job's own, empty where it is."""

    name: str
    note: str = ""


def takes(spec: JobSpec, line: str, loaded: Sequence[str]) -> bool:
    """Whether a worker of `line` does the job: it is of that line, or asks for a version that is loaded by its name."""
    return spec.request.model == line or spec.cloud_model in loaded


def choose(spec: JobSpec, line: str, loaded: Sequence[str], *, attempts: int) -> Version:
    """The version for this attempt, the first being number 1; `loaded` is not empty, and the first of it serves."""
    serving = loaded[0]
    if spec.cloud_model == serving or spec.request.model != line:
        return Version(spec.cloud_model)
    if attempts > 1:
        return Version(serving, f"an attempt for {spec.cloud_model} had ended without a final, so {serving} made it")
    if spec.cloud_model in loaded:
        return Version(spec.cloud_model)
    return Version(serving, f"{spec.cloud_model} was not loaded at the worker, so {serving} made the final")


def refine_t0(spec: JobSpec, card: ModelCard, version: Version) -> float | None:
    """Where the final starts on the way from noise to the draft, None where it does not start from one: as decided, by
    another version than it was decided for as its own card says."""
    if spec.decision.refine_t0 is None or version.name == spec.cloud_model:
        return spec.decision.refine_t0
    refine = card.refine
    return refine.t0 if refine is not None and spec.draft_model in refine.sources else None


def steps_of(spec: JobSpec, card: ModelCard, version: Version, *, plan: str, drafted: bool) -> int:
    """As decided, where what was decided on is what is done, by the version it was decided for; else as asked for, or
    as the card has it, of these half where the final is to be reduced."""
    request, decision, limits = spec.request, spec.decision, card.limits
    own = version.name == spec.cloud_model
    as_decided = own and plan == decision.plan and (plan != "reduced" or drafted == (decision.refine_t0 is not None))
    if as_decided and decision.final_steps:
        return decision.final_steps
    refines = not own and drafted and card.refine is not None
    steps = request.steps or (card.refine.steps if refines and card.refine is not None else limits.steps_default)
    return max(limits.steps_min, min(limits.steps_max, math.ceil(steps / 2) if plan == "reduced" else steps))


def settled(spec: JobSpec, card: ModelCard, version: Version, *, told: int, plan: str, drafted: bool) -> bool:
    """Whether the steps that were told with the job's turn hold: what is done must be what was decided on, but for
    them."""
    decision, limits = spec.decision, card.limits
    as_decided = version.name == spec.cloud_model and plan == decision.plan
    if not as_decided or drafted != (decision.refine_t0 is not None):
        return False
    return limits.steps_min <= told <= limits.steps_max


def note_of(spec: JobSpec, told: ToldSteps) -> str:
    """Why a final has other steps than were decided; empty where it has these."""
    decided, steps = spec.decision.final_steps, told.steps
    if steps > decided:
        return f"there was time for {steps} steps in place of {decided} when its turn came"
    if steps < decided and told.others_wait:
        return f"others waited for long when its turn came, so it has {steps} steps in place of {decided}"
    return f"{decided} steps would have been too late when its turn came, so it has {steps}" if steps < decided else ""
