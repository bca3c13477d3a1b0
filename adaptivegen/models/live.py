"""Live restyling of a stream in chunks: each chunk of frames is redrawn in a step or two, going on from the last one.

The base's clip is two chunks long: its first half is what was shown last, held, its second half the new frames,
re-noised to the strength. So the delay is one chunk and its computation. Things are found in the new frames and put
into the layout where they are, so that they keep their places however little of the frames' pixels is kept.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

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
from adaptivegen.models.layout import Scene, followed
from adaptivegen.models.resample import resize, to_bytes, to_unit
from adaptivegen.models.starts import Arranged

CHUNK = LOW_FRAMES // 2  # low-resolution frames of a chunk
OUT_FRAMES = HIGH_FRAMES // 2  # frames that a chunk becomes
MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """strength: t0 in (0, 1), how much of the stream's pixels is kept; steps per chunk; seed of the noise."""

    strength: float = 0.6
    steps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.strength < 1.0:
            raise InvalidRequest.field("strength", self.strength, "above 0 and below 1")
        if not 1 <= self.steps <= MOST_STEPS:
            raise InvalidRequest.field("steps", self.steps, f"1 to {MOST_STEPS}")


class _Shown(NamedTuple):
    """What was shown last, (CHUNK, 48, 48, 3), and where things are in it, (4, CHUNK, values)."""

    frames: Floats
    places: Floats


class LiveSession:
    """One stream over loaded networks; not safe for concurrent calls. `restyle` may change the prompt at any chunk.

    shows: what the stream shows, in the words of a prompt, where that differs from what is asked for. The things that
    it names are looked for in the stream, and the first becomes the first that the prompt names, and so on. Without it
    the prompt's own things are looked for.
    """

    def __init__(
        self, networks: Networks, prompt: str, settings: LiveSettings | None = None, *, shows: str | None = None
    ) -> None:
        self._networks = networks
        self._shows = None if shows is None else networks.encode(shows)
        self._settings = settings or LiveSettings()
        rng = np.random.Generator(np.random.Philox(self._settings.seed))
        # One noise for every chunk: with another each time, what the model adds to the stream would flicker.
        self._noise = rng.standard_normal(LOW_SHAPE, dtype=np.float32)
        self._last: _Shown | None = None
        self.restyle(prompt)

    def restyle(self, prompt: str) -> None:
        """Follow another prompt from the next chunk on."""
        self._text = self._networks.encode(prompt)

    def push(self, frames: Clip) -> Clip:
        """Redraw the next frames of the stream, (T, H, W, 3) uint8 with T >= CHUNK: (OUT_FRAMES, 128, 128, 3) uint8.

        Raises InvalidRequest when they are no RGB clip or too few.
        """
        starts.check_clip(frames)
        if len(frames) < CHUNK:
            raise InvalidRequest.field("frames", len(frames), f"at least {CHUNK}")
        chunk = resize(to_unit(starts.instants(frames, CHUNK)), CHUNK, LOW_SIZE, LOW_SIZE)
        clip, known = self._given(chunk)
        here = self._places(clip)
        before = here if self._last is None else self._last.places
        scene = Scene(self._text, np.concatenate([before, here], axis=1))
        z = schedule.renoise(clip, self._noise, self._settings.strength)
        for span in itertools.pairwise(schedule.times(self._settings.steps, t0=self._settings.strength)):
            _, z = advance(self._networks, z, span, scene, known, guidance=1.0)
        self._last = _Shown(z[CHUNK:], here)
        return to_bytes(self._networks.upsample(z, INPUT_LEVEL, self._text)[OUT_FRAMES:])

    def _given(self, chunk: Floats) -> tuple[Floats, Arranged]:
        """The whole clip before noise, and what of it is held; the first chunk goes on from nothing."""
        mask = np.zeros(LOW_FRAMES, np.float32)
        if self._last is None:
            clip = np.concatenate([chunk, chunk])
            return clip, Arranged(np.zeros(LOW_SHAPE, np.float32), mask)
        mask[:CHUNK] = 1.0
        clip = np.concatenate([self._last.frames, chunk])
        return clip, Arranged(clip, mask)

    def _places(self, clip: Floats) -> Floats:
        """Where things are in the new chunk, the second half of the clip."""
        mask = np.zeros(LOW_FRAMES, np.float32)
        mask[CHUNK:] = 1.0
        found = self._networks.find(self._text if self._shows is None else self._shows, Arranged(clip, mask))
        return followed(found, CHUNK)[:, CHUNK:]
