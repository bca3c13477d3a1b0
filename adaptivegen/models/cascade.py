"""The Pocket sampler: text, layout, base steps, upsampling, over any backend that runs the networks.

Decides the order of work, where a start clip enters, and when progress is reported and cancellation asked for. The
networks themselves come through `Networks`; this module knows neither their backend nor a clock.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import InvalidRequest
from adaptivegen.models import limits, schedule, starts
from adaptivegen.models.base import Clip, GenerationCancelled, GenerationInput, StepReport, Task
from adaptivegen.models.card import ModelCard
from adaptivegen.models.latent import Latent
from adaptivegen.models.layout import LAYOUT_SHAPE, NOWHERE, OPEN, Found, Scene, followed
from adaptivegen.models.resample import resize, to_bytes
from adaptivegen.models.slots import PromptSlots
from adaptivegen.models.starts import Arranged

Floats = NDArray[np.float32]
LOW_FRAMES, LOW_SIZE = 8, 48  # the base model's clip
LOOK_SIZE = 128  # pixels along each side of a step's look
HIGH_FRAMES, HIGH_SIZE = 24, 128  # what the space-time upsampler gives
DOUBLE_CHUNK = 6  # frames doubled between two questions whether to stop
INPUT_LEVEL = 0.05  # noise level the upsampler is told its input has, on the [-1, 1] scale


LOW_SHAPE = (LOW_FRAMES, LOW_SIZE, LOW_SIZE, 3)
NOTHING = Arranged(np.zeros(LOW_SHAPE, np.float32), np.zeros(LOW_FRAMES, np.float32))


class Networks(Protocol):
    """The loaded networks of one Pocket model; arrays are float32, clips channels-last in [-1, 1]."""

    def encode(self, prompt: str) -> PromptSlots:
        """Embed the prompt."""
        ...

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        """Where the prompt's objects are in the frames of `given` that are held; None where none of them is there."""
        ...

    def plan(self, text: PromptSlots, noise: Floats, found: Found = NOWHERE) -> Floats:
        """The layout LAYOUT_SHAPE that this noise, of the same shape, leads to from where things were found."""
        ...

    def predict(self, noisy: Floats, t: float, scene: Scene, known: Arranged, *, conditional: bool) -> Floats:
        """The clean clip the base sees in noisy (8, 48, 48, 3) at time t; same shape."""
        ...

    def upsample(self, low: Floats, level: float, text: PromptSlots) -> Floats:
        """(8, 48, 48, 3) -> (24, 128, 128, 3)."""
        ...

    def double(self, frames: Floats) -> Floats:
        """(N, H, W, 3) -> (N, 2H, 2W, 3)."""
        ...


def advance(
    networks: Networks, z: Floats, span: tuple[float, float], scene: Scene, known: Arranged, guidance: float
) -> tuple[Floats, Floats]:
    """One base step over a span of time: the clean clip as it is seen from z, held frames kept, and the next z."""
    t, t_next = span
    clean = networks.predict(z, t, scene, known, conditional=True)
    if guidance == 1.0:
        clean = np.clip(clean, -1.0, 1.0)
    else:
        clean = schedule.guided(clean, networks.predict(z, t, scene, known, conditional=False), guidance)
    clean = np.where(known.mask[:, None, None, None] > 0, known.clip, clean)
    return clean, schedule.euler(z, clean, t, t_next)


class CascadeGenerator:
    """A `SplitGenerator` over `Networks`."""

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
        limits.check_task(task, has_start=start is not None)
        given = starts.arranged(start, task, LOW_FRAMES, LOW_SIZE) if start is not None else None
        t0 = self._start_time(given, strength)
        noise, scene = self._arrange(request, None if task == "refine" else given)
        z = noise if given is None else schedule.renoise(given.clip, noise, t0)
        times = schedule.times(request.steps, t0=t0, shift=self._shift)
        low = self._denoise(z, times, request.guidance, scene, given or NOTHING, on_step, should_stop)
        return self._enlarge(low, request, scene.text, on_step, should_stop)

    @property
    def space(self) -> str:
        """The form of the path, and who plans its layout."""
        return f"{self._card.latent_space} {LOW_SHAPE} {self._card.files['planner'].sha256[:16]}"

    def begin(
        self,
        request: GenerationInput,
        until: float,
        *,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Latent:
        """See `SplitGenerator.begin`."""
        limits.check(request, self._card.limits)
        if not 0.0 < until < 1.0:
            raise InvalidRequest.field("until", until, "above 0 and below 1")
        z, scene = self._arrange(request)
        times = [until * t for t in schedule.times(request.steps, shift=self._shift)]
        z = self._denoise(z, times, request.guidance, scene, NOTHING, on_step, should_stop)
        return Latent(z, until, self.space)

    def finish(
        self,
        request: GenerationInput,
        latent: Latent,
        *,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """See `SplitGenerator.finish`."""
        limits.check(request, self._card.limits)
        latent.check(self.space, LOW_SHAPE)
        _, scene = self._arrange(request)
        times = schedule.times(request.steps, t0=latent.t, shift=self._shift)
        low = self._denoise(latent.z, times, request.guidance, scene, NOTHING, on_step, should_stop)
        return self._enlarge(low, request, scene.text, on_step, should_stop)

    def _arrange(self, request: GenerationInput, given: Arranged | None = None) -> tuple[Floats, Scene]:
        """The noise of the seed, and what is to be shown; both are the same in every model of the family.

        Where frames are held, things go on from where they are in these; in a clip that is redrawn they stay where they
        are. Where the given frames show nothing of the prompt, the layout is open.
        """
        text = self._networks.encode(request.prompt)
        rng = np.random.Generator(np.random.Philox(request.seed))
        noise = rng.standard_normal(LOW_SHAPE, dtype=np.float32)
        if given is not None and not given.mask.any():
            looked_at = Arranged(given.clip, np.ones_like(given.mask))
            return noise, Scene(text, followed(self._networks.find(text, looked_at), LOW_FRAMES))
        found = NOWHERE if given is None else self._networks.find(text, given)
        if found is None:
            return noise, Scene(text, OPEN)
        planned = self._networks.plan(text, rng.standard_normal(LAYOUT_SHAPE, dtype=np.float32), found)
        return noise, Scene(text, planned)

    def _start_time(self, given: Arranged | None, strength: float | None) -> float:
        """t0; frames that are held give what is kept in their own way, so the rest may begin as noise."""
        if strength is not None:
            return strength
        if given is None or given.mask.any():
            return 0.0
        return self._card.refine.t0 if self._card.refine is not None else 0.5

    def _denoise(
        self,
        z: Floats,
        times: Sequence[float],
        guidance: float,
        scene: Scene,
        known: Arranged,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Floats:
        """Base steps from z at the first of the times to the last, where 1 is the clean clip; LOW_SHAPE."""
        for done, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
            _stop_if(should_stop)
            clean, z = advance(self._networks, z, (t, t_next), scene, known, guidance)
            look = to_bytes(resize(clean, LOW_FRAMES, LOOK_SIZE, LOOK_SIZE))
            on_step(StepReport(done, len(times) - 1, "base", look, familiarity=scene.text.familiarity))
        return z

    def _enlarge(
        self,
        low: Floats,
        request: GenerationInput,
        text: PromptSlots,
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
