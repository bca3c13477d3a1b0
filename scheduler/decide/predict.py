"""How long a generation takes here and now: its work at the speed of the nodes that would do it, and the wait. Pure.

Work is known beforehand (`work`), the speed of a node is learned (`learned`); only waiting depends on the moment.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from adaptivegen.placement import PlacementQuery
from scheduler.decide.jobs import Newcomer, is_awaited
from scheduler.decide.learned import Standing
from scheduler.decide.moves import NO_CLIPS, NO_MOVES, Clips, Moves, clips_of, draft_card, moves, to_edge_s
from scheduler.decide.node import Node
from scheduler.decide.select import Place, chances, drawn
from scheduler.decide.view import View
from scheduler.decide.work import Work


class PoolWait(NamedTuple):
    """The chosen pool; `wait_s` is None when no healthy worker serves the model, nor will have it soon.

    wait_s: until this tenant's job would be begun; backlog_s: until all that waits would be, with mean_s of work on
    average; factor: of its workers' times; propensity: the chance with which it was drawn among equals; clips: how
    large a draft and a final are; moves: what its workers need to move them; load_s: of wait_s, until `loads`, the
    worker that has the model first, has loaded it, where none has it yet; hands_latents: they take a draft's latents.
    """

    pool: str
    wait_s: float | None
    workers: int
    factor: float = 1.0
    propensity: float = 1.0
    backlog_s: float = 0.0
    mean_s: float = 0.0
    clips: Clips = NO_CLIPS
    moves: Moves = NO_MOVES
    load_s: float = 0.0
    loads: str = ""
    hands_latents: bool = False


class _Offer(NamedTuple):
    """What a pool's workers offer, as far as only the one that is drawn tells of it."""

    wait_s: float
    workers: int
    slots: int
    factor: float
    moves: Moves


def asked_draft(view: View, query: PlacementQuery) -> Work | None:
    """The work of the asked draft by its card; None when that is not known or has no profile."""
    card = draft_card(view, query)
    if card is None:
        return None
    return view.readings.draft_work(card, width=query.width, height=query.height, frames=query.frames)


def draft_at(view: View, query: PlacementQuery, edge_id: str, *, now_ns: int) -> Work | None:
    """The work of the asked draft at an edge; None as for `asked_draft`."""
    work = asked_draft(view, query)
    if work is None:
        return None
    return work.times(view.draft_factor(edge_id, query.draft_model, now_ns=now_ns, asker=query.edge_id))


def final_work(view: View, query: PlacementQuery, *, steps: int, factor: float) -> Work | None:
    """The work of the asked final in a pool of this factor; None when the model's card has no profile."""
    card = view.cards[query.cloud_model]
    work = view.readings.work(card, width=query.width, height=query.height, frames=query.frames, steps=steps)
    return work.times(factor) if work is not None else None


def draft_wait_s(view: View, node: Node | None, model: str, *, now_ns: int, asker: str = "") -> float:
    """Seconds until the edge's draft model is free, as the asker has seen it; one that has not reported yet is taken to
    be idle."""
    if node is None:
        return 0.0
    return node.remaining_s(now_ns, factor=view.draft_factor(node.report.node_id, model, now_ns=now_ns, asker=asker))


def pool_wait(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> PoolWait:
    """The pool in which the final would end soonest; near-ties are drawn by chance, so that schedulers do not herd."""
    model, clips = query.cloud_model, clips_of(view, query)
    download = to_edge_s(view, query, clips)
    work = final_work(view, query, steps=query.final_steps or view.cards[model].limits.steps_default, factor=1.0)
    new = newcomer(view, query, now_ns=now_ns, work_s=work.total_s if work is not None else 0.0)
    places: list[Place] = []
    offers: dict[str, _Offer] = {}
    for pool, workers in sorted(view.workers(model, now_ns=now_ns, line=query.line).items()):
        slots = [free_at_s for node in workers for free_at_s in view.free_at_s(node, now_ns=now_ns)]
        served = frozenset((model,)).union(*[node.report.models for node in workers])
        wait_s = view.jobs.line(pool).wait_s(slots, new, served, now_ns=now_ns)
        if wait_s is not None:
            factor = _factor(view, workers, model)
            moved = moves(query, clips, workers, download_s=download)
            done_s = wait_s + (factor * work.total_s if work is not None else 0.0) + moved.upload_s
            places.append(Place(pool, done_s, wait_s))
            offers[pool] = _Offer(wait_s, len(workers), len(slots), factor, moved)
    if not offers:
        return _unserved(view, query, new, clips, download_s=download, now_ns=now_ns)
    by_pool = chances(places, view.select)
    pool = drawn(by_pool, rng)
    line, offer = view.jobs.line(pool), offers[pool]
    work_s = line.work_s
    return PoolWait(
        pool,
        offer.wait_s,
        offer.workers,
        offer.factor,
        propensity=by_pool[pool],
        backlog_s=work_s / offer.slots,
        mean_s=work_s / max(1, line.waiting),
        clips=clips,
        moves=offer.moves,
    )


def standing_of(query: PlacementQuery) -> Standing:
    """How the final of a query would stand in a line."""
    awaited: Standing = "awaited" if is_awaited(query.intent, asked_for=query.draft_known) else "unawaited"
    return "dated" if query.deadline_s else awaited


def _unserved(
    view: View, query: PlacementQuery, new: Newcomer, clips: Clips, *, download_s: float, now_ns: int
) -> PoolWait:
    """No healthy worker has the model: the pool where one will have it soonest, with the wait for that; else the pool
    heard of last."""
    model = query.cloud_model
    pools: dict[str, list[tuple[float, Node]]] = {}
    for left_s, node in view.loading(model, now_ns=now_ns, line=query.line):
        pools.setdefault(node.report.pool, []).append((left_s, node))
    offers: list[tuple[float, PoolWait]] = []
    for pool, found in sorted(pools.items()):
        slots = [left_s for left_s, node in found for _ in range(node.slots)]
        wait_s = view.jobs.line(pool).wait_s(slots, new, frozenset((model,)), now_ns=now_ns)
        if wait_s is not None:
            workers = [node for _, node in found]
            load_s, name = min((left_s, node.report.node_id) for left_s, node in found)
            moved = moves(query, clips, workers, download_s=download_s)
            factor = _factor(view, workers, model)
            offer = PoolWait(pool, wait_s, 0, factor, clips=clips, moves=moved, load_s=load_s, loads=name)
            offers.append((wait_s, offer))
    if offers:
        return min(offers, key=lambda offer: offer[0])[1]
    pool = view.nodes.last_pool(model, query.line) or view.default_pool
    moved = moves(query, clips, [], download_s=download_s)
    return PoolWait(pool, None, 0, _factor(view, [], model), clips=clips, moves=moved)


def newcomer(view: View, query: PlacementQuery, *, now_ns: int, work_s: float = 0.0) -> Newcomer:
    """The job that the query would put into a line; work_s: of a worker."""
    deadline_at_ns = now_ns + round(query.deadline_s * 1e9) if query.deadline_s else 0
    weight, awaited = view.quotas.of(query.tenant).weight, is_awaited(query.intent, asked_for=query.draft_known)
    good_until_ns = now_ns + round(view.policy.qoe.final_best_s * 1e9)
    return Newcomer(query.tenant, query.tier, weight, deadline_at_ns, awaited, good_until_ns, work_s)


def _factor(view: View, workers: list[Node], model: str) -> float:
    return view.learned.pool_factor([node.report.node_id for node in workers], model)
