"""The model runner with a real child process: turns, cancelling, deaths, silence, refusals."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator

import numpy as np
import psutil
import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import (
    Cancelled,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    ModelDigestMismatch,
    NodeUnavailable,
    ResourceExhausted,
)
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.generation.runner import LOOK_EVERY_S, ModelRunner
from adaptivegen.media.mp4 import decode_video, encode_mp4
from adaptivegen.models.base import GenerationInput
from adaptivegen.nodes import FINISHED_TOLD

MODULE = "tests.integration.obedient_model"


def command(prompt: str = "plain", *, request_id: str = "r1", steps: int = 3, looks: bool = False) -> GenerateCommand:
    request = GenerationInput(prompt=prompt, seed=1, width=64, height=64, frames=4, steps=steps, guidance=1.0)
    return GenerateCommand(request_id=request_id, request=request, fps=12, want_looks=looks)


def make(**changes: float) -> ModelRunner:
    return ModelRunner(MODULE, [], clock=ManualClock(), **changes)  # type: ignore[arg-type]


@pytest.fixture
async def runner() -> AsyncIterator[ModelRunner]:
    made = make(max_waiting=2)
    await made.start()
    yield made
    await made.close()


def ignore(step: Step) -> None:
    return None


class Started:
    """A generation in a task; `first` is set by its first step."""

    def __init__(self, runner: ModelRunner, prompt: str, request_id: str = "r1") -> None:
        self.first = asyncio.Event()
        made = runner.generate(command(prompt, request_id=request_id), None, lambda step: self.first.set())
        self.task = asyncio.get_running_loop().create_task(made)

    async def running(self) -> "Started":
        async with asyncio.timeout(30):
            await self.first.wait()
        return self


async def test_a_generation_begins_when_its_turn_has_come(runner: ModelRunner) -> None:
    first = await Started(runner, "forever").running()
    begun = asyncio.Event()
    behind = asyncio.get_running_loop().create_task(
        runner.generate(command(request_id="r2"), None, ignore, on_begin=begun.set)
    )
    while not runner.queued:
        await asyncio.sleep(0.001)
    assert not begun.is_set()
    first.task.cancel()
    async with asyncio.timeout(30):
        await behind
    assert begun.is_set()


async def test_steps_and_looks_are_reported_and_the_clip_is_a_video(runner: ModelRunner) -> None:
    steps: list[Step] = []
    generated = await runner.generate(command(looks=True), None, steps.append)
    assert [(step.step, step.steps, step.stage) for step in steps] == [(1, 3, "base"), (2, 3, "base"), (3, 3, "base")]
    assert all(step.look_jpeg.startswith(b"\xff\xd8") for step in steps)
    assert (generated.width, generated.height, generated.frames) == (64, 64, 4)
    assert generated.familiarity == 0.75
    clip, fps = decode_video(generated.mp4)
    assert (clip.shape, fps) == ((4, 64, 64, 3), 12)


async def test_a_model_that_cannot_tell_how_familiar_a_prompt_is_says_nothing(runner: ModelRunner) -> None:
    assert (await runner.generate(command("unmeasured"), None, ignore)).familiarity is None


async def test_what_was_finished_is_told_with_its_shape_and_time(runner: ModelRunner) -> None:
    assert not runner.finished
    with pytest.raises(InvalidRequest):
        await runner.generate(command("refuse"), None, ignore)
    for steps in range(1, FINISHED_TOLD + 3):
        generated = await runner.generate(command(steps=steps), None, ignore)
    assert [work.number for work in runner.finished] == list(range(3, FINISHED_TOLD + 3))
    last = runner.finished[-1]
    assert (last.model, last.width, last.height, last.frames, last.steps) == (runner.model, 64, 64, 4, steps)
    assert last.model
    assert last.seconds == pytest.approx((generated.generate_ms + generated.encode_ms) / 1e3)


async def test_looks_nobody_wants_are_not_sent(runner: ModelRunner) -> None:
    steps: list[Step] = []
    await runner.generate(command(), None, steps.append)
    assert {step.look_jpeg for step in steps} == {b""}


async def test_a_start_clip_reaches_the_model(runner: ModelRunner) -> None:
    start = encode_mp4(np.full((4, 64, 64, 3), 10, np.uint8), 12)
    bright = await runner.generate(command(), start, ignore)
    dark = await runner.generate(command(), None, ignore)
    assert decode_video(bright.mp4)[0].mean() > decode_video(dark.mp4)[0].mean() + 50


async def test_generations_take_turns_in_order_of_arrival_and_too_many_are_refused(runner: ModelRunner) -> None:
    first = await Started(runner, "forever", "r0").running()
    order: list[str] = []

    async def wait_for(request_id: str) -> Generated:
        return await runner.generate(command(request_id=request_id), None, lambda step: order.append(request_id))

    waiting = [asyncio.get_running_loop().create_task(wait_for(request_id)) for request_id in ("r1", "r2")]
    await asyncio.sleep(0)
    assert (runner.queued, runner.busy) == (2, True)
    with pytest.raises(ResourceExhausted) as refused:
        await wait_for("r3")
    assert refused.value.retry_after_s is not None
    await runner.cancel("r0")
    with pytest.raises(Cancelled):
        await first.task
    await asyncio.gather(*waiting)
    assert order == ["r1"] * 3 + ["r2"] * 3
    assert (runner.queued, runner.busy) == (0, False)


async def test_a_cancelled_task_stops_the_model_which_serves_the_next(runner: ModelRunner) -> None:
    pid = runner.pid
    started = await Started(runner, "forever").running()
    started.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started.task
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    assert runner.pid == pid  # stopped between two steps, not killed


async def test_a_task_cancelled_while_it_waits_leaves_the_line(runner: ModelRunner) -> None:
    first = await Started(runner, "forever", "r0").running()
    waiting = Started(runner, "plain", "r1").task
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert runner.queued == 0
    await runner.cancel("r0")
    with pytest.raises(Cancelled):
        await first.task
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4


async def test_a_model_that_does_not_stop_is_killed() -> None:
    runner = make(cancel_grace_s=0.1)
    await runner.start()
    assert runner.pid is not None
    child = psutil.Process(runner.pid)
    started = await Started(runner, "deaf").running()
    started.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started.task
    assert not child.is_running()
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    await runner.close()


async def test_cancels_at_any_moment_leave_the_model_loaded_and_in_step(runner: ModelRunner) -> None:
    pid = runner.pid
    rng = random.Random(5)
    for turn in range(40):
        task = asyncio.get_running_loop().create_task(
            runner.generate(command(request_id=f"c{turn}", steps=6, looks=True), None, ignore)
        )
        await asyncio.sleep(rng.uniform(0.0, 0.03))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or task.result().frames == 4
    assert (await runner.generate(command(request_id="after"), None, ignore)).frames == 4
    assert runner.pid == pid


async def test_a_second_cancel_while_the_model_is_being_stopped_frees_the_turn() -> None:
    runner = make(cancel_grace_s=0.3)
    await runner.start()
    started = await Started(runner, "deaf").running()
    started.task.cancel()
    await asyncio.sleep(0.05)
    started.task.cancel()
    await asyncio.wait({started.task})
    assert started.task.cancelled()
    assert not runner.busy
    async with asyncio.timeout(30):
        assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    await runner.close()


async def test_a_model_that_is_being_stopped_survives_a_second_cancel(runner: ModelRunner) -> None:
    pid = runner.pid
    started = await Started(runner, "forever").running()
    started.task.cancel()
    await asyncio.sleep(0)
    started.task.cancel()
    await asyncio.wait({started.task})
    assert started.task.cancelled()
    assert (runner.ready, runner.busy) == (True, False)
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    assert runner.pid == pid


async def test_a_model_that_does_not_stop_is_killed_even_if_nobody_waits_for_it() -> None:
    clock = ManualClock()
    runner = ModelRunner(MODULE, [], clock=clock, cancel_grace_s=0.1)
    await runner.start()
    assert runner.pid is not None
    deaf = psutil.Process(runner.pid)
    started = await Started(runner, "deaf").running()
    for _ in range(2):
        started.task.cancel()
        await asyncio.sleep(0.02)
    await asyncio.wait({started.task})
    keeping = asyncio.get_running_loop().create_task(runner.keep())
    async with asyncio.timeout(30):
        while not runner.ready or runner.pid == deaf.pid:
            await clock.advance(LOOK_EVERY_S)
            await asyncio.sleep(0.01)
    assert not deaf.is_running()
    keeping.cancel()
    await asyncio.wait({keeping})
    await runner.close()


async def test_a_model_that_died_unnoticed_is_started_for_the_next_generation(runner: ModelRunner) -> None:
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while runner.ready:
            await asyncio.sleep(0.01)
    assert (await runner.generate(command(), None, ignore)).frames == 4


async def test_a_model_that_cannot_be_loaded_is_this_nodes_trouble_and_not_the_requests() -> None:
    runner = ModelRunner(MODULE, ["refuse"], clock=ManualClock())
    with pytest.raises(NodeUnavailable, match="cannot be loaded"):
        await runner.generate(command(), None, ignore)
    assert not runner.busy


async def test_a_start_that_is_cancelled_while_the_model_loads_leaves_no_process() -> None:
    runner = make()
    before = set(psutil.Process().children())
    task = asyncio.get_running_loop().create_task(runner.start())
    async with asyncio.timeout(30):
        while not set(psutil.Process().children()) - before:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert set(psutil.Process().children()) == before


async def test_cancelling_another_request_changes_nothing(runner: ModelRunner) -> None:
    await runner.cancel("nobody")
    assert (await runner.generate(command(), None, ignore)).frames == 4


async def test_a_model_that_dies_fails_its_generation_and_is_started_for_the_next(runner: ModelRunner) -> None:
    pid = runner.pid
    with pytest.raises(GenerationFailed, match="SIGKILL"):
        await runner.generate(command("die"), None, ignore)
    assert not runner.ready
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    assert runner.ready
    assert runner.pid != pid


async def test_a_model_that_died_while_idle_is_loaded_again_by_itself(runner: ModelRunner) -> None:
    clock = runner._clock
    assert isinstance(clock, ManualClock)
    pid = runner.pid
    assert pid is not None
    keeping = asyncio.get_running_loop().create_task(runner.keep())
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while not runner.ready or runner.pid == pid:
            await clock.advance(LOOK_EVERY_S)
            await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.wait({keeping})
    assert (await runner.generate(command(), None, ignore)).frames == 4


async def test_a_model_that_says_nothing_is_given_up() -> None:
    runner = make(step_timeout_s=0.5)
    await runner.start()
    try:
        with pytest.raises(GenerationFailed, match="said nothing"):
            await runner.generate(command("silent"), None, ignore)
        assert not runner.ready
    finally:
        await runner.close()


@pytest.mark.parametrize(("prompt", "error"), [("refuse", InvalidRequest), ("bug", InternalError)])
async def test_what_the_model_raises_arrives_by_class_and_the_child_lives_on(
    runner: ModelRunner, prompt: str, error: type[Exception]
) -> None:
    pid = runner.pid
    with pytest.raises(error) as caught:
        await runner.generate(command(prompt), None, ignore)
    assert prompt == "bug" or getattr(caught.value, "param", None) == "steps"
    assert (await runner.generate(command(request_id="r2"), None, ignore)).frames == 4
    assert runner.pid == pid


@pytest.mark.parametrize(("argument", "error"), [("refuse", ModelDigestMismatch), ("die", GenerationFailed)])
async def test_a_model_that_cannot_be_opened_says_why(argument: str, error: type[Exception]) -> None:
    runner = ModelRunner(MODULE, [argument], clock=ManualClock())
    with pytest.raises(error):
        await runner.start()
    assert not runner.ready
    await runner.close()


async def test_closing_ends_the_child(runner: ModelRunner) -> None:
    assert runner.pid is not None
    child = psutil.Process(runner.pid)
    await runner.close()
    assert not child.is_running()
    assert not runner.ready
