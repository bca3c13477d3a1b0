"""What the nodes that a request would use offer beyond what all nodes do, as they say in their heartbeats. Pure.

The gate of plans whose parts not every node has, or none yet: a plan is weighed only where its part is there. Nearly
always nothing is offered, and finding that out must cost nearly nothing.

    near-hit  the asking edge finds similar videos, and says in its query which is the nearest
    split     the asking edge finishes what a worker has begun; all of the pool's workers begin for others
    latents   the drafting edge hands its latents to workers that refine; all of the pool's workers take them
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.models.pairs import latent_bytes, pair_kind
from adaptivegen.placement import PlacementQuery, Plan
from scheduler.decide.drafters import draft_quality
from scheduler.decide.moves import moves, near_s, to_worker_s
from scheduler.decide.node import Node
from scheduler.decide.predict import PoolWait, draft_wait_s
from scheduler.decide.qoe import WORST
from scheduler.decide.view import View

NodePart = Literal["near-hit", "split", "latents"]


class Offered(NamedTuple):
    """plans: that can be weighed besides the usual ones; near_s: until the nearest video could be shown.

    Of a split: latents_s: for moving latents to the asking edge; edge_wait_s: until its model is free, and edge_factor:
    of its times; obstacle: why its model cannot be used.
    """

    plans: tuple[Plan, ...] = ()
    near_s: float = 0.0
    latents_s: float = 0.0
    edge_wait_s: float = 0.0
    edge_factor: float = 1.0
    obstacle: str = ""


NOTHING = Offered()


def offered(view: View, query: PlacementQuery, cloud: ModelCard, pool: PoolWait, *, now_ns: int) -> Offered:
    """What is offered to one query whose final would be made in this pool."""
    edge = view.nodes.get(query.edge_id)
    if edge is None or not edge.report.parts:
        return NOTHING
    found = NOTHING
    if _has([edge], "near-hit"):
        found = found._replace(plans=("near-hit",), near_s=near_s(view, query))
    workers = _workers(view, query, pool, now_ns=now_ns)
    if _has([edge], "split") and _has(workers, "split"):
        model = query.draft_model
        found = found._replace(
            plans=(*found.plans, "split"),
            latents_s=to_worker_s(workers, query.edge_id, latent_bytes(cloud)),  # the way back takes as long
            edge_wait_s=draft_wait_s(view, edge, model, now_ns=now_ns),
            edge_factor=view.draft_factor(query.edge_id, model, now_ns=now_ns, asker=query.edge_id),
            obstacle=_unready(edge, model, now_ns=now_ns),
        )
    return found


def near_quality(view: View, query: PlacementQuery) -> float:
    """Of the nearest stored video, shown for what was asked for: taken to fall with the similarity of the prompts."""
    card, assumed = view.cards.get(query.near_model), view.policy.qoe.unmeasured_draft
    if card is None or card.role == "draft":
        quality = draft_quality(view, query, card)
    else:
        shape = {"width": query.width, "height": query.height}
        quality = view.readings.quality(card, "cloud", steps=card.limits.steps_default, assumed=assumed, **shape)
    return WORST + query.near_similarity * (quality - WORST)


def handing_latents(
    view: View,
    query: PlacementQuery,
    drafter: str,
    models: tuple[ModelCard | None, ModelCard],
    pool: PoolWait,
    *,
    now_ns: int,
) -> PoolWait:
    """The pool, with what its workers fetch of a draft: its latents, where drafter and workers offer that and the pair
    (draft, cloud) is resumable, else its frames, as it was. Of a draft that is there already only frames are kept."""
    node, (draft, cloud) = view.nodes.get(drafter), models
    if node is None or not node.report.parts or draft is None or query.draft_known:
        return pool
    workers = _workers(view, query, pool, now_ns=now_ns)
    if not (_has([node], "latents") and _has(workers, "latents")) or pair_kind(draft, cloud) != "resumable":
        return pool
    clips = pool.clips._replace(handed_bytes=float(latent_bytes(draft)))
    moved = moves(query, clips, workers, download_s=pool.moves.download_s)
    return pool._replace(clips=clips, moves=moved, hands_latents=True)


def _workers(view: View, query: PlacementQuery, pool: PoolWait, *, now_ns: int) -> Sequence[Node]:
    return view.workers(query.cloud_model, now_ns=now_ns, line=query.line).get(pool.pool, [])


def _has(nodes: Sequence[Node], part: NodePart) -> bool:
    """Whether all of them have it, and there is one."""
    return bool(nodes) and all(part in node.report.parts for node in nodes)


def _unready(edge: Node, model: str, *, now_ns: int) -> str:
    condition, name = edge.condition(now_ns), edge.report.node_id
    if condition != "healthy":
        return f"edge {name} is {condition}"
    return "" if model in edge.report.models else f"edge {name} does not serve {model}"
