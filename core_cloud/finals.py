"""How the final of a claimed job is made: prepared, generated when the model is free, uploaded.

Decides the version, the steps and what the model starts from. Who holds the job is decided by `lease`, when the model
is the job's by `stages`, what an error means for the job by `outcome`.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    NodeUnavailable,
    StorageFailure,
    platform_fault,
)
from adaptivegen.generation.kept import Kept, ModelSet
from adaptivegen.generation.messages import GenerateCommand, Generated
from adaptivegen.jobs.clips import media_of
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec, Manifest
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.base import GenerationInput, Task
from adaptivegen.models.card import ModelCard
from adaptivegen.models.familiarity import doubt
from adaptivegen.nodes import STORE_PUT
from adaptivegen.placement import AS_DECIDED, ToldSteps, plan_of
from adaptivegen.request import GenerationRequest
from adaptivegen.telemetry import get_logger
from adaptivegen.ways import Transfers
from core_cloud.drafts import DraftSource, Start
from core_cloud.lease import Lease
from core_cloud.progress import Progress, expect
from core_cloud.stages import AtHand, Stages
from core_cloud.versions import Version, choose, note_of, refine_t0, settled, steps_of

UPLOAD_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


class TrialFailed(GenerationFailed):
    """A version that is being tried has failed, whatever it said: another makes the final, and this worker is well."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the final of one job is generated: the version of the model, the command, what it starts from, and what went
    otherwise."""

    version: Version
    command: GenerateCommand
    start: Start
    name: str
    notes: tuple[str, ...]


class Finals:
    """Makes finals for one worker. transfers: is told what uploads take."""

    def __init__(
        self,
        *,
        node_id: str,
        jobs: JobStore,
        models: ModelSet,
        line: str,
        drafts: DraftSource,
        stages: Stages,
        transfers: Transfers,
        clock: Clock,
    ) -> None:
        self._node_id = node_id
        self._jobs = jobs
        self._models = models
        self._line = line
        self._drafts = drafts
        self._stages = stages
        self._transfers = transfers
        self._clock = clock

    async def make(
        self, job: AtHand, lease: Lease, spec: JobSpec, record: JobRecord, *, told: ToldSteps = AS_DECIDED
    ) -> Manifest:
        """The uploaded final, and the manifest that would make it the outcome. told: with the job's turn."""
        version = choose(spec, self._line, self._models.loaded, attempts=record.attempts)
        job.version = version.name
        kept = self._loaded(version.name)
        async with self._models.using(kept):
            plan = await self._plan(spec, record, version, kept.card, told=told)
            generated, gpu_s = await self._generate(job, lease, plan, kept)
        return await self._upload(spec, record, plan, generated, gpu_s=gpu_s)

    def _loaded(self, name: str) -> Kept:
        """A version that can be used now; raises NodeUnavailable."""
        kept = self._models.find(name)
        if kept is None:
            raise NodeUnavailable(f"{name} is not loaded")
        return kept

    async def _generate(self, job: AtHand, lease: Lease, plan: Plan, kept: Kept) -> tuple[Generated, float]:
        """The clip, and the seconds of the model that it took; waits until the model is free."""
        asked = plan.command.request
        expected = expect(kept.card, steps=asked.steps, width=asked.width, height=asked.height, frames=asked.frames)
        progress = Progress(expected)
        async with self._stages.model(job, progress):
            self._loaded(plan.version.name)  # if it died of the one before, whoever is well has this one sooner
            lease.follow(progress)
            try:
                generated = await kept.runner.generate(
                    plan.command,
                    plan.start.mp4,
                    lambda step: progress.observe(step, elapsed_s=self._clock.monotonic_s() - job.begun_s),
                )
            except AdaptiveGenError as exc:
                if kept is self._models.main or isinstance(exc, Cancelled) or platform_fault(exc):
                    raise
                raise TrialFailed(f"{plan.version.name} failed: {exc.message}") from exc
            gpu_s = self._clock.monotonic_s() - job.begun_s
            told = {"gpu_s": round(gpu_s, 3), "model_stood_still_s": round(job.idle_s, 3)}
            get_logger().info("job_generated", job_id=job.job_id, plan=plan.name, **told)
            return generated, gpu_s

    async def _plan(
        self, spec: JobSpec, record: JobRecord, version: Version, card: ModelCard, *, told: ToldSteps
    ) -> Plan:
        """Fetch what the plan starts from and choose the steps; without its draft a final starts from noise."""
        request = spec.request
        start, strength = Start(), None
        t0 = refine_t0(spec, card, version)
        if record.plan in ("refine", "reduced") and t0 is not None:
            start = await self._drafts.draft(spec)
        drafted, note = start.mp4 is not None, start.note
        if drafted:
            strength = t0
        elif request.reference is not None:
            start = await self._drafts.reference(spec)
            strength = request.strength
        if settled(spec, card, version, told=told.steps, plan=record.plan, drafted=drafted):
            name, steps, changed = plan_of(spec.decision, told.steps), told.steps, note_of(spec, told)
        else:
            name = "reduced" if record.plan == "reduced" else "refine" if drafted else "cloud"
            steps, changed = steps_of(spec, card, version, plan=name, drafted=drafted), ""
        command = GenerateCommand(
            request_id=f"{spec.id}.{record.epoch}",
            request=GenerationInput(
                prompt=request.prompt,
                seed=request.seed or 0,
                width=request.width,
                height=request.height,
                frames=request.frames,
                steps=steps,
                guidance=request.guidance,
            ),
            fps=request.fps,
            strength=strength,
            task=_task(start, request, drafted=drafted),
        )
        return Plan(version, command, start, name, notes=tuple(filter(None, (version.note, note, changed))))

    async def _upload(
        self, spec: JobSpec, record: JobRecord, plan: Plan, generated: Generated, *, gpu_s: float
    ) -> Manifest:
        final = media_of(generated, spec, epoch=record.epoch)
        await self._put(final.key, generated.mp4)
        return Manifest(
            id=spec.id,
            tenant=spec.tenant,
            outcome="completed",
            epoch=record.epoch,
            finished_at_ns=self._clock.now_ns(),
            worker_id=self._node_id,
            final=final,
            final_steps=plan.command.request.steps,
            gpu_s=round(gpu_s, 3),
            made_with=plan.version.name,
            failed_with=record.failed_with,
            drafted_with=plan.start.drafted_with,
            plan=plan.name,
            notes=(*plan.notes, *filter(None, (doubt(generated.familiarity),))),
        )

    async def _put(self, key: str, mp4: bytes) -> None:
        """Upload; a store that fails for a moment is asked again before the generation is given up for it."""
        for pause_s in UPLOAD_PAUSES_S:
            try:
                await self._put_once(key, mp4)
                return
            except (StorageFailure, DeadlineExceeded) as exc:
                get_logger().warning("upload_failed", key=key, code=exc.code, error=exc.message)
            await self._clock.sleep(pause_s)
        await self._put_once(key, mp4)

    async def _put_once(self, key: str, mp4: bytes) -> None:
        begun_s = self._clock.monotonic_s()
        await self._jobs.blob.put(key, mp4)
        now_s = self._clock.monotonic_s()
        self._transfers.observe(STORE_PUT, len(mp4), now_s - begun_s, now_s=now_s)


_AS_DRAFT: dict[Task, Task] = {
    "restyle": "restyle",
    "animate": "animate",
    "extend": "extended",
    "interpolate": "interpolated",
}


def _task(start: Start, request: GenerationRequest, *, drafted: bool) -> Task:
    """What the clip that generation starts from is for; a draft of an image or a video holds what was given to it."""
    if start.mp4 is None:
        return "restyle"
    if not drafted:
        return request.reference_task
    if request.reference is None:
        return "refine"
    return _AS_DRAFT[request.reference_task]
