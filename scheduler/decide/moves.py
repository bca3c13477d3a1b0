"""What a plan moves from node to node, and how long that takes. Pure.

A draft goes from the edge that made it to the one that asked, where that is another, to the object store, and to the
worker that continues it; a final from its worker to the object store and from there to the edge. How long is told by
the nodes, who note what such transfers took; of a way on which nothing was moved lately nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.nodes import STORE_GET, STORE_PUT
from adaptivegen.placement import PlacementQuery
from scheduler.decide.node import Node
from scheduler.decide.view import View

LONGEST_S = 600.0  # of one transfer that is believed


class Clips(NamedTuple):
    """Predicted bytes of the files of a request's draft and final; handed_bytes: of what workers fetch of a draft."""

    draft_bytes: float
    final_bytes: float
    handed_bytes: float


NO_CLIPS = Clips(0.0, 0.0, 0.0)


class Moves(NamedTuple):
    """Predicted seconds of moving a draft to a worker, its final into the store, and that to the edge; 0 where a way is
    not known."""

    fetch_s: float = 0.0
    upload_s: float = 0.0
    download_s: float = 0.0


NO_MOVES = Moves()


def draft_card(view: View, query: PlacementQuery) -> ModelCard | None:
    """The card of the version that is to draft; of one that is not installed here its line's, as edges do it."""
    return view.cards.get(query.draft_model) or view.cards.get(query.draft_line)


def clips_of(view: View, query: PlacementQuery) -> Clips:
    """The files that a request will have, if it has them all."""
    sizes, draft = view.learned.sizes, draft_card(view, query)
    drafted = 0.0
    if draft is not None:
        shape = view.readings.draft_shape(draft, width=query.width, height=query.height, frames=query.frames)
        width, height, frames = shape
        drafted = sizes.bytes_of(draft, width * height * frames)
    whole = query.width * query.height * query.frames
    return Clips(drafted, sizes.bytes_of(view.cards[query.cloud_model], whole), drafted)


def to_edge_s(view: View, query: PlacementQuery, clips: Clips) -> float:
    """From the object store to the asking edge's cache."""
    return _way_s(view.nodes.get(query.edge_id), STORE_GET, clips.final_bytes)


def moves(query: PlacementQuery, clips: Clips, workers: Sequence[Node], *, download_s: float) -> Moves:
    """By any of these workers: the mean of those that know their ways. A draft that was known is in the store."""
    knowing = [node for node in workers if node.report.ways]
    if not knowing:
        return Moves(download_s=download_s) if download_s else NO_MOVES
    source = STORE_GET if query.draft_known else query.edge_id
    return Moves(
        fetch_s=_mean_s(knowing, source, clips.handed_bytes),
        upload_s=_mean_s(knowing, STORE_PUT, clips.final_bytes),
        download_s=download_s,
    )


def near_s(view: View, query: PlacementQuery) -> float:
    """Until the nearest stored video is at the asking edge."""
    return _way_s(view.nodes.get(query.edge_id), STORE_GET, query.near_bytes) if query.near_bytes else 0.0


def to_worker_s(workers: Sequence[Node], edge_id: str, size_bytes: float) -> float:
    """From an edge to any of these workers."""
    return _mean_s(workers, edge_id, size_bytes)


def _mean_s(nodes: Sequence[Node], way: str, size_bytes: float) -> float:
    known = [_way_s(node, way, size_bytes) for node in nodes if way in node.report.ways]
    return sum(known) / len(known) if known else 0.0


def _way_s(node: Node | None, name: str, size_bytes: float) -> float:
    way = node.report.ways.get(name) if node is not None else None
    return min(LONGEST_S, way.seconds(size_bytes)) if way is not None else 0.0
