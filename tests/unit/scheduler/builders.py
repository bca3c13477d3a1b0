"""Cards, reports, views and queries for the scheduler's tests."""

from __future__ import annotations

import random
from collections.abc import Mapping

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import Clock
from adaptivegen.models.card import (
    CardFile,
    Limits,
    ModelCard,
    Profile,
    Quality,
    Refine,
    Score,
    ScoredPlan,
    card_digest,
)
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.nodes import FinishedWork, NodeReport
from adaptivegen.placement import Candidate, Decision, Outcome, PlacementQuery
from scheduler.decide.decide import decide
from scheduler.decide.jobs import OpenJob
from scheduler.decide.view import NodeTable, View
from scheduler.lines import ServedLines
from scheduler.rollouts import Rollouts
from scheduler.steady import SteadyTime

NOW_NS = 1_700_000_000_000_000_000
FINAL_S = 12.17  # of the builders' cloud card in 24 steps
JOB = "vid_" + "0" * 26


def profile(*, step_ms: float, text_ms: float = 20.0, width: int = 256, height: int = 256) -> Profile:
    """A measured profile of 24 frames: upsampling 100 ms, encoding 50 ms."""
    return Profile(
        hardware="test",
        threads=2,
        backend="onnx",
        width=width,
        height=height,
        frames=24,
        load_ms=500,
        text_ms=text_ms,
        step_ms=step_ms,
        upsample_ms=100,
        first_look_ms=text_ms + step_ms,
        encode_ms=50,
        memory_mib=100,
    )


def card(
    name: str,
    *,
    mos: float | None,
    profiles: tuple[Profile, ...],
    sizes: tuple[str, ...],
    steps: int,
    refine: Refine | None = None,
) -> ModelCard:
    """A card that could have been published."""
    files = {"base": CardFile(path=f"{name}/base.onnx", sha256="0" * 64, bytes=1)}
    limits = Limits(
        sizes=sizes,
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=64,
        steps_default=steps,
        guidance_min=1.0,
        guidance_max=4.0,
        guidance_default=1.0,
    )
    return ModelCard(
        name=name,
        version="1.0.0",
        role="cloud" if refine or "cloud" in name else "draft",
        description="for tests",
        latent_space="pixels",
        files=files,
        limits=limits,
        refine=refine,
        profile=profiles,
        quality={"mos": Quality(value=mos, low=mos, high=mos, n=10)} if mos is not None else {},
        digest=card_digest(name, "1.0.0", files),
    )


def draft_card(*, mos: float | None = 3.0, profiled: bool = True) -> ModelCard:
    """A draft of 4 steps: 20 + 4 x 50 + 100 + 50 ms = 0.37 s; the first look after 0.07 s."""
    known = (profile(step_ms=50, width=128, height=128),) if profiled else ()
    return card("pocket-draft", mos=mos, profiles=known, sizes=("128x128",), steps=4)


def cloud_card(*, mos: float | None = 4.5, profiled: bool = True, refines: bool = True) -> ModelCard:
    """A final of 24 steps of 500 ms (12.17 s), or refined in 12 (6.17 s)."""
    refine = Refine(sources=("pocket-draft" if refines else "other",), t0=0.5, steps=12)
    known = (profile(step_ms=500),) if profiled else ()
    return card("pocket-cloud", mos=mos, profiles=known, sizes=("256x256", "128x128"), steps=24, refine=refine)


def scored(plan: ScoredPlan, steps: int, side: int, mos: float) -> Score:
    """A line of a card's quality table."""
    figure = Quality(value=mos, low=mos, high=mos, n=10)
    share = Quality(value=0.9, low=0.8, high=1.0, n=10)
    return Score(plan=plan, steps=steps, width=side, height=side, accuracy=share, mos=figure)


def with_scores(model: ModelCard, *scores: Score) -> ModelCard:
    """The card with this quality table."""
    return model.model_copy(update={"scores": scores})


def cards(*given: ModelCard) -> Mapping[str, ModelCard]:
    """By name; the usual two when none is given."""
    return {model.name: model for model in given or (draft_card(), cloud_card())}


def report(node_id: str = "edge-1", /, **changes: object) -> NodeReport:
    """A heartbeat; the kind follows the id."""
    kind = "worker" if node_id.startswith("worker") else "edge"
    values: dict[str, object] = {
        "node_id": node_id,
        "kind": kind,
        "seq": 1,
        "sent_at_ns": NOW_NS,
        "started_at_ns": NOW_NS - 10**12,
        "grpc_address": "127.0.0.1:1",
        "pool": "default" if kind == "worker" else "",
        "models": ("pocket-cloud",) if kind == "worker" else ("pocket-draft",),
    }
    return NodeReport.model_validate({**values, **changes})


def table(*reports: NodeReport, now_ns: int = NOW_NS) -> NodeTable:
    """A table that has just heard these reports."""
    nodes = NodeTable()
    for heard in reports:
        nodes.observe(heard, now_ns=now_ns)
    return nodes


def view(*reports: NodeReport, models: Mapping[str, ModelCard] | None = None) -> View:
    """A view with these nodes; one idle edge and one idle worker when none is given."""
    heard = reports or (report("edge-1"), report("worker-1"))
    seen = View(nodes=table(*heard), cards=models or cards(), decider="scheduler-1")
    for one in heard:
        seen.healths.enter(one.node_id, now_s=NOW_NS / 1e9)
    return seen


def open_job(job_id: str = JOB, /, **changes: object) -> OpenJob:
    """A final of 12 seconds that was placed just now."""
    values: dict[str, object] = {
        "job_id": job_id,
        "tenant": "local",
        "pool": "default",
        "model": "pocket-cloud",
        "work_s": 12.0,
        "gpu_s": 12.0,
        "placed_at_ns": NOW_NS,
    }
    return OpenJob.model_validate({**values, **changes})


def query(**changes: object) -> PlacementQuery:
    """A render of 256x256x24 asked for by edge-1."""
    values: dict[str, object] = {
        "job_id": JOB,
        "tenant": "local",
        "edge_id": "edge-1",
        "intent": "render",
        "draft_model": "pocket-draft",
        "cloud_model": "pocket-cloud",
        "width": 256,
        "height": 256,
        "frames": 24,
    }
    return PlacementQuery.model_validate({**values, **changes})


def place(seen: View, asked: PlacementQuery | None = None, *, now_ns: int = NOW_NS) -> Decision:
    """Decide with a fixed chance."""
    return decide(seen, asked or query(), now_ns=now_ns, rng=random.Random(7))


def of_plan(decision: Decision, plan: str) -> Candidate:
    """The candidate of one plan."""
    return next(candidate for candidate in decision.candidates if candidate.plan == plan)


def done(number: int, seconds: float, **changes: object) -> FinishedWork:
    """A final that a worker has finished."""
    shape = {"model": "pocket-cloud", "width": 256, "height": 256, "frames": 24, "steps": 24, "guidance": 1.0}
    return FinishedWork.model_validate({**shape, "number": number, "seconds": seconds, **changes})


def outcome(decision: Decision, **changes: object) -> Outcome:
    """What became of a job that was placed so: completed as decided."""
    values = {
        "job_id": decision.job_id,
        "edge_id": decision.edge_id,
        "worker_id": "worker-1",
        "plan": decision.plan,
        "status": "completed",
        "decided_by": decision.decided_by,
        "decided_at_ns": decision.decided_at_ns,
    }
    return Outcome.model_validate({**values, **changes})


def rollouts_of(seen: View, clock: Clock) -> Rollouts:
    """The rollouts of a scheduler with this view, on memory parts."""
    blob, time = open_store("memory://"), SteadyTime(clock)
    lines = ServedLines(MemoryBus(clock), blob, clock=clock, time=time)
    return Rollouts(seen, lines, ModelLibrary(), blob, clock=clock, time=time)
