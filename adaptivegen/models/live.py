"""Live restyling of a stream in chunks: each chunk of frames is redrawn in a step or two, going on from the last one.

The base's clip is two chunks long: its first half is what was shown last, held, its second half the new frames,
re-noised to the strength. So chunks join without a seam, and the delay is one chunk and its computation.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from adaptivegen.errors import InvalidRequest
from adaptivegen.models import schedule, starts
from adaptivegen.models.base import Clip
from adaptivegen.models.cascade import (
    HIGH_FRAMES,
    INPUT_LEVEL,
    LOW_FRAMES,
    LOW_SHAPE,
    LOW_SIZE,
    Floats,
    Networks,
    advance,
)
from adaptivegen.models.layout import OPEN, Scene
from adaptivegen.models.resample import resize, to_bytes, to_unit
from adaptivegen.models.starts import Arranged

CHUNK = LOW_FRAMES // 2  # low-resolution frames of a chunk
OUT_FRAMES = HIGH_FRAMES // 2  # frames that a chunk becomes
MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """strength: t0 in (0, 1), how much of the stream is kept; steps per chunk; seed of the noise."""

    strength: float = 0.6
    steps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.strength < 1.0:
            raise InvalidRequest.field("strength", self.strength, "above 0 and below 1")
        if not 1 <= self.steps <= MOST_STEPS:
            raise InvalidRequest.field("steps", self.steps, f"1 to {MOST_STEPS}")


class LiveSession:
    """One stream over loaded networks; not safe for concurrent calls. `restyle` may change the prompt at any chunk."""

    def __init__(self, networks: Networks, prompt: str, settings: LiveSettings | None = None) -> None:
        self._networks = networks
        self._settings = settings or LiveSettings()
        rng = np.random.Generator(np.random.Philox(self._settings.seed))
        # One noise for every chunk: with another each time, what the model adds to the stream would flicker.
        self._noise = rng.standard_normal(LOW_SHAPE, dtype=np.float32)
        self._last: Floats | None = None
        self.restyle(prompt)

    def restyle(self, prompt: str) -> None:
        """Follow another prompt from the next chunk on."""
        self._scene = Scene(self._networks.encode(prompt), OPEN)

    def push(self, frames: Clip) -> Clip:
        """Redraw the next frames of the stream, (T, H, W, 3) uint8 with T >= CHUNK: (OUT_FRAMES, 128, 128, 3) uint8.

        Raises InvalidRequest when they are no RGB clip or too few.
        """
        starts.check_clip(frames)
        if len(frames) < CHUNK:
            raise InvalidRequest.field("frames", len(frames), f"at least {CHUNK}")
        chunk = resize(to_unit(starts.instants(frames, CHUNK)), CHUNK, LOW_SIZE, LOW_SIZE)
        clip, known = self._given(chunk)
        z = schedule.renoise(clip, self._noise, self._settings.strength)
        for span in itertools.pairwise(schedule.times(self._settings.steps, t0=self._settings.strength)):
            _, z = advance(self._networks, z, span, self._scene, known, guidance=1.0)
        self._last = z[CHUNK:]
        return to_bytes(self._networks.upsample(z, INPUT_LEVEL, self._scene.text)[OUT_FRAMES:])

    def _given(self, chunk: Floats) -> tuple[Floats, Arranged]:
        """The whole clip before noise, and what of it is held; the first chunk goes on from nothing."""
        mask = np.zeros(LOW_FRAMES, np.float32)
        if self._last is None:
            clip = np.concatenate([chunk, chunk])
            return clip, Arranged(np.zeros(LOW_SHAPE, np.float32), mask)
        mask[:CHUNK] = 1.0
        clip = np.concatenate([self._last, chunk])
        return clip, Arranged(clip, mask)
