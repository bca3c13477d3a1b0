"""One run under one policy: requests sent by the SDK at their times, what the clients saw, what the store says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

from adaptivegen.blob.base import BlobStore
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, NodeUnavailable, NotFound
from adaptivegen.jobs.spec import JobSpec, Manifest, job_key
from adaptivegen.sdk.aio import AsyncClient
from benchmarks.live.load import EDGES, Request, Run
from benchmarks.live.system import SCHEDULER, TENANT, LiveSystem
from scheduler.decision_log import read_log

PATIENCE_S = 60.0  # a client waits so long; what has not come by then never does
WARM_EACH, WARM_TRIES = 2, 10  # requests at every edge before a run, which are not counted
SETTLE_S = 0.5


@dataclass(slots=True)
class Seen:
    """A request as its client saw it, in seconds after it was sent; None where a part never came.

    plan, final_steps, gpu_s: as its manifest has them; decided_by: who decided, an edge alone or the scheduler;
    refused: the code of the error where it was not taken.
    """

    request: Request
    video_id: str = ""
    first_s: float | None = None
    draft_s: float | None = None
    final_s: float | None = None
    plan: str = ""
    final_steps: int = 0
    gpu_s: float = 0.0
    decided_by: str = ""
    refused: str = ""


async def run_load(
    system: LiveSystem,
    requests: Sequence[Request],
    blob: BlobStore,
    *,
    tag: str,
    run: Run,
) -> list[Seen]:
    """Send everything at its time, see all of it end, then read what the store says of it. tag: makes the clips of this
    run others than those of any run before; run: by which the nodes behave."""
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(AsyncClient(system.edge_url(name), clock=system.clock))
            for name in EDGES
        }
        await _warm(clients, blob, system.clock, tag=tag)
        begin_s = system.clock.monotonic_s() + SETTLE_S
        system.behave(run.spells(begin_s))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_one(clients[request.edge_id], request, system.clock, begin_s, seed=f"{tag} {n}"))
                for n, request in enumerate(requests)
            ]
        system.behave({name: [] for name in EDGES})
    seen = [task.result() for task in tasks]
    for one in seen:
        await _read(one, blob)
    return seen


async def _warm(clients: Mapping[str, AsyncClient], blob: BlobStore, clock: Clock, *, tag: str) -> None:
    """Until both edges have decisions of the scheduler and have seen requests to their ends; raises NodeUnavailable."""
    for number in range(WARM_TRIES):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    _one(
                        client,
                        Request(f"warm {tag} {number} {name}", 0.0, name, "render", None),
                        clock,
                        clock.monotonic_s(),
                        seed=f"warm {tag} {number} {name}",
                    )
                )
                for name, client in clients.items()
            ]
        for task in tasks:
            await _read(task.result(), blob)
        if number + 1 >= WARM_EACH and all(task.result().decided_by == SCHEDULER for task in tasks):
            return
    raise NodeUnavailable("the edges do not reach the scheduler")


async def _one(client: AsyncClient, request: Request, clock: Clock, begin_s: float, *, seed: str) -> Seen:
    """One request, from its time to its end or to the end of patience."""
    seen = Seen(request)
    await clock.sleep(max(0.0, begin_s + request.at_s - clock.monotonic_s()))
    sent_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(PATIENCE_S):
            handle = await client.submit(
                request.name,
                seed=_number(seed),
                intent=request.intent,
                deadline_s=request.deadline_s,
                allow_reduced=request.deadline_s is not None,
            )
            seen.video_id = handle.id
            async with aclosing(handle.events()) as events:
                async for event in events:
                    now_s = clock.monotonic_s() - sent_s
                    video = event.video
                    if seen.first_s is None and (event.look_jpeg or video.draft or video.final):
                        seen.first_s = now_s
                    if seen.draft_s is None and video.draft:
                        seen.draft_s = now_s
                    if seen.final_s is None and video.final:
                        seen.final_s = now_s
    except TimeoutError:
        seen.refused = "" if seen.video_id else "timeout"
    except AdaptiveGenError as exc:
        seen.refused = exc.code
    return seen


def _number(text: str) -> int:
    """A seed of a text, so that no two runs ask for the same clip."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


async def _read(seen: Seen, blob: BlobStore) -> None:
    """What was decided and what came of it."""
    if not seen.video_id:
        return
    try:
        spec = JobSpec.model_validate_json(await blob.get(job_key(TENANT, seen.video_id, "spec")))
        seen.decided_by, seen.plan = spec.decision.decided_by, spec.decision.plan
        manifest = Manifest.model_validate_json(await blob.get(job_key(TENANT, seen.video_id, "manifest")))
    except NotFound:  # not ended within the client's patience, or a draft alone
        return
    seen.plan, seen.final_steps, seen.gpu_s = manifest.plan, manifest.final_steps, manifest.gpu_s


def predictions(log: Path, *, after_s: float) -> list[tuple[float, float, float]]:
    """Predicted, upper and observed seconds of the finals that a scheduler decided on, from its decision log, without
    those of its first `after_s` seconds."""
    logged = list(read_log(log))
    if not logged:
        return []
    first_ns = min(entry.decision.decided_at_ns for entry in logged)
    found = []
    for entry in logged:
        chosen, outcome = entry.decision.chosen(), entry.outcome
        if chosen is None or outcome is None or outcome.final_s is None or chosen.final_s is None:
            continue
        warm = entry.decision.decided_at_ns - first_ns >= after_s * 1e9
        if warm and outcome.plan == entry.decision.plan:
            found.append((chosen.final_s, chosen.final_upper_s or chosen.final_s, outcome.final_s))
    return found
