"""What it takes to hand a draft over from another edge, beside making it: a moving mean by edge. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from adaptivegen.nodes import LINKS_TOLD

GAIN = 0.2  # share of a new measurement in the mean
LONGEST_S = 60.0
FORGET_AFTER_S = 600.0  # a link that was not used for so long may have become another


@dataclass(slots=True)
class Link:
    """The mean, how many measurements it is of, and when the last was made."""

    mean_s: float
    seen: int
    at_s: float


class Links:
    """The links of one edge, at most LINKS_TOLD; the one used last is at the end."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Link] = OrderedDict()

    def observe(self, edge_id: str, handover_s: float, *, now_s: float) -> None:
        """One more was handed over. The second takes the place of the first, which had to connect as well."""
        taken_s = min(LONGEST_S, max(0.0, handover_s))
        link = self._known.get(edge_id)
        if link is None or link.seen == 1 or now_s - link.at_s > FORGET_AFTER_S:
            link = Link(taken_s, 1 if link is None else 2, now_s)
        else:
            link = Link(link.mean_s + GAIN * (taken_s - link.mean_s), link.seen + 1, now_s)
        self._known[edge_id] = link
        self._known.move_to_end(edge_id)
        while len(self._known) > LINKS_TOLD:
            self._known.popitem(last=False)

    def told(self, *, now_s: float) -> dict[str, float]:
        """Seconds by edge, of links that were used lately."""
        return {name: link.mean_s for name, link in self._known.items() if now_s - link.at_s <= FORGET_AFTER_S}
