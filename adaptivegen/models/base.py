"""What every generative model offers, whatever runs it: the request, the report of a step, the protocol.

Pure types; a backend implements `Generator`, a service calls it in a child process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import Cancelled
from adaptivegen.models.card import ModelCard

Clip = NDArray[np.uint8]  # (T, H, W, 3), sRGB
GenerationCancelled = Cancelled  # raised by `generate` when should_stop() said so


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
    """

    step: int
    steps: int
    stage: Literal["base", "upsample"]
    look: Clip | None


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
        hold_first_frame: bool = False,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """Make the clip: (frames, height, width, 3) uint8. The same request on the same files gives the same clip.

        start: a clip of any size and length to begin from (a draft, a still image repeated, a video).
        strength: t0 in (0, 1), the share of the way from noise to `start` at which generation begins; 1 would keep
            `start` as it is. None takes the card's refine t0. Without `start` it must be None.
        hold_first_frame: keep the first frame of `start` fixed through all steps (image-to-video).
        on_step: called after every step; the first call carries the first look.
        should_stop: asked before every step and every upsampling chunk.

        Raises InvalidRequest for what the card's limits forbid, GenerationCancelled when should_stop() said so.
        """
        ...
