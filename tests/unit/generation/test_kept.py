"""The versions that a node has loaded, as what is wanted changes; the models' processes are stood in for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import GenerationFailed, ModelDigestMismatch, ModelNotFound, NodeUnavailable
from adaptivegen.generation.kept import LOOK_EVERY_S, TRIES, ModelSet, check_command, load_s
from adaptivegen.generation.messages import GenerateCommand
from adaptivegen.models.card import ModelCard
from tests.cards import cloud_card


class Process:
    """Loads, generates and ends as told."""

    def __init__(
        self, card: ModelCard, fails: Exception | None, breaks: Exception | None, hangs: asyncio.Event | None
    ) -> None:
        self.card, self.fails, self.breaks, self.hangs = card, fails, breaks, hangs
        self.ready = self.busy = False
        self.load_ms = 1.0
        self.loading_s: float | None = None
        self.loaded_s = 2.0
        self.finished = ()
        self.made: list[GenerateCommand] = []
        self.closed = 0

    async def start(self) -> None:
        if self.fails is not None:
            raise self.fails
        if self.hangs is not None:
            await self.hangs.wait()
        self.ready = True

    async def generate(self, command: GenerateCommand, start: None, on_step: object, *, noted: bool) -> None:
        assert not noted
        self.made.append(command)
        if self.breaks is not None:
            raise self.breaks

    async def keep(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.ready = False
        self.closed += 1


class Node:
    """A set of versions, what is wanted of it, and its processes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wanted: tuple[str, ...] = ("old",)
        self.fails: dict[str, Exception] = {}
        self.breaks: dict[str, Exception] = {}
        self.hangs: asyncio.Event | None = None
        self.opened: list[Process] = []
        self.models = ModelSet(lambda: self.wanted, self._card, self._open, self.clock)

    def _card(self, name: str) -> ModelCard:
        if name == "unknown":
            raise ModelNotFound("no model 'unknown'", param="model")
        return cloud_card(name=name)

    def _open(self, card: ModelCard) -> Any:
        process = Process(card, self.fails.get(card.name), self.breaks.get(card.name), self.hangs)
        self.opened.append(process)
        return process

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not reached():
                await asyncio.sleep(0)  # virtual time does not pass for a task that never began
                await self.clock.advance(LOOK_EVERY_S)


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    made = Node()
    await made.models.start()
    running = asyncio.get_running_loop().create_task(made.models.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_version_that_is_wanted_is_loaded_and_makes_a_clip_before_it_is_offered() -> None:
    async with node() as one:
        assert len(one.models.loaded) == 1
        one.wanted = ("old", "new")
        await one.until(lambda: one.models.loaded == ("old", "new"))
        assert one.opened[0].made == [] and len(one.opened[1].made) == 1


async def test_when_the_new_version_serves_the_old_one_is_ended() -> None:
    async with node() as one:
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.models.loaded) == 2)
        one.wanted = ("new",)
        await one.until(lambda: one.opened[0].closed == 1)
        assert one.models.main.card.name == "new" and one.models.loaded == ("new",)


async def test_a_version_in_use_is_ended_when_nobody_uses_it_any_more() -> None:
    async with node() as one:
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.models.loaded) == 2)
        kept = one.models.find("new")
        assert kept is not None
        async with one.models.using(kept):
            one.wanted = ("old",)
            for _ in range(10):
                await one.clock.advance(LOOK_EVERY_S)
            assert one.opened[1].closed == 0
        await one.until(lambda: one.opened[1].closed == 1)
        assert one.models.loaded == ("old",)


async def test_what_is_being_loaded_is_told_with_how_long_that_should_take() -> None:
    async with node() as one:
        assert not one.models.loading
        one.hangs, one.wanted = asyncio.Event(), ("old", "new")
        await one.until(lambda: bool(one.models.loading))
        (before,) = one.models.loading
        await one.clock.advance(3.0)
        (load,) = one.models.loading
        assert (load.model, load.expected_s) == ("new", load_s(cloud_card()))
        assert load.elapsed_s == pytest.approx(before.elapsed_s + 3.0)
        one.hangs.set()
        await one.until(lambda: one.models.loaded == ("old", "new"))
        assert not one.models.loading


async def test_how_long_a_version_took_to_load_is_expected_of_its_next_load() -> None:
    async with node() as one:
        one.hangs, one.wanted = asyncio.Event(), ("old", "new")
        await one.until(lambda: bool(one.models.loading))
        await one.clock.advance(30.0)
        one.hangs.set()
        await one.until(lambda: one.models.loaded == ("old", "new"))
        one.wanted = ("old",)
        await one.until(lambda: one.opened[1].closed == 1)
        one.hangs, one.wanted = asyncio.Event(), ("old", "new")
        await one.until(lambda: bool(one.models.loading))
        assert one.models.loading[0].expected_s >= 30.0
        one.hangs.set()


async def test_a_load_that_failed_is_under_way_no_more_and_one_of_a_process_that_died_is() -> None:
    async with node() as one:
        one.fails["new"] = GenerationFailed("no")
        one.wanted = ("old", "new")
        await one.until(lambda: "new" in one.models.refused)
        assert all(load.model != "new" for load in one.models.loading)
        one.opened[0].loading_s = 0.5
        (load,) = one.models.loading
        assert (load.model, load.elapsed_s, load.expected_s) == ("old", 0.5, 2.0)


def test_a_load_is_expected_to_take_what_the_card_says_or_its_files_would() -> None:
    card = cloud_card()
    assert load_s(card) == pytest.approx(1.0 + card.profile[0].load_ms / 1e3)
    large = card.files["base"].model_copy(update={"bytes": 500_000_000})
    assert load_s(card.model_copy(update={"profile": (), "files": {"base": large}})) == pytest.approx(6.0)


@pytest.mark.parametrize("when", ["fails", "breaks"])
async def test_a_version_that_does_not_load_or_makes_no_clip_is_refused_and_the_other_goes_on(when: str) -> None:
    async with node() as one:
        getattr(one, when)["new"] = ModelDigestMismatch("base.onnx is not what its card says")
        one.wanted = ("old", "new")
        await one.until(lambda: "new" in one.models.refused)
        assert "base.onnx" in one.models.refused["new"] and one.models.refused.keys() == {"new"}
        assert one.models.loaded == ("old",) and one.models.ready
        assert [process.closed for process in one.opened[1:]] == [1] * TRIES
        one.wanted = ("old",)
        await one.until(lambda: one.models.refused == {})


async def test_a_version_that_failed_once_is_tried_again_and_nothing_is_said() -> None:
    async with node() as one:
        one.fails["new"] = GenerationFailed("out of memory")
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.opened) == 2)
        assert one.models.refused == {}
        one.fails.clear()
        await one.until(lambda: one.models.loaded == ("old", "new"))


async def test_what_is_loaded_serves_while_what_is_in_force_cannot_be_loaded() -> None:
    async with node() as one:
        one.wanted = ("unknown",)
        await one.until(lambda: "unknown" in one.models.refused)
        assert one.models.loaded == ("old",) and one.models.main.card.name == "old"


async def test_a_third_version_is_not_loaded_beside_two() -> None:
    async with node() as one:
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.models.loaded) == 2)
        kept = one.models.find("new")
        assert kept is not None
        async with one.models.using(kept):
            one.wanted = ("old", "third")
            for _ in range(10):
                await one.clock.advance(LOOK_EVERY_S)
            assert len(one.opened) == 2 and one.models.loaded == ("old",)  # what is not wanted is not offered
        await one.until(lambda: one.models.loaded == ("old", "third"))
        assert [process.closed for process in one.opened] == [0, 1, 0]


async def test_loading_that_is_not_wanted_any_more_is_given_up() -> None:
    async with node() as one:
        one.hangs = asyncio.Event()
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.opened) == 2)
        one.wanted = ("old",)
        await one.until(lambda: one.opened[1].closed == 1)
        assert one.models.loaded == ("old",)


async def test_what_lives_serves_while_what_is_in_force_has_died() -> None:
    async with node() as one:
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.models.loaded) == 2)
        one.opened[1].ready = False
        one.wanted = ("new",)
        for _ in range(10):
            await one.clock.advance(LOOK_EVERY_S)
        assert one.models.ready and one.models.main.card.name == "old" and one.opened[0].closed == 0


async def test_while_what_serves_is_started_again_what_is_tried_does_not_take_its_place() -> None:
    async with node() as one:
        one.wanted = ("old", "new")
        await one.until(lambda: len(one.models.loaded) == 2)
        one.opened[0].ready = False  # its process has died; a worker waits for it
        assert not one.models.ready and one.models.main.card.name == "old"


async def test_a_bug_at_loading_a_version_is_a_version_that_cannot_be_loaded() -> None:
    async with node() as one:
        one.fails["new"] = ZeroDivisionError("a bug")
        one.wanted = ("old", "new")
        await one.until(lambda: "new" in one.models.refused)
        assert "ZeroDivisionError" in one.models.refused["new"] and one.models.ready


async def test_a_node_that_cannot_load_what_serves_does_not_start() -> None:
    one = Node()
    one.fails["old"] = GenerationFailed("no such device")
    with pytest.raises(GenerationFailed):
        await one.models.start()
    assert not one.models.ready and one.models.loaded == ()
    with pytest.raises(NodeUnavailable):
        _ = one.models.main


def test_the_clip_that_is_tried_is_the_smallest_that_the_card_allows() -> None:
    limits = cloud_card().limits.model_copy(update={"sizes": ("256x256", "64x128", "512x512"), "steps_min": 2})
    request = check_command(cloud_card(limits=limits)).request
    assert (request.width, request.height, request.steps) == (64, 128, 2)


async def test_a_node_that_cannot_load_what_serves_begins_with_another_and_goes_on_trying() -> None:
    made = Node()
    made.wanted, made.fails["new"] = ("new",), ModelDigestMismatch("base.onnx is another")
    with pytest.raises(ModelDigestMismatch):
        await made.models.start()
    await made.models.start(or_else="old")
    assert (made.models.loaded, made.models.ready) == (("old",), True)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.models.run())
        await made.until(lambda: "new" in made.models.refused)
        assert made.models.loaded == ("old",)
        made.fails.clear()
        await made.until(lambda: made.models.loaded == ("new",))
        running.cancel()
    made.fails["old"] = GenerationFailed("out of memory")
    with pytest.raises(GenerationFailed):
        await failing(made).start(or_else="old")


def failing(node: Node) -> ModelSet:
    """A node where neither what serves nor what is to stand in can be loaded."""
    node.fails["new"] = ModelDigestMismatch("base.onnx is another")
    return ModelSet(lambda: ("new",), node._card, node._open, node.clock)


@pytest.mark.parametrize("mended", [True, False])
async def test_damaged_files_are_fetched_again_once_and_the_version_loaded_where_that_helped(mended: bool) -> None:
    one, asked = Node(), []

    async def fetch(name: str, damaged: bool) -> bool:
        asked.append((name, damaged))
        if damaged and mended:
            one.fails.clear()
        return damaged and mended

    one.models.fetch = fetch
    one.fails = {"old": ModelDigestMismatch("old: file base.onnx has another sha256")}
    if mended:
        await one.models.start()
        assert one.models.loaded == ("old",)
    else:
        with pytest.raises(ModelDigestMismatch):
            await one.models.start()
    assert asked == [("old", False), ("old", True)]
    assert [process.closed for process in one.opened] == ([1, 0] if mended else [1])
