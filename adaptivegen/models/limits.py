"""Checks a request against a model card's limits, field by field. Pure."""

import math

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import TASKS, GenerationInput
from adaptivegen.models.card import Limits


def check(request: GenerationInput, limits: Limits) -> None:
    """Raise InvalidRequest for the first field outside the limits; the message names field, value and limit."""
    size = f"{request.width}x{request.height}"
    if size not in limits.sizes:
        raise InvalidRequest.field("size", size, ", ".join(limits.sizes))
    if request.frames not in limits.frame_counts():
        raise InvalidRequest.field("frames", request.frames, ", ".join(map(str, limits.frame_counts())))
    if not limits.steps_min <= request.steps <= limits.steps_max:
        raise InvalidRequest.field("steps", request.steps, f"{limits.steps_min} to {limits.steps_max}")
    inside = limits.guidance_min <= request.guidance <= limits.guidance_max
    if not (math.isfinite(request.guidance) and inside):
        allowed = f"{limits.guidance_min:g} to {limits.guidance_max:g}"
        raise InvalidRequest.field("guidance", request.guidance, allowed)
    if not limits.seed_min <= request.seed <= limits.seed_max:
        raise InvalidRequest.field("seed", request.seed, f"{limits.seed_min} to {limits.seed_max}")
    length = len(request.prompt.encode("utf-8", errors="surrogatepass"))
    if not 1 <= length <= limits.prompt_max_bytes:
        raise InvalidRequest.field("prompt", f"{length} bytes", f"1 to {limits.prompt_max_bytes} bytes")


def check_strength(strength: float | None, *, has_start: bool) -> None:
    """strength (t0) belongs to a start clip and lies strictly between 0 and 1."""
    if strength is None:
        return
    if not has_start:
        raise InvalidRequest.field("strength", strength, "absent without a start clip")
    if not (math.isfinite(strength) and 0.0 < strength < 1.0):
        raise InvalidRequest.field("strength", strength, "above 0 and below 1")


def check_task(task: str, *, has_start: bool, known: tuple[str, ...] = TASKS) -> None:
    """The task is one the model knows, and those that keep frames of a start clip have one."""
    if task not in known:
        raise InvalidRequest.field("task", task, ", ".join(known))
    if task != "restyle" and not has_start:
        raise InvalidRequest.field("task", task, "restyle without a start clip")
