"""How far predictions may be off: by part of a job, and by family of parts while little is known of one. Pure.

The upper end of a prediction is a quantile of what the last ones were off by, at a level that adapts so that it is met
(adaptive conformal inference, Gibbs and Candès 2021).
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

from scheduler.decide.learn import LearnSettings, clamped

WINDOW = 100  # outcomes that a spread remembers
GUESSES, GUESS = 60, 0.25  # outcomes that stand in for the first ones, so many that one of them cannot be 5 %
STEP, FIRST_STEP = 0.01, 0.05  # by which an outcome moves the centre, and how much more the first one does
FURTHEST_CENTRE = 0.5
STRICTEST, LOOSEST = 0.002, 0.3  # share of misses that a spread's level may be set to
MAX_PARTS = 512  # that are remembered


class Part(NamedTuple):
    """What of a job is predicted; family: the parts that are about as far off, by one name."""

    name: str
    family: str


class Spread:
    """How far predictions of one kind were off: ln(observed / predicted), of the last WINDOW outcomes.

    centre: what is to be added to the logarithm of a prediction so that half of the outcomes lie below; it goes a step
    after each of them, so that whatever is never predicted (round trips, transfers) is, on the whole.
    upper: what is added to the logarithm of a prediction so that `coverage` of the outcomes lie below: a quantile of
    what was off, whose level adapts: after misses beyond what is due it is set more cautiously. While there are few
    outcomes, those of its family stand in for the others, and guesses where it has none.
    """

    def __init__(self, settings: LearnSettings | None = None, *, family: Spread | None = None) -> None:
        self._settings = settings or LearnSettings()
        self._family = family
        self._offs: deque[float] = deque(maxlen=WINDOW)
        self._missed = 1.0 - self._settings.coverage  # the share that may lie above, as it is set now
        self.centre = 0.0
        self.seen = 0
        self.covered = 0
        self._upper: float | None = None  # worked out when it is asked for

    def __repr__(self) -> str:
        return f"Spread(upper={self.upper:.3f}, seen={self.seen}, covered={self.covered})"

    def observe(self, off: float, *, upper: float | None = None, centre: float | None = None) -> None:
        """One outcome: ln(observed / predicted). upper, centre: those it was told with, by default today's. While many
        are out, what comes back was told long ago: without their own centres it would be moved again and again."""
        if not math.isfinite(off):
            return
        off = clamped(off)
        step = STEP + FIRST_STEP / (1 + self.seen)
        away = off + (self.centre if centre is None else centre) - self.centre
        moved = self.centre + math.copysign(min(step, abs(away)), away)
        self.centre = min(FURTHEST_CENTRE, max(-FURTHEST_CENTRE, moved))
        missed = off > (self.upper if upper is None else upper)
        self.seen, self.covered = self.seen + 1, self.covered + (not missed)
        allowed = 1.0 - self._settings.coverage
        self._missed = min(LOOSEST, max(STRICTEST, self._missed + self._settings.patience * (allowed - missed)))
        self._offs.append(off)
        self._upper = None

    def lent(self) -> None:
        """There is an outcome of its family, which may stand in for one of its own."""
        if len(self._offs) < GUESSES:
            self._upper = None

    @property
    def upper(self) -> float:
        """What is added to the logarithm of a prediction for its upper end."""
        if self._upper is None:
            self._upper = clamped(_quantile(self._values(), 1.0 - self._missed))
        return self._upper

    @property
    def coverage(self) -> float | None:
        """Share of outcomes below the upper prediction they were told with; None before the first."""
        return self.covered / self.seen if self.seen else None

    @property
    def error(self) -> float:
        """Mean absolute share by which the remembered outcomes were off; 0 before the first."""
        return statistics.fmean(abs(math.exp(off) - 1.0) for off in self._offs) if self._offs else 0.0

    def _values(self) -> list[float]:
        """The outcomes, filled up with what stands in for others, by size."""
        missing = GUESSES - len(self._offs)
        return sorted([*self._offs, *(self._stand_ins(missing) if missing > 0 else [])])

    def _stand_ins(self, count: int) -> list[float]:
        shares = [(number + 0.5) / count for number in range(count)]
        if self._family is None:
            guess = statistics.NormalDist(0.0, GUESS)
            return [guess.inv_cdf(share) for share in shares]
        theirs = self._family._values()
        return [theirs[int(share * len(theirs))] for share in shares]


class Spreads:
    """The spreads of all parts, and of their families."""

    def __init__(self, settings: LearnSettings) -> None:
        self._settings = settings
        self._parts: OrderedDict[Part, Spread] = OrderedDict()  # the one observed last at the end
        self._families: dict[str, Spread] = {}
        self._unknown = Spread(settings)

    def __repr__(self) -> str:
        return f"Spreads({sorted(part.name for part in self._parts)})"

    def __iter__(self) -> Iterator[tuple[str, Spread]]:
        """Name and spread of every part of which there was an outcome, by name."""
        return iter(sorted((part.name, spread) for part, spread in self._parts.items()))

    def centre(self, part: Part) -> float:
        """What is to be added to the logarithm of a prediction; 0 before there is an outcome."""
        spread = self._parts.get(part)
        return spread.centre if spread is not None else 0.0

    def upper(self, part: Part) -> float:
        """What is to be added to that of its upper end, 0 at least."""
        spread = self._parts.get(part) or self._families.get(part.family) or self._unknown
        return max(0.0, spread.upper)

    def observe(self, part: Part, off: float, *, upper: float, centre: float) -> None:
        """One outcome of a part; see `Spread`."""
        family = self._families.setdefault(part.family, Spread(self._settings))
        family.observe(off, upper=upper, centre=centre)
        if part not in self._parts:
            self._parts[part] = Spread(self._settings, family=family)
        self._parts[part].observe(off, upper=upper, centre=centre)
        self._parts.move_to_end(part)
        while len(self._parts) > MAX_PARTS:
            self._parts.popitem(last=False)
        for other, spread in self._parts.items():
            if other.family == part.family:
                spread.lent()


def _quantile(values: list[float], level: float) -> float:
    """Of values by size; beyond the furthest by as much as the middle half is wide."""
    place = level * (len(values) + 1) - 1
    if place >= len(values) - 1:
        wide = values[len(values) * 3 // 4] - values[len(values) // 4]
        return values[-1] + wide * min(1.0, place - (len(values) - 1))
    below = int(place)
    return values[below] + (place - below) * (values[below + 1] - values[below])
