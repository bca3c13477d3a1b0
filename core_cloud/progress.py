"""Progress of one generation: steps done become a percentage and an estimate of the time left. Pure.

The share of each stage comes from the model card's profile; the pace is corrected by what was observed so far.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptivegen.generation.messages import Step
from adaptivegen.models.card import ModelCard


@dataclass(frozen=True, slots=True)
class Expectation:
    """Predicted seconds of the base steps together, of upsampling and of encoding."""

    base_s: float
    upsample_s: float
    encode_s: float

    @property
    def total_s(self) -> float:
        """Seconds of the whole generation."""
        return self.base_s + self.upsample_s + self.encode_s


def expect(card: ModelCard, *, steps: int, width: int, height: int, frames: int) -> Expectation:
    """What the card says of a generation of this shape in `steps`; without a profile, a second a step."""
    measured = card.measured(width, height, frames)
    if measured is None:
        return Expectation(base_s=float(steps), upsample_s=1.0, encode_s=0.1)
    profile, scale = measured
    return Expectation(
        base_s=(profile.text_ms + scale * steps * profile.step_ms) / 1e3,
        upsample_s=scale * profile.upsample_ms / 1e3,
        encode_s=scale * profile.encode_ms / 1e3,
    )


@dataclass(slots=True)
class Progress:
    """The latest state; `observe` after every step with the seconds since generation began."""

    expectation: Expectation
    step: int = 0
    steps: int = 0
    percent: int = 0
    eta_s: float = 0.0
    _done_s: float = 0.0
    _observed_s: float = 0.0

    def observe(self, step: Step, *, elapsed_s: float) -> None:
        """Take a step report into account. The percentage never goes back and stays under 100."""
        expected = self.expectation
        share = step.step / max(step.steps, 1)
        if step.stage == "base":
            self._done_s = share * expected.base_s
        else:
            self._done_s = expected.base_s + share * expected.upsample_s
        self.step, self.steps, self._observed_s = step.step, step.steps, elapsed_s
        pace = elapsed_s / self._done_s if self._done_s > 0 else 1.0
        self.eta_s = max(0.0, (expected.total_s - self._done_s) * pace)
        self.percent = max(self.percent, min(99, int(100 * self._done_s / max(expected.total_s, 1e-6))))

    def remaining_s(self, *, elapsed_s: float) -> float:
        """Seconds left so many seconds after generation began."""
        eta_s = self.eta_s if self.steps else self.expectation.total_s
        return max(0.0, eta_s - (elapsed_s - self._observed_s))
