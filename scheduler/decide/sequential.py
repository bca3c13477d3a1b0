"""Intervals that hold at every moment at once, so that one may look after each outcome and stop when it suits. Pure.

An ordinary 95 % interval misses far more often than 5 % when it is looked at again and again. These do not:
- shares of failures: the beta-binomial mixture martingale (Robbins 1970) with Ville's inequality; exact;
- means: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (Annals of Statistics 2024,
  theorem 2.2); holds as the number of outcomes grows, so none is given before `FEWEST`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

FEWEST = 10  # outcomes, before anything is said of a mean
TIGHTEST_AT = 100  # outcomes at which the interval of a mean is to be narrow
_BISECTIONS = 60


class Interval(NamedTuple):
    """Where the true value is, at all moments at once."""

    low: float
    high: float

    def minus(self, other: Interval) -> Interval:
        """Of the difference, at the sum of the two risks."""
        return Interval(self.low - other.high, self.high - other.low)


@dataclass(slots=True)
class Share:
    """How many of so many outcomes were of one kind."""

    hits: int = 0
    count: int = 0

    def add(self, hit: bool) -> None:
        """One outcome more."""
        self.hits += hit
        self.count += 1

    @property
    def value(self) -> float | None:
        """The share seen; None before anything was."""
        return self.hits / self.count if self.count else None

    def interval(self, risk: float) -> Interval:
        """The true share is outside at any time with at most the chance `risk`."""
        if not self.count:
            return Interval(0.0, 1.0)
        seen, limit = self.hits / self.count, -math.log(risk)
        low = _bisect(self, inside=seen, outside=0.0, limit=limit) if self.hits else 0.0
        high = _bisect(self, inside=seen, outside=1.0, limit=limit) if self.hits < self.count else 1.0
        return Interval(low, high)

    def evidence_against(self, share: float) -> float:
        """Logarithm of the bet against `share` being the true one; endless where it cannot be."""
        misses = self.count - self.hits
        if (share <= 0.0 and self.hits) or (share >= 1.0 and misses):
            return math.inf
        mixed = math.lgamma(1 + self.hits) + math.lgamma(1 + misses) - math.lgamma(2 + self.count)
        likelihood = (self.hits * math.log(share) if self.hits else 0.0) + (
            misses * math.log1p(-share) if misses else 0.0
        )
        return mixed - likelihood


def _bisect(share: Share, *, inside: float, outside: float, limit: float) -> float:
    """Where the evidence reaches the limit, between a value that stands and one that may not."""
    if share.evidence_against(outside) <= limit:
        return outside
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if share.evidence_against(middle) <= limit:
            inside = middle
        else:
            outside = middle
    return outside


@dataclass(slots=True)
class Mean:
    """Mean and spread of numbers that come one at a time (Welford)."""

    count: int = 0
    value: float = 0.0
    squares: float = 0.0

    def add(self, number: float) -> None:
        """One number more."""
        self.count += 1
        before = number - self.value
        self.value += before / self.count
        self.squares += before * (number - self.value)

    def interval(self, risk: float, *, least_spread: float) -> Interval:
        """The true mean is outside at any time with at most about the chance `risk`; anywhere before `FEWEST` numbers.

        least_spread: the standard deviation taken where fewer is seen, lest a few equal numbers prove too much.
        """
        if self.count < FEWEST:
            return Interval(-math.inf, math.inf)
        variance = max(self.squares / (self.count - 1), least_spread**2)
        doubled = -2.0 * math.log(risk)
        scale = (doubled + math.log(doubled + 1.0)) / TIGHTEST_AT  # their rho squared, narrow at that count
        grown = self.count * scale + 1.0
        radius = math.sqrt(variance * 2.0 * grown / (self.count**2 * scale) * math.log(math.sqrt(grown) / risk))
        return Interval(self.value - radius, self.value + radius)
