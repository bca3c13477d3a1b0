"""The Pocket sampler: text, base steps, upsampling, over any backend that runs the three networks.

Decides the order of work, where a start clip enters, and when progress is reported and cancellation asked for. The
networks themselves come through `Networks`; this module knows neither their backend nor a clock.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adaptivegen.models import limits, schedule
from adaptivegen.models.base import Clip, GenerationCancelled, GenerationInput, StepReport, Task
from adaptivegen.models.card import ModelCard
from adaptivegen.models.resample import resize, to_bytes, to_unit
from adaptivegen.models.starts import check_clip
from adaptivegen.models.text import TextEmbedding

Floats = NDArray[np.float32]
LOW_FRAMES, LOW_SIZE = 8, 32  # the base model's clip
LOOK_SIZE = 128  # pixels along each side of a step's look
HIGH_FRAMES, HIGH_SIZE = 24, 128  # what the space-time upsampler gives
DOUBLE_CHUNK = 6  # frames doubled between two questions whether to stop
INPUT_LEVEL = 0.05  # noise level the upsampler is told its input has, on the [-1, 1] scale


class Networks(Protocol):
    """The loaded networks of one Pocket model; arrays are float32, clips channels-last in [-1, 1]."""

    def encode(self, prompt: str) -> TextEmbedding:
        """Embed the prompt."""
        ...

    def predict(self, noisy: Floats, t: float, text: TextEmbedding, *, conditional: bool) -> Floats:
        """The clean clip the base sees in noisy (8, 32, 32, 3) at time t; same shape."""
        ...

    def upsample(self, low: Floats, level: float, text: TextEmbedding) -> Floats:
        """(8, 32, 32, 3) -> (24, 128, 128, 3)."""
        ...

    def double(self, frames: Floats) -> Floats:
        """(N, H, W, 3) -> (N, 2H, 2W, 3)."""
        ...


class PocketGenerator:
    """A `Generator` over `Networks`."""

    def __init__(self, card: ModelCard, networks: Networks, *, shift: float = 1.0) -> None:
        self._card = card
        self._networks = networks
        self._shift = shift

    @property
    def card(self) -> ModelCard:
        """The card the model was opened by."""
        return self._card

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
        """See `Generator.generate`."""
        limits.check(request, self._card.limits)
        limits.check_strength(strength, has_start=start is not None)
        limits.check_task(task, has_start=start is not None, known=("restyle", "refine", "animate"))
        low_start = _low_resolution(start)  # (8, 32, 32, 3) or None
        t0 = self._start_time(low_start is not None, strength)
        text = self._networks.encode(request.prompt)
        low = self._denoise(request, text, low_start, t0, task == "animate", on_step, should_stop)
        return self._enlarge(low, request, text, on_step, should_stop)

    def _start_time(self, has_start: bool, strength: float | None) -> float:
        if not has_start:
            return 0.0
        if strength is not None:
            return strength
        return self._card.refine.t0 if self._card.refine is not None else 0.5

    def _denoise(
        self,
        request: GenerationInput,
        text: TextEmbedding,
        start: Floats | None,
        t0: float,
        hold: bool,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Floats:
        """All base steps; returns the clean low-resolution clip (8, 32, 32, 3)."""
        rng = np.random.Generator(np.random.Philox(request.seed))
        noise = rng.standard_normal((LOW_FRAMES, LOW_SIZE, LOW_SIZE, 3), dtype=np.float32)
        z = noise if start is None else schedule.renoise(start, noise, t0)
        steps = schedule.times(request.steps, t0=t0, shift=self._shift)
        for done, (t, t_next) in enumerate(itertools.pairwise(steps), start=1):
            _stop_if(should_stop)
            if hold and start is not None:
                z[0] = schedule.renoise(start[0], noise[0], t)
            clean = self._predict(z, t, text, request.guidance)
            if hold and start is not None:
                clean[0] = start[0]
            z = schedule.euler(z, clean, t, t_next)
            look = to_bytes(resize(clean, LOW_FRAMES, LOOK_SIZE, LOOK_SIZE))
            on_step(StepReport(step=done, steps=request.steps, stage="base", look=look))
        return z

    def _predict(self, z: Floats, t: float, text: TextEmbedding, guidance: float) -> Floats:
        conditional = self._networks.predict(z, t, text, conditional=True)
        if guidance == 1.0:
            return np.clip(conditional, -1.0, 1.0)
        unconditional = self._networks.predict(z, t, text, conditional=False)
        return schedule.guided(conditional, unconditional, guidance)

    def _enlarge(
        self,
        low: Floats,
        request: GenerationInput,
        text: TextEmbedding,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """Upsample to the requested size; (frames, height, width, 3) uint8."""
        _stop_if(should_stop)
        clip = self._networks.upsample(low, INPUT_LEVEL, text)  # (24, 128, 128, 3)
        doubled = request.width > HIGH_SIZE
        chunks = HIGH_FRAMES // DOUBLE_CHUNK if doubled else 0
        on_step(StepReport(step=1, steps=1 + chunks, stage="upsample", look=None))
        if not doubled:
            return to_bytes(clip)
        parts: list[Clip] = []
        for index in range(chunks):
            _stop_if(should_stop)
            part = clip[index * DOUBLE_CHUNK : (index + 1) * DOUBLE_CHUNK]
            parts.append(to_bytes(self._networks.double(part)))  # (6, 256, 256, 3)
            on_step(StepReport(step=2 + index, steps=1 + chunks, stage="upsample", look=None))
        return np.concatenate(parts)


def _stop_if(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise GenerationCancelled("generation was cancelled")


def _low_resolution(start: Clip | None) -> Floats | None:
    """A start clip of any size and length as the base's clip; raises InvalidRequest when it is no RGB clip."""
    if start is None:
        return None
    check_clip(start)
    return resize(to_unit(start), LOW_FRAMES, LOW_SIZE, LOW_SIZE)


def text_files(paths: dict[str, Path]) -> Path:
    """The folder of the text encoder among a card's verified files."""
    return paths["text_encoder"].parent
