"""What the draft model is told to make for a job. Pure: the same for an edge's own jobs and for those of others."""

from __future__ import annotations

from adaptivegen.generation.messages import GenerateCommand
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.base import GenerationInput
from adaptivegen.models.card import ModelCard


def draft_command(spec: JobSpec, card: ModelCard, *, has_start: bool) -> GenerateCommand:
    """The draft of `spec` by the model of `card`, at its first size; steps that were decided for another version are
    not for this one."""
    limits, request = card.limits, spec.request
    width, _, height = limits.sizes[0].partition("x")
    return GenerateCommand(
        request_id=spec.id,
        request=GenerationInput(
            prompt=request.prompt,
            seed=request.seed or 0,
            width=int(width),
            height=int(height),
            frames=request.frames,
            steps=spec.draft_steps if card.name == spec.draft_model else limits.steps_default,
            guidance=limits.guidance_default,
        ),
        fps=request.fps,
        strength=request.strength if has_start else None,
        task=request.reference_task if has_start else "restyle",
        want_looks=True,
    )
