"""Which edge makes a draft: the one that asks where it can do so about as soon as any, else another. Pure.

Every edge with the draft model is a place; what another one adds is the time of handing a draft over, which the asking
edge has measured and told. A session stays where it is (`sessions`), and an edge that fails is left out (`health`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import DraftPlace, PlacementQuery
from scheduler.decide.predict import draft_at, draft_wait_s
from scheduler.decide.qoe import patience, quality_of
from scheduler.decide.select import Place, draw, sampled
from scheduler.decide.sessions import stays
from scheduler.decide.view import Node, View
from scheduler.decide.work import Work, draft_size

UNKNOWN_HANDOVER_S = 0.05  # to an edge that has not drafted for this one yet
UNTRIED_S = 60.0  # an edge that was sent nothing for so long may be tried
DEAREST_TRIAL = 0.1  # QoE that a trial may cost
MAX_TOLD = 9  # places in a decision
Part = Literal["draft", "draft at a peer"]


@dataclass(frozen=True, slots=True)
class Drafting:
    """Where and when the draft would be made. `obstacle` is empty when it can be; times in seconds from now.

    places: the edges that were looked at; gain: QoE by which the best of them is better than the chosen one; backup:
    the next best, empty where there is none.
    """

    obstacle: str
    edge_id: str = ""
    wait_s: float = 0.0
    work: Work | None = None
    note: str = ""
    part: Part = "draft"
    places: tuple[DraftPlace, ...] = ()
    propensity: float = 1.0
    gain: float = 0.0
    backup: str = ""

    @property
    def done_s(self) -> float | None:
        """When the draft is complete."""
        return self.wait_s + self.work.total_s if self.work and not self.obstacle else None

    @property
    def look_s(self) -> float | None:
        """When its first look is there."""
        return self.wait_s + self.work.first_look_s if self.work and not self.obstacle else None


@dataclass(frozen=True, slots=True)
class _Offer:
    """One edge that can draft; wait_s: until it would begin, with the handing over."""

    edge_id: str
    address: str
    wait_s: float
    load_s: float
    work: Work
    weight: float
    untried: bool
    note: str = ""

    @property
    def done_s(self) -> float:
        return self.wait_s + self.work.total_s

    def told(self) -> DraftPlace:
        return DraftPlace(
            edge_id=self.edge_id, address=self.address, draft_s=self.done_s, load_s=self.load_s, weight=self.weight
        )


def drafting(view: View, query: PlacementQuery, card: ModelCard | None, *, now_ns: int, rng: random.Random) -> Drafting:
    """Choose the edge that would draft; changes nothing."""
    if query.draft_known:
        return Drafting("", query.edge_id, 0.0, Work(0.0, 0.0, 0.0), "the draft is there already")
    if card is None:
        return Drafting(f"no model card {query.draft_model} is known here")
    if draft_at(view, query, query.edge_id) is None:
        return Drafting(f"the card of {card.name} has no measured times")
    edges = view.nodes.serving("edge", card.name, now_ns=now_ns)
    fit = {
        node.report.node_id: node
        for node in view.healths.in_rotation(edges, lambda node: node.report.node_id, now_s=now_ns / 1e9)
    }
    at_home = _at_home(view, query, card, fit, now_ns=now_ns)
    offers = [at_home] if isinstance(at_home, _Offer) else []
    offers += _elsewhere(view, query, fit, now_ns=now_ns, rng=rng)
    if not offers:
        return Drafting(str(at_home))
    quality = draft_quality(view, query, card)

    def worth(offer: _Offer) -> float:
        """What the draft adds to the QoE."""
        settings = view.policy.qoe
        seen = patience(offer.done_s, best_s=settings.draft_best_s, worst_s=settings.draft_worst_s)
        return settings.draft_weight(query.intent) * (quality - 1.0) * seen

    return _chosen(
        view, query, {offer.edge_id: (offer, worth(offer)) for offer in offers}, at_home, now_ns=now_ns, rng=rng
    )


def draft_quality(view: View, query: PlacementQuery, card: ModelCard | None) -> float:
    """Of a draft as edges make it, 1 to 5."""
    assumed = view.policy.qoe.unmeasured_draft
    if card is None:
        return assumed
    width, height = draft_size(card, width=query.width, height=query.height)
    return quality_of(card, "draft", steps=card.limits.steps_default, width=width, height=height, assumed=assumed)


def _chosen(
    view: View,
    query: PlacementQuery,
    offers: dict[str, tuple[_Offer, float]],
    at_home: _Offer | str,
    *,
    now_ns: int,
    rng: random.Random,
) -> Drafting:
    """Draw one of the offers, of which the QoE by their drafts is told."""
    best = max(worth for _, worth in offers.values())
    session = view.sessions.get(query.tenant, query.session, now_s=now_ns / 1e9)
    held = session.edge_id if session is not None and session.edge_id in offers else ""
    stay = bool(held) and stays(session, gain=best - offers[held][1], now_s=now_ns / 1e9)
    near_best = {name: offer for name, (offer, worth) in offers.items() if best - worth <= DEAREST_TRIAL}
    drawn = draw(
        [Place(offer.edge_id, offer.done_s, offer.load_s, offer.weight) for offer, _ in offers.values()],
        view.select,
        rng,
        home=query.edge_id,
        stay=held if stay else "",
        explorable=[] if stay else [name for name, offer in near_best.items() if _may_be_tried(view, offer)],
    )
    chosen, worth = offers[drawn.place.name]
    others = sorted((offer for offer, _ in offers.values() if offer is not chosen), key=lambda offer: offer.done_s)
    return Drafting(
        "",
        chosen.edge_id,
        chosen.wait_s,
        chosen.work,
        _note(query, chosen, at_home, stay=stay, explored=drawn.explored),
        "draft" if chosen.edge_id == query.edge_id else "draft at a peer",
        tuple(offer.told() for offer in (chosen, *others)[:MAX_TOLD]),
        drawn.propensity,
        best - worth,
        others[0].edge_id if others else "",
    )


def _may_be_tried(view: View, offer: _Offer) -> bool:
    """Nothing was sent there for long, and its draft would surely come while someone waits for it."""
    upper_s = view.learned.upper_s("draft at a peer", offer.done_s)
    return offer.untried and upper_s is not None and upper_s < view.policy.qoe.draft_worst_s


def _at_home(
    view: View, query: PlacementQuery, card: ModelCard, fit: Mapping[str, Node], *, now_ns: int
) -> _Offer | str:
    """The asking edge, or why it cannot draft."""
    edge, node = query.edge_id, view.nodes.get(query.edge_id)
    work = draft_at(view, query, edge)
    if work is None:
        return f"the card of {card.name} has no measured times"
    condition = node.condition(now_ns) if node is not None else "stale"
    if node is None or condition == "stale":
        # The edge lives, since it asks; after a scheduler's restart its first report is half a second away.
        note = f"edge {edge} has sent no fresh report, so it is taken to be idle"
        return _Offer(edge, "", 0.0, 0.0, work, 1.0, False, note)
    if condition == "draining":
        return f"edge {edge} is being drained"
    if condition == "loading":
        return f"edge {edge} is not ready to draft"
    if card.name not in node.report.models:
        return f"edge {edge} does not serve {card.name}"
    if edge not in fit:
        return f"drafts of edge {edge} have failed time and again"
    return _offer(view, query, node, work, handover_s=0.0, now_ns=now_ns)


def _elsewhere(
    view: View, query: PlacementQuery, fit: Mapping[str, Node], *, now_ns: int, rng: random.Random
) -> list[_Offer]:
    """The other edges that can draft."""
    others = [name for name, node in fit.items() if name != query.edge_id and node.report.grpc_address]
    session = view.sessions.get(query.tenant, query.session, now_s=now_ns / 1e9)
    asking = view.nodes.get(query.edge_id)
    links = asking.report.links if asking is not None else {}
    offers = []
    for name in sampled(others, rng, keep=[session.edge_id] if session else []):
        work = draft_at(view, query, name)
        if work is not None:
            handover_s = links.get(name, UNKNOWN_HANDOVER_S)
            offers.append(_offer(view, query, fit[name], work, handover_s=handover_s, now_ns=now_ns))
    return offers


def _offer(view: View, query: PlacementQuery, node: Node, work: Work, *, handover_s: float, now_ns: int) -> _Offer:
    load_s = draft_wait_s(view, node, query.draft_model, now_ns=now_ns)
    return _Offer(
        node.report.node_id,
        node.report.grpc_address,
        load_s + handover_s,
        load_s,
        work,
        view.healths.weight(node.report.node_id, now_s=now_ns / 1e9),
        untried=handover_s > 0.0 and now_ns - node.asked_at_ns >= UNTRIED_S * 1e9,
        note=work.note,
    )


def _note(query: PlacementQuery, chosen: _Offer, at_home: _Offer | str, *, stay: bool, explored: bool) -> str:
    """Why there; empty where it needs no saying."""
    if chosen.edge_id == query.edge_id:
        return chosen.note
    if isinstance(at_home, str):
        return f"edge {chosen.edge_id} drafts, since {at_home}"
    if explored:
        return f"edge {chosen.edge_id} drafts, so that it is known how long that takes"
    if stay:
        return f"edge {chosen.edge_id} drafts, as it did for this session"
    return f"edge {chosen.edge_id} drafts, since edge {query.edge_id} has {at_home.load_s:.1f} s of work ahead"
