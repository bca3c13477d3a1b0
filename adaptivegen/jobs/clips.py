"""A clip that was generated, as what a job stores."""

from __future__ import annotations

import hashlib

from adaptivegen.generation.messages import Generated
from adaptivegen.jobs.spec import JobSpec, Media, media_key


def media_of(generated: Generated, spec: JobSpec, *, epoch: int) -> Media:
    """What is said of it, and the key under which it is to be stored. epoch: of the attempt, 0 for a draft."""
    sha256 = hashlib.sha256(generated.mp4).hexdigest()
    return Media(
        key=media_key(spec.tenant, spec.id, epoch, sha256),
        sha256=sha256,
        size_bytes=len(generated.mp4),
        width=generated.width,
        height=generated.height,
        frames=generated.frames,
        fps=spec.request.fps,
        familiarity=generated.familiarity,
    )
