"""Drafts made here for jobs that other edges have accepted.

What is to be drafted is read from the job's spec in the object store, and only for whoever shows the token in it: a
caller can ask for nothing that was not accepted. The accepting edge stores the draft and tells of it; none stays here.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable
from typing import Any

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    InternalError,
    ModelDigestMismatch,
    NodeUnavailable,
    PermissionDenied,
    ResourceExhausted,
)
from adaptivegen.generation.kept import Kept
from adaptivegen.generation.messages import Generated, Step
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import end, guarded
from adaptivegen.rpc.draft import DraftOrder, Lent
from adaptivegen.telemetry import get_logger, span
from edge_node.draft.command import draft_command
from edge_node.draft.models import DraftModels

MAX_READING = 16  # jobs whose spec is being read
BUFFER = 64  # looks on their way to the caller; one that does not read them loses some, never the draft


class Lending:
    """The drafts in the making for others. `run` must be running.

    accepting: whether more is taken; max_waiting: for the models, with this edge's own, beyond which nothing is lent.
    """

    def __init__(
        self,
        *,
        node_id: str,
        jobs: JobStore,
        models: DraftModels,
        clock: Clock,
        max_waiting: int,
        accepting: Callable[[], bool],
    ) -> None:
        self._node_id = node_id
        self._max_waiting = max_waiting
        self._jobs = jobs
        self._models = models
        self._clock = clock
        self._accepting = accepting
        self._group: asyncio.TaskGroup | None = None
        self._reading = 0
        self._lent: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Own the generations' tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None  # a group that ends takes no more tasks

    async def make(self, order: DraftOrder) -> AsyncGenerator[Step | Lent | None, None]:
        """None when the job was read, its looks, then the draft. Whoever leaves early stops the model.

        Raises InvalidRequest, NotFound, PermissionDenied, ModelDigestMismatch, NodeUnavailable, ResourceExhausted, and
        what the model raises.
        """
        self._check(order)
        spec = await self._read(order)
        begun_s, key = self._clock.monotonic_s(), (order.tenant, order.job_id)
        if key in self._lent:
            raise ResourceExhausted(f"the draft of {order.job_id} is being made here for another call")
        if len(self._lent) > 2 * self._max_waiting:  # that wait, are made, or whose job is being read
            raise ResourceExhausted(f"{len(self._lent)} drafts are lent already", retry_after_s=1.0)
        if self._group is None:
            raise NodeUnavailable("this edge drafts no more")
        told: asyncio.Queue[Step | Generated | AdaptiveGenError] = asyncio.Queue(BUFFER)
        making = self._group.create_task(guarded("lent draft", self._generate(spec, order, told)))
        self._lent.add(key)
        try:
            yield None
            while True:
                item = await told.get()
                if isinstance(item, AdaptiveGenError):
                    raise item
                if isinstance(item, Generated):
                    took_s = self._clock.monotonic_s() - begun_s
                    get_logger().info("draft_lent", job_id=spec.id, edge=spec.decision.edge_id, took_s=round(took_s, 3))
                    yield Lent(item, took_s)
                    return
                yield item
        finally:
            await end(making)
            self._lent.discard(key)

    def _check(self, order: DraftOrder) -> None:
        """What costs nothing to check, before anything is read for a stranger; raises what `make` does."""
        check_name(order.tenant, field="tenant")
        check_video_id(order.job_id, field="job_id")
        if not self._accepting() or self._group is None:
            raise NodeUnavailable("this edge takes no more drafts")
        self._held(order)
        if not self._models.has_room(order.tenant, self._max_waiting) or self._reading >= MAX_READING:
            raise ResourceExhausted(f"{self._models.queued} drafts wait here", retry_after_s=1.0)

    def _held(self, order: DraftOrder) -> Kept:
        """The version that is asked for; raises ModelDigestMismatch where it is not loaded, or not any more."""
        held = self._models.with_digest(order.model_digest)
        if held is None:
            serving = self._models.serving
            raise ModelDigestMismatch(
                f"the draft model here is {serving.name} {serving.digest[:12]}, not {order.model_digest[:12]!r}",
                param="model_digest",
            )
        return held

    async def _read(self, order: DraftOrder) -> JobSpec:
        """The job that is asked for; raises what `make` does."""
        self._reading += 1
        try:
            spec = await self._jobs.spec(order.tenant, order.job_id)
        finally:
            self._reading -= 1
        if not (spec.draft_token and hmac.compare_digest(spec.draft_token.encode(), order.token.encode())):
            raise PermissionDenied(f"not the draft token of {order.job_id!r}", param="token")
        if self._node_id not in (spec.decision.draft_edge_id, spec.decision.backup_edge_id):
            raise PermissionDenied(f"edge {self._node_id} was not to draft {order.job_id!r}", param="job_id")
        return spec

    async def _generate(
        self, spec: JobSpec, order: DraftOrder, told: asyncio.Queue[Step | Generated | AdaptiveGenError]
    ) -> None:
        """Run the model; the last place of the queue is kept for how it ended."""

        def on_step(step: Step) -> None:
            if told.qsize() < BUFFER - 1:
                told.put_nowait(step)

        try:
            with span("edge.lent_draft", carrier=spec.trace, job_id=spec.id):
                reference = spec.request.reference
                start_mp4 = await self._jobs.blob.get(reference.key) if reference is not None else None
                held = self._held(order)
                command = draft_command(spec, held.card, has_start=start_mp4 is not None)
                async with self._models.using(held) as runner:
                    standing: dict[str, Any] = {"tenant": spec.tenant, "yields_s": spec.decision.draft_yields_s}
                    told.put_nowait(await runner.generate(command, start_mp4, on_step, **standing))
        except AdaptiveGenError as exc:
            told.put_nowait(exc)
        except Exception as exc:  # a bug met by one draft must not leave its caller waiting
            get_logger().error("unexpected_error", job_id=spec.id, exc_info=exc)
            told.put_nowait(InternalError(f"{type(exc).__name__}: {exc}"))
