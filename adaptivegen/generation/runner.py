"""The parent's side: one model child, one generation at a time, by turns, restarted when it dies.

Owns the child. Decides when it is given up: on a death, on silence beyond `step_timeout_s`, and when a cancelled
generation does not stop within `cancel_grace_s`. It must not know jobs, brokers or stores.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from adaptivegen.child.framing import Message
from adaptivegen.child.parent import ChildProcess
from adaptivegen.clock import Clock
from adaptivegen.drafting import has_room
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    ModelDigestMismatch,
    ModelNotFound,
    NodeUnavailable,
    ResourceExhausted,
)
from adaptivegen.generation.messages import GenerateCommand, Generated, Step, raised
from adaptivegen.generation.turns import Turns
from adaptivegen.nodes import FINISHED_TOLD, FinishedWork
from adaptivegen.telemetry import get_logger

LOAD_TIMEOUT_S = 120.0
LOOK_EVERY_S = 0.5  # how often `keep` looks after the child
LONGEST_PAUSE_S = 30.0
CANCEL_GRACE_S = 5.0


class Finished:
    """The last generations of a node, for its heartbeat: how long each had the model."""

    def __init__(self) -> None:
        self._count = 0
        self._last: deque[FinishedWork] = deque(maxlen=FINISHED_TOLD)

    @property
    def last(self) -> tuple[FinishedWork, ...]:
        """In order."""
        return tuple(self._last)

    def note(self, model: str, command: GenerateCommand, generated: Generated, *, took_s: float) -> None:
        """One more. took_s: with handing over what it begins from and the clip."""
        self._count += 1
        own_s = (generated.generate_ms + generated.encode_ms) / 1e3
        self._last.append(
            FinishedWork(
                number=self._count,
                model=model,
                width=generated.width,
                height=generated.height,
                frames=generated.frames,
                steps=command.request.steps,
                guidance=command.request.guidance,
                seconds=max(own_s, took_s),
            )
        )


class ModelRunner:
    """Runs generations in a child started as `python -m <module> <args>`.

    `queued` counts those waiting, `busy` says whether one runs; who yields lets others go first for a while. At most
    `max_waiting` wait; one more is refused. `failed_in_row`: generations that failed by no fault of their requests
    since the last that did not. finished: of the node, where it has several models. mend: brings files here where those
    that are cannot be loaded; whether it did.
    """

    def __init__(
        self,
        module: str,
        args: list[str],
        *,
        clock: Clock,
        max_waiting: int = 16,
        step_timeout_s: float = 120.0,
        cancel_grace_s: float = CANCEL_GRACE_S,
        finished: Finished | None = None,
    ) -> None:
        self._module = module
        self._args = args
        self._clock = clock
        self._max_waiting = max_waiting
        self._step_timeout_s = step_timeout_s
        self._cancel_grace_s = cancel_grace_s
        self._child: ChildProcess | None = None
        self._turns = Turns(clock)
        self.waiting: Counter[str] = Counter()  # generations that wait for their turn, by tenant
        self._current = ""
        self._begun, self._begun_s = 0, 0.0
        self._stopping = ""  # a cancelled generation of which the child has not said yet that it stopped
        self._finished = finished or Finished()
        self.mend: Callable[[], Awaitable[bool]] | None = None
        self.failed_in_row = 0
        self.load_ms = 0.0
        self.loaded_s = 0.0  # that the last load took, with starting its process; 0 before the first
        self._loading_since_s: float | None = None
        self.model = ""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and its process lives."""
        return self._child is not None and self._child.returncode is None

    @property
    def busy(self) -> bool:
        """Whether a generation runs now."""
        return self._turns.held

    @property
    def queued(self) -> int:
        """Generations that wait for their turn."""
        return self.waiting.total()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the generation at hand has begun; 0 where there is none."""
        return self._clock.monotonic_s() - self._begun_s if self._current else 0.0

    @property
    def pid(self) -> int | None:
        """The child's process id, while it lives."""
        return self._child.pid if self._child else None

    @property
    def loading_s(self) -> float | None:
        """Seconds since the load that is under way has begun; None where none is."""
        since_s = self._loading_since_s
        return None if since_s is None else self._clock.monotonic_s() - since_s

    async def start(self) -> None:
        """Start the child and wait until its model is loaded; raises what the child said, or GenerationFailed."""
        child = ChildProcess(self._module, self._args)
        begun_s = self._loading_since_s = self._clock.monotonic_s()
        try:
            await child.start()
            header = await self._loaded(child)
        except BaseException:  # also a cancel while it loads
            await child.kill()
            raise
        finally:
            self._loading_since_s = None
        self._child = child
        self.loaded_s = self._clock.monotonic_s() - begun_s
        self.load_ms, self.model = float(header["load_ms"]), str(header["model"])
        get_logger().info("model_loaded", model=self.model, load_ms=self.load_ms, pid=child.pid)

    async def _loaded(self, child: ChildProcess) -> dict[str, Any]:
        """Wait for the child's word that its model is loaded."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                header, _ = await child.receive()
        except TimeoutError as exc:
            raise GenerationFailed(f"the model did not load within {LOAD_TIMEOUT_S:g} s") from exc
        if header["type"] != "ready":
            raise raised(header)
        return header

    async def keep(self) -> None:
        """Start the child again when it has died or was given up, with growing pauses; until cancelled.

        Without it a dead child would be noticed, and started, only by the next generation, and one that does not stop
        what was cancelled would go on until then.
        """
        pause_s = LOOK_EVERY_S
        while True:
            await self._clock.sleep(pause_s)
            if self.ready and not self._stopping:
                pause_s = LOOK_EVERY_S
                continue
            failed = await self._revive()
            if failed is None:
                continue
            get_logger().error("model_not_loaded", code=failed.code, error=failed.message)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            if isinstance(failed, (ModelDigestMismatch, ModelNotFound, InvalidRequest)) and await self._mended():
                pause_s = LOOK_EVERY_S

    async def _revive(self) -> AdaptiveGenError | None:
        """Have a child, free of what was cancelled; what keeps it from being loaded, where something does."""
        async with self._turns.turn():
            await self._stop_model()
            if self._child is not None and self._child.returncode is not None:
                get_logger().warning("model_died", status=self._child.returncode)
                await self._give_up()
            if self._child is None:
                try:
                    await self.start()
                except AdaptiveGenError as exc:
                    return exc
        return None

    async def _mended(self) -> bool:
        """Whether files that went bad since they were loaded are good now. Has no turn: who generates meanwhile is told
        at once that there is no model."""
        try:
            return self.mend is not None and await self.mend()
        except AdaptiveGenError as exc:
            get_logger().warning("model_not_mended", code=exc.code, error=exc.message)
            return False

    async def generate(
        self,
        command: GenerateCommand,
        start_mp4: bytes | None,
        on_step: Callable[[Step], None],
        *,
        noted: bool = True,
        tenant: str = "",
        yields_s: float = 0.0,
        on_begin: Callable[[], None] | None = None,
    ) -> Generated:
        """Wait for a turn, generate, return the clip. If the calling task is cancelled, the model stops too.

        noted: among what the node has finished, from which others learn how fast it is; tenant: whose it is, since
        tenants take turns; yields_s: see `drafting`; on_begin: called when its turn has come and the model is loaded.

        Raises ResourceExhausted when too many wait, GenerationFailed when the child dies or falls silent (it is
        started again for the next), and whatever typed error the model raised.
        """
        await self._have_turn(tenant, yields_s=yields_s)
        try:
            await self._stop_model()
            if not self.ready:
                await self._load_again()
            # A name of its own: the child remembers cancelled ones, and the same job may be generated here again.
            self._begun += 1
            own = replace(command, request_id=f"{command.request_id}.{self._begun}")
            self._current, self._begun_s = own.request_id, self._clock.monotonic_s()
            self._turns.ready()
            if on_begin is not None:
                on_begin()
            generated = await self._converse(own, start_mp4, on_step)
            if noted:
                took_s = self._clock.monotonic_s() - self._begun_s
                self._finished.note(self.model, command, generated, took_s=took_s)
            self.failed_in_row = 0
            return generated
        except (GenerationFailed, TimeoutError) as exc:
            self.failed_in_row += 1
            await self._give_up()
            if isinstance(exc, TimeoutError):
                raise GenerationFailed(f"the model said nothing for {self._step_timeout_s:g} s") from exc
            raise
        except AdaptiveGenError as exc:
            self.failed_in_row += not isinstance(exc, (InvalidRequest, Cancelled))
            raise
        except asyncio.CancelledError:
            if self._current:
                self._stopping = self._current
                await self._stop_model()  # cancelled once more, it is left to whoever has the turn next
            raise
        finally:
            self._current = ""
            self._turns.release()

    async def _have_turn(self, tenant: str, *, yields_s: float) -> None:
        """Wait for a turn; raises ResourceExhausted when too many wait."""
        waiting = self.waiting
        if not has_room(tenant, waiting, queued=self.queued, at_most=self._max_waiting):
            raise ResourceExhausted(f"{self.queued} generations wait; allowed: {self._max_waiting}", retry_after_s=1.0)
        waiting[tenant] += 1
        try:
            await self._turns.acquire(tenant=tenant, yields_s=yields_s)
        finally:
            waiting[tenant] -= 1
            if not waiting[tenant]:
                del waiting[tenant]

    @property
    def finished(self) -> tuple[FinishedWork, ...]:
        """The last generations, by the model's own clock, for the node's heartbeat."""
        return self._finished.last

    async def cancel(self, request_id: str) -> None:
        """Ask the model to stop `request_id` before its next step; its `generate` then raises Cancelled."""
        if self._child is not None and self._current.rpartition(".")[0] == request_id:
            await self._child.send({"type": "cancel", "request_id": self._current})

    async def close(self) -> None:
        """End the child."""
        if self._child is not None:
            await self._child.stop(grace_s=2.0)
            self._child = None

    async def _load_again(self) -> None:
        """For a generation that meets no model. That it cannot be loaded is this node's trouble, not the request's."""
        await self._give_up()
        try:
            await self.start()
        except AdaptiveGenError as exc:
            raise NodeUnavailable(f"the model cannot be loaded: {exc.message}") from exc

    async def _converse(
        self, command: GenerateCommand, start_mp4: bytes | None, on_step: Callable[[Step], None]
    ) -> Generated:
        child = self._living()
        await child.send(command.header(), {"start": start_mp4} if start_mp4 is not None else {})
        while True:
            async with asyncio.timeout(self._step_timeout_s):
                header, blobs = await _received(child)
            if header.get("request_id") != command.request_id:
                continue  # the tail of an earlier, cancelled generation
            if header["type"] == "step":
                on_step(_step(header, blobs))
            elif header["type"] == "done":
                return _generated(header, blobs)
            else:
                raise raised(header)

    async def _stop_model(self) -> None:
        """Make the child free of a cancelled generation: it confirms the cancel, or is killed."""
        child, request_id = self._child, self._stopping
        if child is None or not request_id:
            self._stopping = ""
            return
        try:
            async with asyncio.timeout(self._cancel_grace_s):
                await child.send({"type": "cancel", "request_id": request_id})
                while True:
                    header, _ = await _received(child)
                    if header.get("request_id") == request_id and header["type"] in ("done", "error"):
                        break
        except (TimeoutError, AdaptiveGenError) as exc:
            self.failed_in_row += 1
            get_logger().warning("model_not_stopped", request_id=request_id, error=str(exc) or type(exc).__name__)
            await self._give_up()
        self._stopping = ""

    async def _give_up(self) -> None:
        self._stopping = ""
        child, self._child = self._child, None
        if child is not None:
            await child.kill()

    def _living(self) -> ChildProcess:
        if self._child is None:
            raise NodeUnavailable("the model is not loaded")
        return self._child


async def _received(child: ChildProcess) -> Message:
    """The child's next message; one that breaks the format is the child's failure, not a bug of the caller's."""
    try:
        return await child.receive()
    except InternalError as exc:
        raise GenerationFailed(f"the model's process broke the protocol: {exc.message}") from exc


def _step(header: dict[str, Any], blobs: dict[str, Any]) -> Step:
    look = bytes(blobs["look"]) if "look" in blobs else b""
    return Step(step=int(header["step"]), steps=int(header["steps"]), stage=str(header["stage"]), look_jpeg=look)


def _generated(header: dict[str, Any], blobs: dict[str, Any]) -> Generated:
    return Generated(
        mp4=bytes(blobs["mp4"]),
        width=int(header["width"]),
        height=int(header["height"]),
        frames=int(header["frames"]),
        generate_ms=float(header["generate_ms"]),
        encode_ms=float(header["encode_ms"]),
        familiarity=None if header["familiarity"] is None else float(header["familiarity"]),
    )
