"""The versions of one model that a node has loaded, kept as they are wanted: each in a child process of its own.

A version that is wanted is loaded beside the one that serves, tried with a small clip, and only then offered; one that
is no longer wanted is ended when nothing uses it. So a node goes on serving while it changes, and what cannot be loaded
changes nothing. Holds two versions at a time during a rollout, and needs the memory for both.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, ModelDigestMismatch, NodeUnavailable
from adaptivegen.generation.messages import GenerateCommand
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.models.base import GenerationInput
from adaptivegen.models.card import ModelCard
from adaptivegen.nodes import LOADING_TOLD, MAX_REASON, FinishedWork, Loading
from adaptivegen.process import end, guarded
from adaptivegen.telemetry import get_logger

LOOK_EVERY_S = 0.5
MOST_LOADED = 2
TRIES = 2  # to load a version, before it is said that it cannot be
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
PROCESS_S = 1.0  # until a child's process is there, beside loading
READ_BYTES_PER_S = 100e6  # of weights, where nothing was measured
CHECK_PROMPT = "a red circle moves right over a sunset sky"


@dataclass(slots=True)
class Kept:
    """One loaded version. users: who generates with it or is about to."""

    card: ModelCard
    runner: ModelRunner
    keeping: asyncio.Task[None] | None = None
    users: int = 0


@dataclass(slots=True)
class _Failing:
    """A version that could not be loaded."""

    times: int = 0
    reason: str = ""
    again_at_s: float = 0.0


@dataclass(slots=True)
class ModelSet:
    """All versions at hand; `run` must be running for them to change.

    wanted: names of the versions to have, the one that serves first. card_of, open_runner and fetch raise typed errors.
    fetch: brings a version's files here where they are missing, or, where that is said, damaged; whether it did.
    """

    wanted: Callable[[], tuple[str, ...]]
    card_of: Callable[[str], ModelCard]
    open_runner: Callable[[ModelCard], ModelRunner]
    clock: Clock
    fetch: Callable[[str, bool], Awaitable[bool]] | None = None
    _kept: dict[str, Kept] = field(default_factory=dict)
    _failing: dict[str, _Failing] = field(default_factory=dict)
    _group: asyncio.TaskGroup | None = None
    _loading: tuple[str, asyncio.Task[None]] | None = None
    _begun: dict[str, tuple[float, float]] = field(default_factory=dict)  # loads under way: when, and how long expected
    _took_s: dict[str, float] = field(default_factory=dict)  # the last load of each version

    # ---- as others see it -------------------------------------------------------------------------------------

    @property
    def main(self) -> Kept:
        """The version that serves: what is to, while that does not live what did before, and only where there is
        neither what is being tried. Raises NodeUnavailable before one was loaded."""
        serving, *tried = self.wanted()
        names = [name for name in (serving, *self._kept) if name in self._kept and name not in tried]
        names = names or list(self._kept)
        if not names:
            raise NodeUnavailable("no model is loaded")
        return self._kept[next((name for name in names if self._kept[name].runner.ready), names[0])]

    @property
    def ready(self) -> bool:
        """Whether the version that serves is loaded and its process lives."""
        return bool(self._kept) and self.main.runner.ready

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the versions that can be used now, the one that serves first."""
        if not self._kept:
            return ()
        main, wanted = self.main, self.wanted()
        others = [kept for name, kept in self._kept.items() if name in wanted and kept is not main]
        return (main.card.name, *(kept.card.name for kept in others if kept.runner.ready))

    @property
    def refused(self) -> dict[str, str]:
        """Versions that could not be loaded, and why."""
        return {name: failing.reason for name, failing in self._failing.items() if failing.times >= TRIES}

    @property
    def loading(self) -> tuple[Loading, ...]:
        """Versions that are about to be there, also such as are loaded again after their process died."""
        now_s = self.clock.monotonic_s()
        first = [(name, now_s - begun_s, expected_s) for name, (begun_s, expected_s) in self._begun.items()]
        again = [
            (name, kept.runner.loading_s, kept.runner.loaded_s)
            for name, kept in self._kept.items()
            if name not in self._begun
        ]
        told = [
            Loading(model=name, elapsed_s=elapsed_s, expected_s=expected_s)
            for name, elapsed_s, expected_s in (*first, *again)
            if elapsed_s is not None
        ]
        return tuple(told[:LOADING_TOLD])

    @property
    def failed_in_row(self) -> int:
        """Generations of the version that serves, see `ModelRunner`."""
        return self.main.runner.failed_in_row if self._kept else 0

    @property
    def held(self) -> tuple[Kept, ...]:
        """All versions that are here, also such as are no longer wanted, or are being started again."""
        return tuple(self._kept.values())

    @property
    def needed(self) -> set[str]:
        """Names of all that is here or is to be."""
        loading = {self._loading[0]} if self._loading is not None else set()
        return {*self.wanted(), *self._kept, *self._begun, *loading}

    @property
    def finished(self) -> tuple[FinishedWork, ...]:
        """The last generations, and how long each had its model."""
        return self.main.runner.finished if self._kept else ()

    def find(self, name: str) -> Kept | None:
        """A version, if it can be used now."""
        kept = self._kept.get(name)
        return kept if kept is not None and kept.runner.ready else None

    @asynccontextmanager
    async def using(self, kept: Kept) -> AsyncIterator[ModelRunner]:
        """A version that is not ended while the block lasts."""
        kept.users += 1
        try:
            yield kept.runner
        finally:
            kept.users -= 1

    # ---- keeping it so ----------------------------------------------------------------------------------------

    async def start(self, or_else: str = "") -> None:
        """Load the version that serves; raises what its card or its process say. or_else: a version to begin with where
        that one cannot be loaded here; `run` goes on trying."""
        name = self.wanted()[0]
        try:
            loaded = await self._load(name, tried=False)
        except AdaptiveGenError as exc:
            if or_else in ("", name):
                raise
            get_logger().error("version_not_loaded", model=name, instead=or_else, error=exc.message)
            loaded = await self._load(or_else, tried=False)
        self.adopt(*loaded)

    def adopt(self, card: ModelCard, runner: ModelRunner) -> None:
        """Have a version that was loaded already. That its files went bad shows when its process is started again."""
        if self.fetch is not None:
            runner.mend = functools.partial(self.fetch, card.name, True)
        kept = self._kept[card.name] = Kept(card, runner)
        self._keep(kept)

    async def run(self) -> None:
        """Load and end versions as they are wanted, and start again what dies; until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for kept in self._kept.values():
                self._keep(kept)
            while True:
                await self._converge(group)
                await self.clock.sleep(LOOK_EVERY_S)

    async def _converge(self, group: asyncio.TaskGroup) -> None:
        """One look: end what is not wanted, then load what is missing, one at a time and never a third beside two."""
        wanted = self.wanted()
        for name in list(self._failing):
            if name not in wanted:
                del self._failing[name]  # wanted again, it is tried anew
        if self._loading is not None and self._loading[0] not in wanted:
            await end(self._loading[1])
        main = self.main if self._kept else None
        for name, kept in list(self._kept.items()):
            unused = not kept.users and not kept.runner.busy
            if name not in wanted and kept is not main and unused:
                await self._remove(name, kept)
        if self._loading is not None and self._loading[1].done():
            self._loading = None
        missing = [name for name in wanted if name not in self._kept and self._due(name)]
        if missing and self._loading is None and len(self._kept) < MOST_LOADED:
            self._loading = missing[0], group.create_task(guarded("load", self._add(missing[0])))

    async def close(self) -> None:
        """End all children; `run` must have ended."""
        for kept in self._kept.values():
            await kept.runner.close()
        self._kept.clear()

    def _due(self, name: str) -> bool:
        failing = self._failing.get(name)
        return failing is None or self.clock.monotonic_s() >= failing.again_at_s

    async def _add(self, name: str) -> None:
        try:
            card, runner = await self._load(name, tried=True)
        except Exception as exc:  # also a bug of a version that is tried: what serves must go on
            failing = self._failing.setdefault(name, _Failing())
            failing.times += 1
            said = f"{exc.code}: {exc.message}" if isinstance(exc, AdaptiveGenError) else f"{type(exc).__name__}: {exc}"
            failing.reason = said[:MAX_REASON]
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failing.times - 1, 10))
            failing.again_at_s = self.clock.monotonic_s() + pause_s
            get_logger().error("version_not_loaded", model=name, times=failing.times, error=failing.reason)
            return
        self._failing.pop(name, None)
        self.adopt(card, runner)
        get_logger().info("version_loaded", model=name, load_ms=runner.load_ms)

    async def _remove(self, name: str, kept: Kept) -> None:
        del self._kept[name]
        if kept.keeping is not None:
            await end(kept.keeping)
        await kept.runner.close()
        get_logger().info("version_ended", model=name)

    def _keep(self, kept: Kept) -> None:
        if self._group is not None:
            kept.keeping = self._group.create_task(guarded("keep", kept.runner.keep()))

    async def _load(self, name: str, *, tried: bool) -> tuple[ModelCard, ModelRunner]:
        """Card and runner of a loaded version; tried: it has made a small clip."""
        if self.fetch is not None:
            await self.fetch(name, False)
        try:
            return await self._open(name, tried=tried)
        except ModelDigestMismatch as exc:  # sizes were right
            get_logger().warning("version_damaged", model=name, error=exc.message)
            if self.fetch is None or not await self.fetch(name, True):
                raise
        return await self._open(name, tried=tried)

    async def _open(self, name: str, *, tried: bool) -> tuple[ModelCard, ModelRunner]:
        card = self.card_of(name)
        runner = self.open_runner(card)
        begun_s = self.clock.monotonic_s()
        self._begun[name] = begun_s, self._took_s.get(name) or load_s(card)
        try:
            await runner.start()
            if tried:
                await runner.generate(check_command(card), None, lambda step: None, noted=False)
        except BaseException:
            await runner.close()
            raise
        finally:
            del self._begun[name]
        self._took_s[name] = self.clock.monotonic_s() - begun_s
        return card, runner


def load_s(card: ModelCard) -> float:
    """Seconds that loading a version should take which was never loaded here: by its card's first profile, else by the
    size of its files."""
    if card.profile:
        return PROCESS_S + card.profile[0].load_ms / 1e3
    return PROCESS_S + sum(file.bytes for file in card.files.values()) / READ_BYTES_PER_S


def check_command(card: ModelCard) -> GenerateCommand:
    """A small clip that every model of the card's limits must be able to make."""
    limits = card.limits
    sizes = [tuple(map(int, size.split("x"))) for size in limits.sizes]
    width, height = min(sizes, key=lambda size: size[0] * size[1])
    request = GenerationInput(
        prompt=CHECK_PROMPT,
        seed=limits.seed_min,
        width=width,
        height=height,
        frames=min(limits.frame_counts()),
        steps=limits.steps_min,
        guidance=limits.guidance_default,
    )
    return GenerateCommand(request_id=f"check.{card.name}", request=request, fps=limits.fps)
