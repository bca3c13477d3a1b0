"""With which version of its model a worker makes a final. Pure.

A job names the version that it was placed for. That one makes it where it is loaded, once: a new version that is being
tried must not cost anybody their video, so after an attempt that ended without a final the one that serves makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptivegen.jobs.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Version:
    """name: of the version to use; given_up: of the one that is not tried again; note: why it is not the job's own."""

    name: str
    given_up: str = ""
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
        note = f"an attempt with {spec.cloud_model} had ended without a final, so {serving} made it"
        return Version(serving, given_up=spec.cloud_model, note=note)
    if spec.cloud_model in loaded:
        return Version(spec.cloud_model)
    return Version(serving, note=f"{spec.cloud_model} was not loaded at the worker, so {serving} made the final")
