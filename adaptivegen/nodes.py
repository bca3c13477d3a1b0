"""Heartbeats: what a node says about itself every `HEARTBEAT_S`, on core NATS, lossy by design.

Pure data and the subjects; a receiver trusts nothing in it beyond its types (NaN and out-of-range values are refused).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.untrusted import parsed

HEARTBEAT_S = 0.5
FINISHED_TOLD = 8  # of a node's last generations, in every heartbeat
LINKS_TOLD = 64  # to other edges
WAYS_TOLD = 64  # on which bytes were moved
STORE_PUT, STORE_GET = "store.put", "store.get"  # the ways to and from the object store; no node is called so
FASTEST_BYTES_PER_S = 1e12
LOADING_TOLD = 4  # versions of models
AT_HAND_TOLD = 64  # jobs
TENANTS_TOLD = 32  # whose drafts wait
DRAFTS_TOLD = 64  # at once, that are over
MAX_REASON = 300  # characters, of why a model was not loaded
NodeKind = Literal["edge", "worker"]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
NameOrNone = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")]
NodeId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
WayName = Annotated[str, Field(pattern=r"^(store\.(put|get)|[a-z0-9][a-z0-9_-]{0,62})$")]
ModelId = Annotated[str, Field(max_length=63)]


class FinishedWork(BaseModel):
    """One generation that a node has finished: the shape of its clip, and the seconds from its first step to the MP4.

    number: counts from 1 in the node's life; a heartbeat repeats the last few, since heartbeats are lost.
    """

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Field(ge=1)]
    model: Annotated[str, Field(max_length=63)]
    width: Annotated[int, Field(ge=1, le=65536)]
    height: Annotated[int, Field(ge=1, le=65536)]
    frames: Annotated[int, Field(ge=1, le=65536)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Finite
    seconds: Finite


class Way(BaseModel):
    """How long bytes take on one way: `delay_s` whatever their number, then `bytes_per_s`."""

    model_config = ConfigDict(frozen=True)

    delay_s: Seconds
    bytes_per_s: Annotated[float, Field(ge=1.0, le=FASTEST_BYTES_PER_S, allow_inf_nan=False)]

    def seconds(self, size_bytes: float) -> float:
        """Of a transfer of so many bytes."""
        return self.delay_s + size_bytes / self.bytes_per_s


class Loading(BaseModel):
    """A model that a node is loading: for how long already, and how long that should take in all, in seconds."""

    model_config = ConfigDict(frozen=True)

    model: ModelId
    elapsed_s: Seconds
    expected_s: Seconds


class NodeReport(BaseModel):
    """One heartbeat. `remaining_s` is the predicted work ahead in seconds; `seq` grows by one per report.

    ending: its process has been told to end, so that nothing puts it back into rotation; elapsed_s: seconds that the
    work at hand has had already, where `remaining_s` counts it whole, as edges do; failed_in_row: generations that
    failed here, by no fault of their requests, since the last that did not; lends: digest of the draft model with which
    it drafts for other edges, empty where it does not; lends_also: of further versions of it; links: by other edges
    that drafted for this one, the seconds that handing a draft over takes beside the draft itself; ways: how long bytes
    took lately, by the edge whose drafts it fetched or STORE_PUT and STORE_GET for the object store (of an edge: into
    its media cache); at_hand: ids of the jobs for which it needs its model, first those at which that is; storing: of
    those whose finals are made and not committed yet; drafts_at_most: how many drafts may wait at an edge, and
    lent_at_most: how many may, so that it still takes one of another edge, 0: not told; waiting: those that wait, by
    tenant, the most first; line: the model that it was
    started with, of which `models` are the versions it has loaded, `loading` those that it is about to have, and
    `refused` those that it could not load, with why; repeats_cached, repeats_fetched: finals of earlier videos that it
    answered with in its life, by whether their bytes were in its cache; parts: what it can do that not every node of
    its kind can, by which plans are offered (`scheduler.decide.offered`); those a scheduler does not know are nothing
    to it; node_class: of an edge, which kind of machine it is, by whatever name operators give: how far predictions of
    its drafts are off is learned from edges of its class (of workers the pool says it).
    """

    model_config = ConfigDict(frozen=True)

    node_id: NodeId
    kind: NodeKind
    seq: Annotated[int, Field(ge=0)]
    sent_at_ns: Annotated[int, Field(ge=0)]
    started_at_ns: Annotated[int, Field(ge=0)]
    grpc_address: Annotated[str, Field(max_length=255)] = ""
    http_url: Annotated[str, Field(max_length=255)] = ""
    pool: NameOrNone = ""
    node_class: NameOrNone = ""
    models: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64)] = ()
    ready: bool = True
    draining: bool = False
    ending: bool = False
    capacity: Annotated[int, Field(ge=0, le=4096)] = 1
    in_flight: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    queued: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    remaining_s: Seconds = 0.0
    elapsed_s: Seconds = 0.0
    finished: Annotated[tuple[FinishedWork, ...], Field(max_length=FINISHED_TOLD)] = ()
    failed_in_row: Annotated[int, Field(ge=0)] = 0
    lends: Annotated[str, Field(max_length=64)] = ""
    lends_also: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=8)] = ()
    links: Annotated[dict[NodeId, Seconds], Field(max_length=LINKS_TOLD)] = {}
    ways: Annotated[dict[WayName, Way], Field(max_length=WAYS_TOLD)] = {}
    at_hand: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=AT_HAND_TOLD)] = ()
    storing: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=AT_HAND_TOLD)] = ()
    drafts_at_most: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    lent_at_most: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    waiting: Annotated[dict[NodeId, Annotated[int, Field(ge=0, le=1_000_000)]], Field(max_length=TENANTS_TOLD)] = {}
    line: Annotated[str, Field(max_length=63)] = ""
    refused: Annotated[dict[NodeId, Annotated[str, Field(max_length=MAX_REASON)]], Field(max_length=8)] = {}
    loading: Annotated[tuple[Loading, ...], Field(max_length=LOADING_TOLD)] = ()
    repeats_cached: Annotated[int, Field(ge=0, lt=2**63)] = 0
    repeats_fetched: Annotated[int, Field(ge=0, lt=2**63)] = 0
    parts: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=16)] = ()
    cpu_percent: Finite = 0.0
    memory_bytes: Annotated[int, Field(ge=0)] = 0

    def lends_by(self, digest: str) -> bool:
        """Whether it drafts for other edges with the model of this digest; by none with an empty one."""
        return bool(digest) and digest in (self.lends, *self.lends_also)

    def has(self, model: str) -> bool:
        """Whether it can draft with a model now though it is not `ready`, which tells of the version that serves: an
        edge's others have processes of their own, and are told only while these live. A worker waits for the first."""
        return self.kind == "edge" and model in self.models[1:]

    def encode(self) -> bytes:
        """JSON for the wire."""
        return self.model_dump_json().encode()


def decode_report(data: bytes) -> NodeReport:
    """Parse a heartbeat; raises InvalidRequest naming the field."""
    return parsed(NodeReport, data, name="report")


def heartbeat_subject(kind: NodeKind, node_id: str) -> str:
    """`ag.node.<kind>.<id>`."""
    return f"ag.node.{kind}.{node_id}"


ALL_HEARTBEATS = "ag.node.*.*"


class DraftsOver(BaseModel):
    """What an edge tells as soon as it is so: jobs whose drafts are there for a worker, or will never be. A hint."""

    model_config = ConfigDict(frozen=True)

    job_ids: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=DRAFTS_TOLD)]


def drafts_subject(edge_id: str) -> str:
    """`ag.draft.<id>`."""
    return f"ag.draft.{edge_id}"


ALL_DRAFTS = "ag.draft.*"


def drain_key(node_id: str) -> str:
    """Key in the `policy` bucket whose presence keeps a node out of rotation."""
    return f"drain.{node_id}"
