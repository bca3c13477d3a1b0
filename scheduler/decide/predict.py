"""How long a generation takes here and now: its work at the speed of the nodes that would do it, and the wait. Pure.

Work is known beforehand (`work`), the speed of a node is learned (`learned`); only waiting depends on the moment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import PlacementQuery
from scheduler.decide.line import Newcomer
from scheduler.decide.select import Place, chances, drawn
from scheduler.decide.view import Node, View
from scheduler.decide.work import Work, draft_work, work_of


@dataclass(frozen=True, slots=True)
class PoolWait:
    """The chosen pool; `wait_s` is None when no healthy worker serves the model.

    wait_s: until this tenant's job would be begun; factor: of its workers' times; propensity: the chance with which it
    was drawn among equals.
    """

    pool: str
    wait_s: float | None
    workers: int
    factor: float = 1.0
    propensity: float = 1.0


def draft_card(view: View, query: PlacementQuery) -> ModelCard | None:
    """The card of the version that is to draft; of one that is not installed here its line's, as edges do it."""
    return view.cards.get(query.draft_model) or view.cards.get(query.draft_line)


def asked_draft(view: View, query: PlacementQuery) -> Work | None:
    """The work of the asked draft by its card; None when that is not known or has no profile."""
    card = draft_card(view, query)
    return draft_work(card, width=query.width, height=query.height, frames=query.frames) if card is not None else None


def draft_at(view: View, query: PlacementQuery, edge_id: str, *, now_ns: int) -> Work | None:
    """The work of the asked draft at an edge; None as for `asked_draft`."""
    work = asked_draft(view, query)
    if work is None:
        return None
    return work.times(view.draft_factor(edge_id, query.draft_model, now_ns=now_ns, asker=query.edge_id))


def final_work(view: View, query: PlacementQuery, *, steps: int, factor: float) -> Work | None:
    """The work of the asked final in a pool of this factor; None when the model's card has no profile."""
    card = view.cards[query.cloud_model]
    work = work_of(card, width=query.width, height=query.height, frames=query.frames, steps=steps)
    return work.times(factor) if work is not None else None


def draft_wait_s(view: View, node: Node | None, model: str, *, now_ns: int) -> float:
    """Seconds until the edge's draft model is free; an edge that has not reported yet is taken to be idle."""
    if node is None:
        return 0.0
    return node.remaining_s(now_ns, factor=view.draft_factor(node.report.node_id, model, now_ns=now_ns))


def pool_wait(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> PoolWait:
    """The pool in which the final would end soonest; near-ties are drawn by chance, so that schedulers do not herd."""
    model = query.cloud_model
    work = final_work(view, query, steps=query.final_steps or view.cards[model].limits.steps_default, factor=1.0)
    new = newcomer(view, query, now_ns=now_ns)
    offers: dict[str, tuple[Place, PoolWait]] = {}
    for pool, workers in sorted(view.workers(model, now_ns=now_ns, line=query.line).items()):
        slots = [free_at_s for node in workers for free_at_s in view.free_at_s(node, now_ns=now_ns)]
        served = frozenset((model,)).union(*(node.report.models for node in workers))
        wait_s = view.jobs.line(pool).wait_s(slots, new, served, now_ns=now_ns)
        if wait_s is not None:
            factor = _factor(view, workers, model)
            done_s = wait_s + factor * work.total_s if work is not None else wait_s
            offers[pool] = Place(pool, done_s, load_s=wait_s), PoolWait(pool, wait_s, len(workers), factor)
    if not offers:
        return PoolWait(view.nodes.last_pool(model, query.line) or view.default_pool, None, 0, _factor(view, [], model))
    by_pool = chances([place for place, _ in offers.values()], view.select)
    pool = drawn(by_pool, rng)
    return replace(offers[pool][1], propensity=by_pool[pool])


def newcomer(view: View, query: PlacementQuery, *, now_ns: int) -> Newcomer:
    """The job that the query would put into a line."""
    deadline_at_ns = now_ns + round(query.deadline_s * 1e9) if query.deadline_s else 0
    return Newcomer(query.tenant, query.tier, view.quotas.of(query.tenant).weight, deadline_at_ns)


def _factor(view: View, workers: list[Node], model: str) -> float:
    return view.learned.pool_factor((node.report.node_id for node in workers), model)
