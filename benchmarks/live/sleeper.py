"""A model child that sleeps: `python -m benchmarks.live.sleeper CARDS CONDUCT MODEL [BACKEND] THREADS`.

Everything but the sums is real: a process of its own, the messages, looks as JPEGs, a clip as an MP4 that plays. A step
takes what the card says, times a lognormal factor that depends on the prompt alone (so it is the same under every
policy), times what the node's conduct says at the time.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adaptivegen.child.serve import Channel
from adaptivegen.clock import Clock, SystemClock
from adaptivegen.errors import InternalError
from adaptivegen.generation.child import serve
from adaptivegen.models.base import Clip, GenerationCancelled, GenerationInput, StepReport, Task
from adaptivegen.models.card import ModelCard
from adaptivegen.models.registry import load_card
from benchmarks.live.conduct import conduct_at

SIGMA = 0.05  # of the logarithm of how long a generation takes
FAILS_AFTER_S = 0.005


class SleepingModel:
    """Sleeps, then returns a square that moves over a plain ground, both coloured by the seed."""

    def __init__(self, card: ModelCard, conduct: Path, clock: Clock) -> None:
        self.card = card
        self._conduct = conduct
        self._clock = clock

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
        """See `Generator`. Raises InternalError while the node's conduct is to fail."""
        spell, profile = conduct_at(self._conduct, self._clock.monotonic_s()), self.card.profile[0]
        if spell.fails:
            _sleep(FAILS_AFTER_S)
            raise InternalError("this node fails now and then")
        chance = random.Random(f"{self.card.name} {request.prompt}")
        factor = spell.factor * chance.lognormvariate(0.0, SIGMA)
        clip = _drawn(request)
        _sleep(factor * profile.text_ms / 1e3)
        for step in range(1, request.steps + 1):
            if should_stop():
                raise GenerationCancelled("stopped")
            _sleep(factor * profile.step_ms / 1e3)
            on_step(StepReport(step=step, steps=request.steps, stage="base", look=clip[:1]))
        _sleep(factor * profile.upsample_ms / 1e3)
        return clip


def _drawn(request: GenerationInput) -> Clip:
    rng = np.random.default_rng(request.seed)
    ground, colour = rng.integers(0, 256, (2, 3), dtype=np.uint8)
    clip = np.broadcast_to(ground, (request.frames, request.height, request.width, 3)).copy()
    side = request.height // 4
    for number, frame in enumerate(clip):
        left = number * (request.width - side) // max(1, request.frames - 1)
        frame[side : 2 * side, left : left + side] = colour
    return clip


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


def main() -> None:
    """Serve one model on standard input and output."""
    cards, conduct, model = sys.argv[1:4]
    serve(Channel(), lambda: SleepingModel(load_card(model, Path(cards)), Path(conduct), SystemClock()))


if __name__ == "__main__":
    main()
