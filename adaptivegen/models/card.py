"""Model cards: what a model is called, which files it has, what it accepts, how fast and how good it was measured.

Decides validation of cards and of requests against their limits. Pure: it must not know a backend, a clock or a socket.
"""

import hashlib
import json
import math
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from adaptivegen.untrusted import parsed

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ScoredPlan = Literal["draft", "refine", "split", "cloud"]
SpaceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class CardFile(_Frozen):
    """One weights file; the path is relative to the weights folder and stays inside it."""

    path: str
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path:
            raise ValueError(f"path {path!r} leaves the weights folder")
        return path


class Limits(_Frozen):
    """What a request may ask of the model. Sizes are "WIDTHxHEIGHT" in pixels, seconds the clip lengths offered."""

    sizes: tuple[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")], ...] = Field(min_length=1)
    seconds: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1)
    fps: Annotated[int, Field(gt=0, le=240)]
    steps_min: Annotated[int, Field(ge=1)]
    steps_max: Annotated[int, Field(le=1000)]
    steps_default: int
    guidance_min: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    guidance_max: Annotated[float, Field(allow_inf_nan=False)]
    guidance_default: Annotated[float, Field(allow_inf_nan=False)]
    seed_min: Annotated[int, Field(ge=0)] = 0
    seed_max: Annotated[int, Field(le=2**63 - 1)] = 2**63 - 1
    prompt_max_bytes: Annotated[int, Field(gt=0)] = 4096

    @model_validator(mode="after")
    def _ordered(self) -> "Limits":
        if not self.steps_min <= self.steps_default <= self.steps_max:
            raise ValueError(f"steps {self.steps_min} <= {self.steps_default} <= {self.steps_max} does not hold")
        if not self.guidance_min <= self.guidance_default <= self.guidance_max:
            raise ValueError("guidance_min <= guidance_default <= guidance_max does not hold")
        if self.seed_min > self.seed_max:
            raise ValueError("seed_min is above seed_max")
        return self

    def frame_counts(self) -> tuple[int, ...]:
        """Frames of every clip length offered, in the order of `seconds`."""
        return _frame_counts(self.seconds, self.fps)


@lru_cache(maxsize=1024)
def _frame_counts(seconds: tuple[float, ...], fps: int) -> tuple[int, ...]:
    """Kept, since every decision asks for those of its models."""
    return tuple(round(length * fps) for length in seconds)


class Refine(_Frozen):
    """How the model continues a clip of another: re-noise it to t0 (1 keeps it, 0 forgets it), then run `steps`."""

    sources: tuple[ModelName, ...] = Field(alias="from", min_length=1)
    t0: Annotated[float, Field(gt=0, lt=1)]
    steps: Annotated[int, Field(ge=1)]
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class NoisePath(_Frozen):
    """What a model's steps follow from noise to the clip; see `pairs.pair_kind` for what two models' paths say of them.

    shape: of its latents, whose values are in the card's `latent_space`. sampler: by which rule a step is taken.
    sigmas: the schedule of noise along the way. files: logical names of those that make latents mean what they do, such
    as the autoencoder.
    """

    shape: tuple[Annotated[int, Field(gt=0, le=65536)], ...] = Field(min_length=1, max_length=6)
    sampler: SpaceName
    sigmas: SpaceName
    files: tuple[str, ...] = Field(min_length=1)


class Split(_Frozen):
    """How the model begins clips that another finishes: `steps` of it up to time `until` (0 noise, 1 the clip), then
    `finish_steps` of the other, at a size that the other offers."""

    finishers: tuple[ModelName, ...] = Field(alias="to", min_length=1)
    until: Annotated[float, Field(gt=0, lt=1)]
    steps: Annotated[int, Field(ge=1)]
    finish_steps: Annotated[int, Field(ge=1)]
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Profile(_Frozen):
    """Measured times on one kind of hardware, medians, for a clip of width x height x frames."""

    hardware: str
    threads: Annotated[int, Field(ge=1)]
    backend: Literal["onnx", "torch"]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    frames: Annotated[int, Field(gt=0)]
    load_ms: Milliseconds
    text_ms: Milliseconds
    step_ms: Milliseconds
    upsample_ms: Milliseconds
    first_look_ms: Milliseconds
    encode_ms: Milliseconds
    memory_mib: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Quality(_Frozen):
    """A measured figure with its 95 % interval over n clips."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    n: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _inside(self) -> "Quality":
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.low} <= {self.value} <= {self.high} does not hold")
        return self


class Score(_Frozen):
    """How good clips are that are made in one way: accuracy, the mean share of attributes as asked; mos, 1 to 5.

    plan, as the scheduler has it: `draft` for a draft model; `cloud` from noise, `refine` from a draft, `split`
    finished by the draft model. steps: of this model.
    """

    plan: ScoredPlan
    steps: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    accuracy: Quality
    mos: Quality

    @model_validator(mode="after")
    def _of_the_scale(self) -> "Score":
        if not 1.0 <= self.mos.value <= 5.0:
            raise ValueError(f"mos is {self.mos.value}, allowed: 1 to 5")
        return self


class ModelCard(_Frozen):
    """One version of one model.

    quality: figures of clips made as the card's defaults say; `quality["mos"]` is the Q of the QoE formula, 1..5;
    docs/models.md has its formula. scores: the same by plan, steps and size.
    latent_space: "pixels", or the name of an autoencoder's space. path: None where nobody else goes on from the model's
    latents; split: only with a path.
    bytes_per_pixel: of its clips' files, over all pixels of all frames; None where it was not measured.
    precision: "mixed" computes the base's products in fewer bits, int8 in ONNX Runtime and bfloat16 in torch, where the
    file `base_float` has its weights.
    """

    name: ModelName
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    role: Literal["draft", "cloud"]
    description: Annotated[str, Field(min_length=1)]
    latent_space: SpaceName
    precision: Literal["float32", "mixed"] = "float32"
    files: dict[str, CardFile] = Field(min_length=1)
    limits: Limits
    refine: Refine | None = None
    path: NoisePath | None = None
    split: Split | None = None
    profile: tuple[Profile, ...] = ()
    quality: dict[str, Quality] = Field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    bytes_per_pixel: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] | None = None
    digest: Sha256

    @model_validator(mode="after")
    def _consistent(self) -> "ModelCard":
        expected = card_digest(self.name, self.version, self.files)
        if self.digest != expected:
            raise ValueError(f"digest is {self.digest}, the name, version and files give {expected}")
        mos = self.quality.get("mos")
        if mos is not None and not 1.0 <= mos.value <= 5.0:
            raise ValueError(f"quality mos is {mos.value}, allowed: 1 to 5")
        unknown = sorted(set(self.path.files) - set(self.files)) if self.path is not None else []
        if unknown:
            raise ValueError(f"path names files that the card has not: {', '.join(unknown)}")
        if self.split is not None and self.path is None:
            raise ValueError("split needs a path")
        return self

    def measured(self, width: int, height: int, frames: int) -> tuple[Profile, float] | None:
        """The profile of a clip of this shape and by what its times are to be multiplied: 1 where the shape was
        measured, else its number of pixels over that of the nearest one that was. None without a profile."""
        volume = width * height * frames
        if not self.profile or volume <= 0:
            return None
        profile = min(self.profile, key=lambda known: _distance(known, width, height, frames))
        exact = (profile.width, profile.height, profile.frames) == (width, height, frames)
        return profile, 1.0 if exact else volume / (profile.width * profile.height * profile.frames)


def _distance(profile: Profile, width: int, height: int, frames: int) -> tuple[bool, float]:
    """Measured shapes first, then the nearest number of pixels; among equals the card's first stands."""
    same = (profile.width, profile.height, profile.frames) == (width, height, frames)
    volume = profile.width * profile.height * profile.frames
    return not same, abs(math.log(volume / (width * height * frames)))


def card_digest(name: str, version: str, files: dict[str, CardFile]) -> str:
    """Identity of a model version: sha256 over its name, version and the digests of its files, by logical name."""
    parts = [name, version, *(f"{logical}={files[logical].sha256}" for logical in sorted(files))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def parse_card(text: str) -> ModelCard:
    """Read a card from JSON; raises InvalidRequest naming the first bad field."""
    return parsed(ModelCard, text, name="card")


def dump_card(card: ModelCard) -> str:
    """The card as indented JSON that `parse_card` reads back to an equal card."""
    return json.dumps(card.model_dump(mode="json", by_alias=True), indent=2) + "\n"
