"""What a client may ask for: parsing, limits and the content key. Pure.

`parse_request` takes untrusted values of any type and returns a `GenerationRequest` in which every choice is made
(size, length, steps, guidance), or raises InvalidRequest naming field, value and limit. The content key identifies
what a final will look like: the same key, the same frames.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from adaptivegen.errors import InvalidRequest, PayloadTooLarge
from adaptivegen.ids import check_name
from adaptivegen.models.card import Limits, ModelCard
from adaptivegen.placement import TIERS, Tier

Intent = Literal["iterate", "render"]
REQUESTABLE_PLANS = ("draft", "refine", "cloud")
VideoTask = Literal["restyle", "extend", "interpolate"]  # what is done with an uploaded video
VIDEO_TASKS: tuple[VideoTask, ...] = get_args(VideoTask)
FIELDS = frozenset(
    (
        "prompt",
        "model",
        "size",
        "seconds",
        "fps",
        "steps",
        "guidance",
        "seed",
        "intent",
        "plan",
        "strength",
        "task",
        "session",
        "service_tier",
        "deadline_s",
        "allow_reduced",
    )
)
WHERE_NOT_WHAT = frozenset(("intent", "session", "service_tier", "deadline_s", "allow_reduced"))  # see `content_key`
DEADLINE_LIMITS_S = (0.1, 86400.0)


class Reference(BaseModel):
    """An uploaded image or video the clip starts from. `key` is its object key; `kind` says how it is used."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["image", "video"]
    sha256: str
    key: str


class GenerationRequest(BaseModel):
    """A validated request with every default resolved. Sizes in pixels; `seed` is None until drawn."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    model: str
    width: int
    height: int
    seconds: float
    fps: int
    frames: int
    steps: int | None
    guidance: float
    seed: int | None
    intent: Intent
    plan: str | None = None
    reference: Reference | None = None
    strength: float | None = None
    task: VideoTask | None = None
    session: str = ""
    service_tier: Tier = "default"
    deadline_s: float | None = None
    allow_reduced: bool = False

    @property
    def reference_task(self) -> Literal["animate"] | VideoTask:
        """What the model does with the reference: an image is moved, a video redrawn unless `task` says otherwise."""
        if self.reference is not None and self.reference.kind == "image":
            return "animate"
        return self.task or "restyle"

    @property
    def size(self) -> str:
        """ "WIDTHxHEIGHT"."""
        return f"{self.width}x{self.height}"


def check_prompt(value: object, *, max_bytes: int) -> str:
    """A prompt with something in it, within the size, without control characters."""
    if not isinstance(value, str):
        raise InvalidRequest.field("prompt", value, "a string")
    try:
        size_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise InvalidRequest.field("prompt", value, "valid Unicode (no lone surrogates)") from exc
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"prompt has {size_bytes} bytes; allowed: at most {max_bytes} bytes", param="prompt")
    if not value.strip():
        raise InvalidRequest.field("prompt", value, f"1 to {max_bytes} bytes, not only blanks")
    for position, character in enumerate(value):
        if unicodedata.category(character) == "Cc":
            raise InvalidRequest.field("prompt", character, f"no control characters (found at position {position})")
    return value


def _number(values: Mapping[str, object], field: str) -> float | None:
    """An optional finite number; strings of digits are taken, as multipart forms send them."""
    value = values.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidRequest.field(field, value, "a number")
    try:
        number = float(value)
    except ValueError as exc:
        raise InvalidRequest.field(field, value, "a number") from exc
    except OverflowError as exc:
        raise InvalidRequest.field(field, value, "a finite number") from exc
    if not math.isfinite(number):
        raise InvalidRequest.field(field, value, "a finite number")
    return number


def _integer(values: Mapping[str, object], field: str, low: int, high: int) -> int | None:
    """An optional whole number within [low, high]; exact for 63-bit seeds."""
    value = values.get(field)
    if value is None or value == "":
        return None
    limit = f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidRequest.field(field, value, limit)
    try:
        number = int(value)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest.field(field, value, limit) from exc
    if (isinstance(value, float) and value != number) or not low <= number <= high:
        raise InvalidRequest.field(field, value, limit)
    return number


def _size(values: Mapping[str, object], limits: Limits) -> tuple[int, int]:
    value = values.get("size") or limits.sizes[0]
    if value not in limits.sizes:
        raise InvalidRequest.field("size", value, ", ".join(limits.sizes))
    width, _, height = str(value).partition("x")
    return int(width), int(height)


def _choice(values: Mapping[str, object], field: str, allowed: tuple[str, ...], default: str | None) -> str | None:
    value = values.get(field)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequest.field(field, value, ", ".join(allowed))
    return value


def _session(values: Mapping[str, object]) -> str:
    """The name of the session a request belongs to, empty for none."""
    value = values.get("session")
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise InvalidRequest.field("session", value, "a string")
    return check_name(value, field="session")


def _deadline(values: Mapping[str, object]) -> float | None:
    low, high = DEADLINE_LIMITS_S
    deadline_s = _number(values, "deadline_s")
    if deadline_s is not None and not low <= deadline_s <= high:
        raise InvalidRequest.field("deadline_s", deadline_s, f"{low:g} to {high:g} seconds")
    return deadline_s


def _tier(values: Mapping[str, object]) -> Tier:
    """`auto` is what clients of OpenAI's shape send who do not care."""
    chosen = _choice(values, "service_tier", ("auto", *TIERS), "default")
    return next((tier for tier in TIERS if tier == chosen), "default")


def _flag(values: Mapping[str, object], field: str) -> bool:
    """Off unless it is said; forms send text."""
    value = values.get(field)
    if value is None or value == "":
        return False
    if not isinstance(value, bool) and value not in ("true", "false"):
        raise InvalidRequest.field(field, value, "true or false")
    return value is True or value == "true"


def parse_request(
    values: Mapping[str, object], card: ModelCard, *, reference: Reference | None = None
) -> GenerationRequest:
    """Check every field against `card` (the model of the final) and resolve defaults.

    Unknown fields are refused, so that a misspelt option is never silently ignored.
    """
    limits = card.limits
    unknown = sorted(set(values) - FIELDS)
    if unknown:
        raise InvalidRequest.field(unknown[0], values[unknown[0]], f"a known field ({', '.join(sorted(FIELDS))})")
    width, height = _size(values, limits)
    seconds = _number(values, "seconds") or limits.seconds[0]
    if seconds not in limits.seconds:
        raise InvalidRequest.field("seconds", values["seconds"], ", ".join(f"{s:g}" for s in limits.seconds))
    fps = _integer(values, "fps", limits.fps, limits.fps) or limits.fps
    guidance = _number(values, "guidance")
    if guidance is None:
        guidance = limits.guidance_default
    if not limits.guidance_min <= guidance <= limits.guidance_max:
        raise InvalidRequest.field("guidance", guidance, f"{limits.guidance_min:g} to {limits.guidance_max:g}")
    strength = _number(values, "strength")
    if strength is not None and (reference is None or not 0.0 < strength < 1.0):
        allowed = "over 0 and under 1" if reference else "absent without a reference"
        raise InvalidRequest.field("strength", strength, allowed)
    task = _choice(values, "task", VIDEO_TASKS, None)
    if task is not None and (reference is None or reference.kind != "video"):
        raise InvalidRequest.field("task", task, "absent without a video to start from")
    intent = _choice(values, "intent", ("iterate", "render"), "render")
    return GenerationRequest(
        prompt=check_prompt(values.get("prompt"), max_bytes=limits.prompt_max_bytes),
        model=card.name,
        width=width,
        height=height,
        seconds=seconds,
        fps=fps,
        frames=round(seconds * fps),
        steps=_integer(values, "steps", limits.steps_min, limits.steps_max),
        guidance=guidance,
        seed=_integer(values, "seed", limits.seed_min, limits.seed_max),
        intent="iterate" if intent == "iterate" else "render",
        plan=_choice(values, "plan", REQUESTABLE_PLANS, None),
        reference=reference,
        strength=strength,
        task=next((known for known in VIDEO_TASKS if known == task), None),
        session=_session(values),
        service_tier=_tier(values),
        deadline_s=_deadline(values),
        allow_reduced=_flag(values, "allow_reduced"),
    )


def content_key(request: GenerationRequest, *, cloud_digest: str, draft_digest: str) -> str:
    """SHA-256 over the model versions and what determines the frames; the seed must be drawn.

    What decides where and when, not what, is left out (a reduced final is not indexed by its key). The draft model is
    in, because a refined final starts from its draft; so is the plan asked for, since a final from noise differs from a
    refined one.
    """
    if request.seed is None:
        raise InvalidRequest.field("seed", None, "drawn before the content key is computed")
    content = request.model_dump(mode="json", exclude={"reference", *WHERE_NOT_WHAT})
    content["reference"] = request.reference.sha256 if request.reference else None
    content["models"] = [draft_digest, cloud_digest]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
