"""How likely a request repeats an earlier one, and how likely the media of such a final is in the edge's cache. Pure.

Beta distributions that forget: every request counts for a little less with each that follows. A tenant's chance at an
edge begins where the edge's is. How good the chances are is kept beside them: each is told before it is seen what
became of it (Brier's score, and expected against seen).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

from adaptivegen.nodes import NodeReport

What = Literal["known", "cached"]
Key = TypeVar("Key")

FORGETS = 0.995  # of what is known, kept with each request: about the last 200 count
PRIORS: dict[What, tuple[float, float]] = {"known": (0.1, 4.0), "cached": (0.5, 2.0)}  # chance, and requests it weighs
TENANT_PRIOR = 8.0  # requests that the edge's chance weighs, for a tenant
MAX_EDGES, MAX_TENANTS = 4096, 8192
MOST_AT_ONCE = 256  # repeats that one heartbeat may tell of


@dataclass(slots=True)
class Chance:
    """One chance: what counts of it, and how it did. seen: requests, expected: of them, those that should have been
    so, came: that were; brier: sum of the squared differences."""

    yes: float = 0.0
    all: float = 0.0
    seen: int = 0
    expected: float = 0.0
    came: int = 0
    squares: float = 0.0

    def of(self, prior: float, weight: float) -> float:
        """The mean."""
        return (self.yes + prior * weight) / (self.all + weight)

    def observe(self, was: bool, told: float) -> None:
        """One more request; told: the chance as it was before."""
        self.yes, self.all = FORGETS * self.yes + was, FORGETS * self.all + 1.0
        self.seen, self.came, self.expected = self.seen + 1, self.came + was, self.expected + told
        self.squares += (told - was) ** 2

    @property
    def brier(self) -> float:
        """Mean squared difference of what was told and what came; 0 is perfect, 0 before the first."""
        return self.squares / self.seen if self.seen else 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """A chance for operators. tenant: empty for all of an edge's."""

    edge_id: str
    tenant: str
    what: What
    chance: float
    seen: int
    expected: float
    came: int
    brier: float


class Hits:
    """The chances of all edges and their tenants."""

    def __init__(self) -> None:
        self._edges: dict[What, OrderedDict[str, Chance]] = {"known": OrderedDict(), "cached": OrderedDict()}
        self._tenants: OrderedDict[tuple[str, str], Chance] = OrderedDict()
        self._tenants_of: dict[str, set[str]] = {}  # of these, by edge: an edge is forgotten as a whole
        self.revision = 0  # grows with what predictions use
        self._heard: OrderedDict[str, tuple[int, int, int]] = OrderedDict()  # life, cached and fetched repeats

    def __repr__(self) -> str:
        return f"Hits(edges={len(self._edges['known'])}, tenants={len(self._tenants)})"

    def asked(self, edge_id: str, tenant: str, known: bool) -> None:
        """A request came, and whether its final was known."""
        own = _of(self._tenants, (edge_id, tenant), MAX_TENANTS, gone=self._gone)
        self._tenants_of.setdefault(edge_id, set()).add(tenant)
        own.observe(known, self.known(edge_id, tenant))
        self._note("known", edge_id, known)

    def hear(self, report: NodeReport) -> None:
        """An edge tells how many finals it answered repeats with, by whether their bytes were in its cache."""
        if report.kind != "edge":
            return
        known = self._heard.get(report.node_id)
        life, cached, fetched = known or (report.started_at_ns, report.repeats_cached, report.repeats_fetched)
        if report.started_at_ns < life:
            return
        if report.started_at_ns != life:
            cached = fetched = 0
        more, others = report.repeats_cached - cached, report.repeats_fetched - fetched
        self._heard[report.node_id] = report.started_at_ns, report.repeats_cached, report.repeats_fetched
        self._heard.move_to_end(report.node_id)
        while len(self._heard) > MAX_EDGES:
            self._heard.popitem(last=False)
        for number, was in ((others, False), (more, True)):
            for _ in range(min(MOST_AT_ONCE, number)):
                self._note("cached", report.node_id, was)

    def known(self, edge_id: str, tenant: str) -> float:
        """The chance that a tenant's request at an edge repeats one whose final is stored."""
        edge = self._chance("known", edge_id)
        own = self._tenants.get((edge_id, tenant))
        return own.of(edge, TENANT_PRIOR) if own is not None else edge

    def cached(self, edge_id: str) -> float:
        """The chance that a repeat's final is in the edge's cache."""
        return self._chance("cached", edge_id)

    def forget(self, edge_id: str) -> None:
        """The edge is gone for good."""
        self._heard.pop(edge_id, None)
        for edges in self._edges.values():
            edges.pop(edge_id, None)
        for tenant in self._tenants_of.pop(edge_id, ()):
            del self._tenants[edge_id, tenant]

    def _gone(self, key: tuple[str, str]) -> None:
        edge_id, tenant = key
        self._tenants_of[edge_id].discard(tenant)
        if not self._tenants_of[edge_id]:
            del self._tenants_of[edge_id]

    def all(self, most: int = MAX_EDGES) -> list[Known]:
        """The chances of edges, then of tenants, those asked for last first; at most so many, by name."""
        found = ((what, edge_id, chance) for what, edges in self._edges.items() for edge_id, chance in edges.items())
        edges = [
            _told(edge_id, "", what, self._chance(what, edge_id), chance)
            for what, edge_id, chance in islice(found, most)
        ]
        tenants = [
            _told(edge_id, tenant, "known", self.known(edge_id, tenant), chance)
            for (edge_id, tenant), chance in islice(reversed(self._tenants.items()), max(0, most - len(edges)))
        ]
        return sorted([*edges, *tenants], key=lambda known: (known.edge_id, known.tenant, known.what))

    def _chance(self, what: What, edge_id: str) -> float:
        prior, weight = PRIORS[what]
        chance = self._edges[what].get(edge_id)
        return chance.of(prior, weight) if chance is not None else prior

    def _note(self, what: What, edge_id: str, was: bool) -> None:
        told = self._chance(what, edge_id)
        self.revision += what == "cached"
        _of(self._edges[what], edge_id, MAX_EDGES).observe(was, told)


def _of(
    known: OrderedDict[Key, Chance], key: Key, most: int, *, gone: Callable[[Key], None] = lambda key: None
) -> Chance:
    """The chance of this name, begun where there is none; it is at the end then, and the first gives way: `gone`."""
    chance = known.get(key)
    if chance is None:
        chance = known[key] = Chance()
    known.move_to_end(key)
    while len(known) > most:
        gone(known.popitem(last=False)[0])
    return chance


def _told(edge_id: str, tenant: str, what: What, mean: float, chance: Chance) -> Known:
    return Known(edge_id, tenant, what, mean, chance.seen, chance.expected, chance.came, chance.brier)
