"""The sampler's arithmetic: times of the steps, the path between noise and clip, one Euler step, guidance.

Flow matching with x-prediction: the path is z = t x + (1 - t) noise, t from 0 (noise) to 1 (clip). Pure numpy.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def times(steps: int, *, t0: float = 0.0, shift: float = 1.0) -> list[float]:
    """steps + 1 times from t0 to 1, strictly rising; shift > 1 puts more of them near the noise."""
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1")
    if not 0.0 <= t0 < 1.0:
        raise ValueError(f"t0 is {t0}; allowed: 0 <= t0 < 1")
    even = [i / steps for i in range(steps + 1)]
    shifted = [u / (u + shift * (1.0 - u)) for u in even]
    return [t0 + (1.0 - t0) * u for u in shifted]


def renoise(clip: Floats, noise: Floats, t0: float) -> Floats:
    """The point of the path at t0 between this noise and this clip."""
    return (t0 * clip + (1.0 - t0) * noise).astype(np.float32)


def euler(z: Floats, predicted: Floats, t: float, t_next: float) -> Floats:
    """Move z from t to t_next along the velocity (predicted - z) / (1 - t); t_next = 1 gives the prediction itself."""
    return (z + (t_next - t) / (1.0 - t) * (predicted - z)).astype(np.float32)


def guided(conditional: Floats, unconditional: Floats, guidance: float) -> Floats:
    """Classifier-free guidance (Ho and Salimans 2022) on the predictions, kept within the clip's range [-1, 1]."""
    mixed = unconditional + guidance * (conditional - unconditional)
    return np.clip(mixed, -1.0, 1.0).astype(np.float32)
