"""Which edges could make a draft, and when each would have it made. Pure.

Every edge with the very same draft model is a place; what another one than the asking edge adds is the time of handing
a draft over, which the asking edge has measured and told.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import DraftPlace, PlacementQuery
from scheduler.decide.node import Node
from scheduler.decide.predict import asked_draft, draft_wait_s
from scheduler.decide.select import Place, sampled
from scheduler.decide.view import View
from scheduler.decide.work import Work

UNKNOWN_HANDOVER_S = 0.05  # to an edge that has not drafted for the asking one yet


class Offer(NamedTuple):
    """One edge that can draft; done_s: when the draft would be at the asking edge, in seconds from now; wait_s: until
    it would be begun, with the handing over; left_s: of that, until it has loaded its model again; node_class: of its
    machine."""

    edge_id: str
    address: str
    done_s: float
    wait_s: float
    load_s: float
    work: Work
    weight: float = 1.0
    note: str = ""
    left_s: float = 0.0
    node_class: str = ""

    def later(self, by_s: float) -> Offer:
        """The same, begun later."""
        wait_s = self.wait_s + by_s
        return self._replace(wait_s=wait_s, done_s=wait_s + self.work.total_s)

    def place(self) -> Place:
        """For the drawing of lots."""
        return Place(self.edge_id, self.done_s, self.load_s, self.weight)

    def told(self, chance: float) -> DraftPlace:
        """For the decision."""
        return DraftPlace(
            edge_id=self.edge_id,
            address=self.address,
            draft_s=self.done_s,
            load_s=self.load_s,
            weight=self.weight,
            chance=chance,
        )


class Away(NamedTuple):
    """Why an edge makes no draft; left_s: of what waits there, where nothing but that is why."""

    why: str
    left_s: float | None = None


class Offers(NamedTuple):
    """Of all edges that were looked at, by id; obstacle: why the asking edge makes none, empty where it does; resting:
    where only one edge offers anything, another that has the model and is out of rotation for the moment; room_s:
    where none does since too many drafts wait, seconds until one should have room for a further one."""

    by_edge: Mapping[str, Offer]
    obstacle: str = ""
    resting: Offer | None = None
    room_s: float | None = None


def offers(view: View, query: PlacementQuery, card: ModelCard, *, now_ns: int, rng: random.Random) -> Offers:
    """What the asking edge offers and what others do."""
    work = asked_draft(view, query)
    if work is None:
        return Offers({}, f"the card of {card.name} has no measured times")
    in_rotation = view.in_rotation("edge", query.draft_model, now_ns=now_ns, asker=query.edge_id)
    fit = {node.report.node_id: node for node in in_rotation}
    home = _at_home(view, query, fit, work, now_ns=now_ns)
    found = {home.edge_id: home} if isinstance(home, Offer) else {}
    obstacle = home.why if isinstance(home, Away) else ""
    found |= {offer.edge_id: offer for offer in _elsewhere(view, query, fit, work, now_ns=now_ns, rng=rng)}
    if isinstance(home, Away) and not found:
        return _nowhere(view, query, fit, home, now_ns=now_ns, rng=rng)
    resting = _resting(view, query, found, work, now_ns=now_ns) if len(found) == 1 else None
    return Offers(_doubted(view, query, found, now_ns=now_ns), obstacle, resting)


def _nowhere(
    view: View, query: PlacementQuery, fit: Mapping[str, Node], home: Away, *, now_ns: int, rng: random.Random
) -> Offers:
    """No edge drafts; where that is since too many drafts wait, until some of those are done that wait at the edge
    where that is soonest: between half of them and all, by chance, so that not all who are told so come at once."""
    full = [node for node in fit.values() if _lends(node, query) and _is_full(node, query, now_ns)]
    others = [node for node in full if node.report.node_id != query.edge_id]
    left_s = [draft_wait_s(view, node, query.draft_model, now_ns=now_ns, asker=query.edge_id) for node in others]
    obstacle = home.why
    if home.left_s is not None:
        left_s.append(home.left_s)
    elif left_s:
        obstacle += ", and elsewhere too many drafts wait"
    room_s = min(left_s) * (0.5 + 0.5 * rng.random()) if left_s else None
    return Offers({}, obstacle, room_s=room_s)


def _resting(view: View, query: PlacementQuery, found: Mapping[str, Offer], work: Work, *, now_ns: int) -> Offer | None:
    """The soonest edge that is ejected: nothing is begun there, but by the time that a draft is late it may be back."""
    places = []
    links = _links(view, query)
    for node in view.nodes.serving("edge", query.draft_model, now_ns=now_ns):
        name = node.report.node_id
        if name not in found and _may_draft(node, query) and not _is_full(node, query, now_ns):
            handover_s = 0.0 if name == query.edge_id else links.get(name, UNKNOWN_HANDOVER_S)
            places.append(_offer(view, query, node, work, handover_s=handover_s, now_ns=now_ns))
    return min(places, key=lambda offer: (offer.done_s, offer.edge_id), default=None)


def _doubted(view: View, query: PlacementQuery, found: Mapping[str, Offer], *, now_ns: int) -> Mapping[str, Offer]:
    """With the second try that an edge may make necessary which has just failed: at the soonest of the others. Plans
    are weighed with that, too: what is told is what is expected on average."""
    now_s, weighed = now_ns / 1e9, dict(found)
    for name, offer in found.items():
        doubt = view.healths.doubt(name, now_s=now_s, asker=query.edge_id)
        others_s = [other.done_s for other in found.values() if other is not offer] if doubt else []
        if others_s:
            weighed[name] = offer.later(doubt * min(others_s))
    return weighed


def _at_home(view: View, query: PlacementQuery, fit: Mapping[str, Node], work: Work, *, now_ns: int) -> Offer | Away:
    """The asking edge, or why it cannot draft."""
    edge, node = query.edge_id, view.nodes.get(query.edge_id)
    condition = node.condition(now_ns, model=query.draft_model) if node is not None else "stale"
    if node is None or condition == "stale":
        # The edge lives, since it asks; after a scheduler's restart its first report is half a second away.
        here = work.times(view.draft_factor(edge, query.draft_model, now_ns=now_ns, asker=edge))
        note = f"edge {edge} has sent no fresh report, so it is taken to be idle"
        node_class = node.report.node_class if node is not None else ""
        return Offer(edge, "", 0.0 + here.total_s, 0.0, 0.0, here, note=note, node_class=node_class)
    if condition == "draining":
        return Away(f"edge {edge} is being drained")
    load_s = view.loads.left_s(edge, query.draft_model, now_ns=now_ns) if condition == "loading" else None
    if condition == "loading":
        if load_s is None or view.healths.ejected(edge, now_s=now_ns / 1e9, asker=edge):
            return Away(f"edge {edge} is not ready to draft")
    elif query.draft_model not in node.report.models:
        return Away(f"edge {edge} does not serve {query.draft_model}")
    elif edge not in fit:
        return Away(f"drafts of edge {edge} have failed time and again")
    if _is_full(node, query, now_ns):
        why = f"edge {edge} takes no more drafts of tenant {query.tenant}, since {node.waiting(now_ns)} wait there"
        left_s = draft_wait_s(view, node, query.draft_model, now_ns=now_ns, asker=edge)
        return Away(why, left_s + (load_s or 0.0))
    offer = _offer(view, query, node, work, handover_s=load_s or 0.0, now_ns=now_ns)
    if load_s is None:
        return offer
    return offer._replace(left_s=load_s, note=f"edge {edge} loads its draft model, for about {load_s:.1f} s more")


def _elsewhere(
    view: View, query: PlacementQuery, fit: Mapping[str, Node], work: Work, *, now_ns: int, rng: random.Random
) -> list[Offer]:
    """The other edges that lend drafts of the very version that is asked for; an older edge asks for none and lends
    none."""
    if not query.draft_digest:
        return []
    others = [(name, node) for name, node in fit.items() if name != query.edge_id]
    lending = [name for name, node in others if _lends(node, query) and not _is_full(node, query, now_ns)]
    session = view.sessions.get(query.tenant, query.session, now_s=now_ns / 1e9)
    links = _links(view, query)
    found = []
    for name in sampled(lending, rng, keep=[session.edge_id] if session else []):
        handover_s = links.get(name, UNKNOWN_HANDOVER_S)
        found.append(_offer(view, query, fit[name], work, handover_s=handover_s, now_ns=now_ns))
    return found


def _lends(node: Node, query: PlacementQuery) -> bool:
    """Whether an edge drafts for others, by the very version that is asked for; an older edge asks for none."""
    report = node.report
    return bool(query.draft_digest and report.lends_by(query.draft_digest) and report.grpc_address)


def _may_draft(node: Node, query: PlacementQuery) -> bool:
    """Whether it is the asking edge or drafts for it."""
    return node.report.node_id == query.edge_id or _lends(node, query)


def _is_full(node: Node, query: PlacementQuery, now_ns: int) -> bool:
    """Whether an edge takes no further draft of the asking one, itself or another."""
    report = node.report
    at_most = report.drafts_at_most if report.node_id == query.edge_id else report.lent_at_most
    return node.is_full(at_most, tenant=query.tenant, now_ns=now_ns)


def _links(view: View, query: PlacementQuery) -> Mapping[str, float]:
    """Seconds that handing a draft over takes, by the edge that makes it, as the asking one has measured."""
    asking = view.nodes.get(query.edge_id)
    return asking.report.links if asking is not None else {}


def _offer(view: View, query: PlacementQuery, node: Node, work: Work, *, handover_s: float, now_ns: int) -> Offer:
    report, name = node.report, node.report.node_id
    factor = view.draft_factor(name, query.draft_model, now_ns=now_ns, asker=query.edge_id)
    load_s = node.remaining_s(now_ns, factor=factor, tenant=query.tenant)
    weight = view.healths.weight(name, now_s=now_ns / 1e9, asker=query.edge_id)
    wait_s, here = load_s + handover_s, work.times(factor)
    done_s = wait_s + here.total_s
    return Offer(
        name, report.grpc_address, done_s, wait_s, load_s, here, weight, work.note, node_class=report.node_class
    )
