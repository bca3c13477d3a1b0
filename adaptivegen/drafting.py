"""In which order an edge makes drafts, and how many may wait: those that somebody looks at go first, and tenants share.
Pure.

Who iterates looks at every draft; who renders waits for the final and has other things to do meanwhile. So a draft for
a render lets the others go first, for so long that its final is hardly later for it: less where that has a deadline.
While more waits than that, all go as they came.

Of those who could go, the tenant goes first that has had least of the model since somebody began to wait (virtual token
counters, as in the cloud's lines: Sheng et al. 2024), so that nobody waits for all drafts of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adaptivegen.request import Intent

RENDER_YIELDS_S, DATED_YIELDS_S = 1.5, 0.5  # chosen in virtual time, docs/adr/0038
AGED_S = 10.0  # for so long nobody lets others go first without end: then in turns with them
MOST_YIELDS_S = 10.0  # whatever is asked for: nobody is kept waiting for ever


def has_room(tenant: str, waiting: Mapping[str, int], *, queued: int, at_most: int) -> bool:
    """Whether a further draft of a tenant may wait where `queued` do; waiting: these by tenant, as far as is known.

    Where `at_most` wait, or more, so may those of tenants that have less than an equal share of so many places, but no
    more than twice as many in all: nobody finds all places taken by another.
    """
    share = max(1, at_most // len({tenant, *waiting}))
    return queued < at_most or (queued < 2 * at_most and waiting.get(tenant, 0) < share)


def share_ahead(tenant: str, waiting: Mapping[str, int]) -> float:
    """Share of the drafts that wait, by tenant, that go before a further one of a tenant, as tenants take turns: all of
    its own, and of each other tenant about as many as those are with the new one. 1 where nothing is known."""
    own, all_of_them = waiting.get(tenant, 0), sum(waiting.values())
    if not all_of_them:
        return 1.0
    return (own + sum(min(count, own + 1) for whose, count in waiting.items() if whose != tenant)) / all_of_them


class Wait(NamedTuple):
    """One that waits: for how long already, and for how long it lets others go first, in seconds; served_s: what its
    tenant has had."""

    waited_s: float
    yields_s: float
    served_s: float = 0.0

    @property
    def yields(self) -> bool:
        """Whether it lets others go first now."""
        return self.waited_s < min(self.yields_s, MOST_YIELDS_S)


def yields_s(intent: Intent, *, deadline_s: float | None) -> float:
    """For how long the draft of a request lets others go first."""
    if intent == "iterate":
        return 0.0
    return RENDER_YIELDS_S if deadline_s is None else DATED_YIELDS_S


def goes_next(waits: Sequence[Wait], *, jumped: bool = False) -> int:
    """Which of those that wait, in the order in which they came, goes next; there must be one. jumped: whether the last
    to go was not the first that came: then one that has waited for AGED_S goes now, whoever has had less."""
    if jumped and waits[0].waited_s >= AGED_S:
        return 0
    eager = [number for number, wait in enumerate(waits) if not wait.yields] or range(len(waits))
    return min(eager, key=lambda number: waits[number].served_s)  # of equals the first
