"""Which edge makes a draft: the one that asks where it can do so about as soon as any, else another. Pure.

A session stays where it is (`sessions`). Now and then an edge is tried that the asking one has sent nothing to for a
while: a decision carries that out (`Drafting.trial`) after its plan is settled, so that a trial never changes the plan,
and says which trials it would not have made (`Drafting.without_trials`), so that chances are told as they were.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import DraftPlace, PlacementQuery
from scheduler.decide.learned import draft_part
from scheduler.decide.offers import Offer, Offers, offers
from scheduler.decide.qoe import patience, quality_of
from scheduler.decide.select import chances, drawn
from scheduler.decide.sessions import stays
from scheduler.decide.spreads import Part
from scheduler.decide.view import View
from scheduler.decide.work import Work, draft_size

UNTRIED_S = 60.0  # an edge to which the asking one has sent nothing for so long may be tried
DEAREST_TRIAL = 0.1  # QoE that a trial may cost
BACKUP_WITHIN = 2.0  # times what the first should take at most: a second copy that takes longer is not begun
NEVER_S = 86400.0  # after which a second copy is begun where none is to be, unless the first fails
TIED_S = 0.5  # after it should have begun, a draft that has not waits at a second edge, too; docs/adr/0041
MAX_TOLD = 10  # places in a decision: home, the session's and a sample of the others
WORTH_SAYING_S = 0.05  # of what keeps the asking edge from drafting soon
WORTH_SAYING = 1.05  # times as long as the other
USUAL = draft_part()


class Trials(NamedTuple):
    """Places of which one may be tried instead, each with the same chance; share: of them all."""

    offers: tuple[Offer, ...] = ()
    share: float = 0.0


NO_TRIALS = Trials()


class Drafting(NamedTuple):
    """Where and when the draft would be made. `obstacle` is empty when it can be; times in seconds from now.

    places: the edges that were looked at; gain: QoE by which the best of them is better than the chosen one; late_s:
    what such a draft should not exceed; load_s: of wait_s, until the edge has loaded its model again; backup: the next
    best, where there is none one that is out of rotation, or empty; backup_after_s: when it is begun though nothing has
    failed; tied_after_s: when the draft waits there, too, if it has begun nowhere; trial: another place to be tried
    instead, if the decision drafts; trials: of which it was drawn, as propensity and chances count them; room_s: see
    `Offers`.
    """

    obstacle: str
    edge_id: str = ""
    wait_s: float = 0.0
    work: Work | None = None
    note: str = ""
    part: Part = USUAL
    places: tuple[DraftPlace, ...] = ()
    propensity: float = 1.0
    gain: float = 0.0
    late_s: float = 0.0
    load_s: float = 0.0
    backup: str = ""
    backup_after_s: float = 0.0
    tied_after_s: float = 0.0
    trial: Drafting | None = None
    trials: Trials = NO_TRIALS
    room_s: float | None = None

    def at(self, offer: Offer) -> Drafting:
        """The same, made by another edge than the asking one: as far as times go."""
        return self._replace(
            edge_id=offer.edge_id,
            wait_s=offer.wait_s,
            work=offer.work,
            part=draft_part(offer.node_class, at_peer=True),
            load_s=offer.left_s,
        )

    def without_trials(self, dropped: Collection[str]) -> Drafting:
        """The same with the chances as they are where the trials of these edges would not be made: nothing is drawn
        in their place."""
        if not dropped:
            return self
        offers, share = self.trials
        triable = {offer.edge_id for offer in offers}
        left = 1.0 - share * (len(triable) - len(dropped)) / len(triable)

        def chance(name: str, before: float) -> float:
            if name in triable:
                return 0.0 if name in dropped else before
            return before * left / (1.0 - share)

        places = [place.model_copy(update={"chance": chance(place.edge_id, place.chance)}) for place in self.places]
        return self._replace(places=tuple(places), propensity=chance(self.edge_id, self.propensity))

    @property
    def done_s(self) -> float | None:
        """When the draft is complete."""
        return self.wait_s + self.work.total_s if self.work and not self.obstacle else None

    @property
    def look_s(self) -> float | None:
        """When its first look is there."""
        return self.wait_s + self.work.first_look_s if self.work and not self.obstacle else None


def drafting(view: View, query: PlacementQuery, card: ModelCard | None, *, now_ns: int, rng: random.Random) -> Drafting:
    """Choose the edge that would draft; changes nothing."""
    if query.draft_known:
        return Drafting("", query.edge_id, 0.0, Work(0.0, 0.0, 0.0), "the draft is there already")
    if card is None:
        return Drafting(f"no model card {query.draft_model} is known here")
    found = offers(view, query, card, now_ns=now_ns, rng=rng)
    if not found.by_edge:
        return Drafting(found.obstacle, room_s=found.room_s)
    worth = _worth(view, query, card, found.by_edge)
    return _Choice(view, query, found, worth, best=max(worth.values()), now_s=now_ns / 1e9).made(rng)


def draft_quality(view: View, query: PlacementQuery, card: ModelCard | None) -> float:
    """Of a draft as edges make it, 1 to 5."""
    assumed, readings = view.policy.qoe.unmeasured_draft, view.readings
    if card is None:
        return assumed
    width, height, _ = readings.draft_shape(card, width=query.width, height=query.height, frames=query.frames)
    return readings.quality(card, "draft", steps=card.limits.steps_default, width=width, height=height, assumed=assumed)


def quality_of_draft(card: ModelCard | None, *, width: int, height: int, assumed: float) -> float:
    """Of a draft for a request of this size, which may not be the draft's."""
    if card is None:
        return assumed
    width, height = draft_size(card, width=width, height=height)
    return quality_of(card, "draft", steps=card.limits.steps_default, width=width, height=height, assumed=assumed)


def _worth(view: View, query: PlacementQuery, card: ModelCard, found: Mapping[str, Offer]) -> Mapping[str, float]:
    """What the draft of each offer adds to the QoE."""
    settings = view.policy.qoe
    most = settings.draft_weight(query.intent) * (draft_quality(view, query, card) - 1.0)
    best_s, worst_s = settings.draft_best_s, settings.draft_worst_s
    return {name: most * patience(offer.done_s, best_s=best_s, worst_s=worst_s) for name, offer in found.items()}


class _Choice(NamedTuple):
    """One choice among offers, of which it is known what they add to the QoE, and the best of them."""

    view: View
    query: PlacementQuery
    offers: Offers
    worth: Mapping[str, float]
    best: float
    now_s: float

    def made(self, rng: random.Random) -> Drafting:
        """The choice, with the trial that chance may ask for."""
        query, by_edge = self.query, self.offers.by_edge
        session = self.view.sessions.get(query.tenant, query.session, now_s=self.now_s)
        held = session.edge_id if session is not None and session.edge_id in by_edge else ""
        stay = bool(held) and stays(session, gain=self.best - self.worth[held], now_s=self.now_s)
        greedy = chances(
            [offer.place() for offer in by_edge.values()],
            self.view.select,
            home=query.edge_id,
            stay=held if stay else "",
        )
        others = [name for name in by_edge if name not in greedy and self._may_be_tried(name)]
        share = self.view.select.explore if others else 0.0
        all_chances = {name: (1.0 - share) * chance for name, chance in greedy.items()}
        all_chances |= {name: share / len(others) for name in others}
        name = drawn(greedy, rng)
        note = f"edge {name} drafts, as it did for this session" if stay else self._why(name)
        trial = None
        if others and rng.random() < share:
            tried = rng.choice(others)
            trial = self._at(tried, all_chances, f"edge {tried} drafts, so that it is known how long that takes")
        trials = Trials(tuple([by_edge[other] for other in others]), share) if others else NO_TRIALS
        made = self._at(name, all_chances, note)._replace(trials=trials)
        return made._replace(trial=trial._replace(trials=trials)) if trial is not None else made

    def _may_be_tried(self, name: str) -> bool:
        """Whether nothing was sent there for long, and its draft would surely come while someone waits for it.

        Drafts of a session are not tried elsewhere: it would stay there.
        """
        if self.query.session or name == self.query.edge_id or self.best - self.worth[name] > DEAREST_TRIAL:
            return False
        if self.now_s - self.view.sent_s(self.query.edge_id, name) < UNTRIED_S:
            return False
        upper_s = self._upper_s(self.offers.by_edge[name])
        return upper_s is not None and upper_s < self.view.policy.qoe.draft_worst_s

    def _part(self, offer: Offer) -> Part:
        return draft_part(offer.node_class, at_peer=offer.edge_id != self.query.edge_id)

    def _upper_s(self, offer: Offer) -> float | None:
        return self.view.learned.told_s(self._part(offer), offer.done_s)[1]

    def _at(self, name: str, by_name: Mapping[str, float], note: str) -> Drafting:
        """The draft made at this edge."""
        chosen = self.offers.by_edge[name]
        others = sorted((o for o in self.offers.by_edge.values() if o is not chosen), key=lambda offer: offer.done_s)
        late_s = (self._upper_s(chosen) or 0.0) + chosen.left_s
        in_time = bool(others) and others[0].done_s <= BACKUP_WITHIN * late_s
        if not others and self.offers.resting is not None:
            others.append(self.offers.resting)
        backup = others[0] if others else None
        told = [chosen, *others[: MAX_TOLD - 1]]
        return Drafting(
            obstacle="",
            edge_id=name,
            wait_s=chosen.wait_s,
            work=chosen.work,
            note=note,
            part=self._part(chosen),
            places=tuple(offer.told(by_name.get(offer.edge_id, 0.0)) for offer in told),
            propensity=by_name[name],
            gain=self.best - self.worth[name],
            late_s=late_s,
            load_s=chosen.left_s,
            backup=backup.edge_id if backup is not None else "",
            backup_after_s=late_s if in_time else NEVER_S,
            tied_after_s=chosen.wait_s + TIED_S if backup is not None and _soon_there(backup, late_s) else 0.0,
        )

    def _why(self, name: str) -> str:
        """Why there; empty where it needs no saying."""
        home = self.query.edge_id
        if name == home:
            return self.offers.by_edge[home].note
        if self.offers.obstacle:
            return f"edge {name} drafts, since {self.offers.obstacle}"
        return f"edge {name} drafts, since {_behind(self.offers.by_edge[home], self.offers.by_edge[name])}"


def _soon_there(backup: Offer, late_s: float) -> bool:
    """Whether the backup, once it has begun, would have the draft within what the first should not exceed: of two that
    wait the first to begin ends the other, which must not be by far the quicker."""
    return backup.work.total_s <= late_s


def _behind(home: Offer, chosen: Offer) -> str:
    """Why the asking edge is not the one to draft, though it can: all that makes its draft come late or last long."""
    doubt_s = home.wait_s - home.left_s - home.load_s
    slower = home.work.total_s / chosen.work.total_s if chosen.work.total_s else 1.0
    said = []
    if home.left_s >= WORTH_SAYING_S:
        said.append(f"loads its draft model, for about {home.left_s:.1f} s more")
    if home.load_s >= WORTH_SAYING_S:
        said.append(f"has {home.load_s:.1f} s of work ahead")
    if doubt_s >= WORTH_SAYING_S:
        said.append("has just failed")
    if slower >= WORTH_SAYING:
        said.append(f"takes {slower:.1f} times as long for a draft")
    if said:
        return f"edge {home.edge_id} {' and '.join(said)}"
    if home.done_s > chosen.done_s:
        return f"a draft of edge {home.edge_id} would come {home.done_s - chosen.done_s:.2f} s later"
    return f"edge {home.edge_id} has more work ahead than most"
