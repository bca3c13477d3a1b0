"""What every generative model offers, whatever runs it: the request, the report of a step, the protocol.

Pure types; a backend implements `Generator`, a service calls it in a child process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import Cancelled
from adaptivegen.models.card import ModelCard
from adaptivegen.models.latent import Latent

Clip = NDArray[np.uint8]  # (T, H, W, 3), sRGB
GenerationCancelled = Cancelled  # raised by `generate` when should_stop() said so
# What a start clip is for: to be drawn anew (a video), to be made final (a draft of the same prompt and seed), to have
# its first frame moved (image to video), to be gone on with after its end, or to be filled in between its ends. The
# drafts of the last two are made final as "extended" and "interpolated": what was given to them is held again.
Task = Literal["restyle", "refine", "animate", "extend", "interpolate", "extended", "interpolated"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True)
class GenerationInput:
    """One clip to make. width and height in pixels; guidance 1.0 means none."""

    prompt: str
    seed: int
    width: int
    height: int
    frames: int
    steps: int
    guidance: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """Progress after a step: `step` of `steps` in this stage is done.

    look: the clip as it stands, (T, H, W, 3) uint8 of a smaller size and frame count than the result, or None.
    familiarity: how near the prompt is to what the model was trained on, up to 1; None where it cannot tell.
    """

    step: int
    steps: int
    stage: Literal["base", "upsample"]
    look: Clip | None
    familiarity: float | None = None


class Generator(Protocol):
    """A loaded model. Not safe for concurrent calls; the caller serialises them."""

    @property
    def card(self) -> ModelCard:
        """The card the model was opened by."""
        ...

    def generate(
        self,
        request: GenerationInput,
        *,
        start: Clip | None = None,
        strength: float | None = None,
        task: Task = "restyle",
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """Make the clip: (frames, height, width, 3) uint8. The same request on the same files gives the same clip.

        start: a clip of any size and length to begin from (a draft, a still image repeated, a video).
        strength: t0 in (0, 1), the share of the way from noise to `start` at which generation begins; 1 would keep
            `start` as it is. None takes the card's refine t0, or noise for the tasks that keep frames. Without `start`
            it must be None.
        task: what `start` is for. `refine` takes it for a draft made from noise with this prompt and seed, and keeps
            where its objects are; `animate` keeps its first frame; `extend` makes a clip whose first half is the end of
            `start`; `interpolate` keeps its first and last frame. `extended` and `interpolated` take `start` for what
            these two made, and keep again what they kept. Without `start` it must be `restyle`.
        on_step: called after every step; the first call carries the first look.
        should_stop: asked before every step and every upsampling chunk.

        Raises InvalidRequest for what the card's limits forbid, GenerationCancelled when should_stop() said so.
        """
        ...


class SplitGenerator(Generator, Protocol):
    """A generator whose clips another one of the same `space` can finish, and that can finish another's."""

    @property
    def space(self) -> str:
        """What models must share to finish one another's clips."""
        ...

    def begin(
        self,
        request: GenerationInput,
        until: float,
        *,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Latent:
        """The first part of a split generation from noise: all of the request's steps lie before time `until`.

        Raises InvalidRequest for what the card's limits forbid and `until` outside (0, 1), else as `generate`.
        """
        ...

    def finish(
        self,
        request: GenerationInput,
        latent: Latent,
        *,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """The rest of what another began with the same prompt and seed, in the request's steps and at its size.

        Raises InvalidRequest for a latent of another space or shape, else as `generate`.
        """
        ...
