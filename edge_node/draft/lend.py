"""Drafts made here for jobs that other edges have accepted.

What is to be drafted is read from the job's spec in the object store, and only for whoever shows the token in it: a
caller can ask for nothing that was not accepted. The accepting edge stores the draft and tells of it; none stays here.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    InternalError,
    ModelDigestMismatch,
    NodeUnavailable,
    PermissionDenied,
)
from adaptivegen.generation.messages import Generated, Step
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.card import ModelCard
from adaptivegen.process import end, guarded
from adaptivegen.rpc.draft import DraftOrder, Lent
from adaptivegen.telemetry import get_logger, span
from edge_node.draft.command import draft_command

BUFFER = 64  # looks on their way to the caller; one that does not read them loses some, never the draft


class Lending:
    """The drafts in the making for others. `run` must be running. accepting: whether more is taken."""

    def __init__(
        self, *, jobs: JobStore, runner: ModelRunner, card: ModelCard, clock: Clock, accepting: Callable[[], bool]
    ) -> None:
        self._jobs = jobs
        self._runner = runner
        self._card = card
        self._clock = clock
        self._accepting = accepting
        self._group: asyncio.TaskGroup | None = None

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

        Raises NotFound, PermissionDenied, ModelDigestMismatch, NodeUnavailable, and what the model raises.
        """
        spec = await self._read(order)
        begun_s = self._clock.monotonic_s()
        yield None
        if self._group is None:
            raise NodeUnavailable("this edge drafts no more")
        told: asyncio.Queue[Step | Generated | AdaptiveGenError] = asyncio.Queue(BUFFER)
        making = self._group.create_task(guarded("lent draft", self._generate(spec, told)))
        try:
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

    async def _read(self, order: DraftOrder) -> JobSpec:
        """The job that is asked for; raises what `make` does."""
        if not self._accepting() or self._group is None:
            raise NodeUnavailable("this edge takes no more drafts")
        if order.model_digest != self._card.digest:
            raise ModelDigestMismatch(
                f"the draft model here is {self._card.name} {self._card.digest[:12]}, not {order.model_digest[:12]!r}",
                param="model_digest",
            )
        spec = await self._jobs.spec(order.tenant, order.job_id)
        if not (spec.draft_token and hmac.compare_digest(spec.draft_token.encode(), order.token.encode())):
            raise PermissionDenied(f"not the draft token of {order.job_id!r}", param="token")
        return spec

    async def _generate(self, spec: JobSpec, told: asyncio.Queue[Step | Generated | AdaptiveGenError]) -> None:
        """Run the model; the last place of the queue is kept for how it ended."""

        def on_step(step: Step) -> None:
            if told.qsize() < BUFFER - 1:
                told.put_nowait(step)

        try:
            with span("edge.lent_draft", carrier=spec.trace, job_id=spec.id):
                reference = spec.request.reference
                start_mp4 = await self._jobs.blob.get(reference.key) if reference is not None else None
                command = draft_command(spec, self._card, has_start=start_mp4 is not None)
                told.put_nowait(await self._runner.generate(command, start_mp4, on_step))
        except AdaptiveGenError as exc:
            told.put_nowait(exc)
        except Exception as exc:  # a bug met by one draft must not leave its caller waiting
            get_logger().error("unexpected_error", job_id=spec.id, exc_info=exc)
            told.put_nowait(InternalError(f"{type(exc).__name__}: {exc}"))
