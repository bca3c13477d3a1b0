"""Which of several like places gets the work. Pure.

Places are `hot` when more work is ahead of them than of most others (Prequal, NSDI'24, by seconds of work in place of
requests in flight) and are taken only where nothing else is there. Of the cold ones the soonest is meant, but those
that are nearly as soon are drawn by chance, weighted by headroom: schedulers that see the same reports must not all
choose the same place. With fewer than seven places none is hot: the quantile is that of the fullest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from adaptivegen.errors import SettingsInvalid

SAMPLE_BEYOND, SAMPLE = 32, 8  # of more places than this only so many are looked at


@dataclass(frozen=True, slots=True)
class SelectSettings:
    """hot_quantile: share of places whose load is not hot; near_s, near_share: by how much later than the soonest a
    place may be to be as good; explore: share of choices that try another place, so that what is known does not age."""

    hot_quantile: float = 0.84
    near_s: float = 0.05
    near_share: float = 0.1
    explore: float = 0.02

    def __post_init__(self) -> None:
        bounds = {"hot_quantile": (0.5, 1.0), "near_s": (0.0, 60.0), "near_share": (0.0, 1.0), "explore": (0.0, 0.02)}
        for item in fields(self):
            value, (least, most) = getattr(self, item.name), bounds[item.name]
            if not least <= value <= most:  # nor if it is no number
                raise SettingsInvalid(f"{item.name} is {value}; allowed: {least:g} to {most:g}", param=item.name)


class Place(NamedTuple):
    """One place. done_s: when the work would be done there; load_s: work ahead per slot; weight: see `Healths`."""

    name: str
    done_s: float
    load_s: float
    weight: float = 1.0

    @property
    def headroom(self) -> float:
        """What it is drawn by among near-ties."""
        return self.weight / (1.0 + self.load_s)


def sampled(names: Sequence[str], rng: random.Random, *, keep: Collection[str]) -> Sequence[str]:
    """All names while they are few; else SAMPLE of them by chance, and those of `keep`."""
    if len(names) <= SAMPLE_BEYOND:
        return names
    chosen = set(rng.sample(range(len(names)), SAMPLE))
    return [name for index, name in enumerate(names) if index in chosen or name in keep]


def hot_above(loads: Iterable[float], quantile: float) -> float:
    """The load above which a place is hot: a quantile (nearest rank) of all loads, of which there is one at least."""
    ranked = sorted(loads)
    return ranked[max(0, math.ceil(quantile * len(ranked)) - 1)]


def chances(places: Sequence[Place], settings: SelectSettings, *, home: str = "", stay: str = "") -> dict[str, float]:
    """With which chance each of `places`, of which there is at least one, is to be taken; those with none are left out.

    home: taken for sure where it is among the near-ties, since work that stays costs others nothing. stay: taken
    whatever the others offer (a session's place).
    """
    if stay in [place.name for place in places]:
        return {stay: 1.0}
    limit_s = hot_above([place.load_s for place in places], settings.hot_quantile)
    cold = [place for place in places if place.load_s <= limit_s]
    soonest_s = min([place.done_s for place in cold])
    near_s = soonest_s + max(settings.near_s, settings.near_share * soonest_s)
    near = [place for place in cold if place.done_s <= near_s]
    if home in [place.name for place in near]:
        return {home: 1.0}
    if len(near) == 1:
        return {near[0].name: 1.0}
    headroom = [place.headroom for place in near]
    total = sum(headroom)
    return {place.name: room / total for place, room in zip(near, headroom, strict=True)}


def drawn(by_name: Mapping[str, float], rng: random.Random) -> str:
    """One name, with its chance; nothing is drawn where only one is to be had."""
    names = list(by_name)
    return names[0] if len(names) == 1 else rng.choices(names, list(by_name.values()))[0]
