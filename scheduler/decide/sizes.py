"""How large a clip's file is, by its model and its pixels: bytes for a pixel, from what was made. Pure.

Before there are clips of a model its card tells (`bytes_per_pixel`), else a guess; both weigh as much as a few clips.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from adaptivegen.models.card import ModelCard

GUESS = 0.03  # bytes for a pixel, where neither card nor clips tell
PRIOR = 4  # clips that the card or the guess weighs as much as
WINDOW = 200  # clips that are remembered, about
LEAST, MOST = 1e-4, 8.0  # bytes for a pixel that are believed
FURTHEST = 5.0  # times as much, or as little, as expected that one clip may say
MAX_MODELS = 64


class Sizes:
    """Bytes for a pixel, by model and, since small clips need more for each, by the pixels of a clip in powers of
    two."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[int, tuple[float, float]]] = OrderedDict()  # the mean, and of how many clips

    def __repr__(self) -> str:
        return f"Sizes({[(model, power, round(mean, 5)) for model, power, mean, _ in self.known()]})"

    def observe(self, card: ModelCard, *, size_bytes: float, pixels: float) -> bool:
        """A clip of so many bytes; says whether it taught anything."""
        if not (math.isfinite(size_bytes) and math.isfinite(pixels)) or size_bytes <= 0.0 or pixels < 1.0:
            return False
        known = self._seen.setdefault(card.name, {})
        power = _power(pixels)
        mean, seen = known.get(power, (self._expected(card, power), 0.0))
        said = min(FURTHEST * mean, max(mean / FURTHEST, size_bytes / pixels))
        mean += (said - mean) / (min(seen, WINDOW) + PRIOR + 1)
        known[power] = min(MOST, max(LEAST, mean)), seen + 1
        self._seen.move_to_end(card.name)
        while len(self._seen) > MAX_MODELS:
            self._seen.popitem(last=False)
        return True

    def bytes_of(self, card: ModelCard | None, pixels: float) -> float:
        """Of a clip of so many pixels, all frames together."""
        return (self._expected(card, _power(pixels)) if card is not None else GUESS) * pixels

    def _expected(self, card: ModelCard, power: int) -> float:
        """Of clips of nearly so many pixels, as far as there were any; else as the card says."""
        known = self._seen.get(card.name)
        if known:
            return known[min(known, key=lambda other: abs(other - power))][0]
        return card.bytes_per_pixel or GUESS

    def known(self) -> list[tuple[str, int, float, int]]:
        """Model, pixels of clips about, bytes for a pixel, and clips they were learned from, by name."""
        found = ((model, power, *what) for model, known in self._seen.items() for power, what in known.items())
        return [(model, 2**power, mean, int(seen)) for model, power, mean, seen in sorted(found)]


def _power(pixels: float) -> int:
    return round(math.log2(pixels)) if pixels >= 1.0 else 0
