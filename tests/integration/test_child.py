"""A real child process under both loops: big messages, death, cancel, stray prints, and the parent's own death."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import numpy as np
import psutil
import pytest
import uvloop

from adaptivegen.child.parent import ChildProcess
from adaptivegen.errors import GenerationFailed, InternalError, NodeUnavailable

MODULE = "tests.integration.echo_child"


def on_both_loops(test: Callable[[ChildProcess], Awaitable[None]]) -> Callable[..., None]:
    """Run `test` with a fresh child under stock asyncio and under uvloop."""

    @pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def run(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        async def whole() -> None:
            child = ChildProcess(MODULE, [])
            await child.start()
            try:
                await test(child)
            finally:
                await child.kill()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run


@on_both_loops
async def test_big_arrays_come_back_unchanged(child: ChildProcess) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (24, 256, 256, 3), dtype=np.uint8)
    for turn in range(3):
        await child.send({"type": "echo", "text": f"é{turn}"}, {"frames": frames.data, "empty": b""})
        header, parts = await child.receive()
        assert header["text"] == f"é{turn}"
        assert parts["empty"] == b""
        assert np.array_equal(np.frombuffer(parts["frames"], np.uint8).reshape(frames.shape), frames)


@on_both_loops
async def test_messages_of_concurrent_senders_do_not_mix(child: ChildProcess) -> None:
    async def send(number: int) -> None:
        await child.send({"type": "echo", "text": str(number)}, {"data": bytes([number]) * 300_000})

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(send(number))
        answers = [await child.receive() for _ in range(8)]
    assert sorted(header["text"] for header, _ in answers) == [str(number) for number in range(8)]
    assert all(parts["data"] == bytes([int(header["text"])]) * 300_000 for header, parts in answers)


@on_both_loops
async def test_a_childs_print_does_not_break_the_framing(child: ChildProcess) -> None:
    await child.send({"type": "print"})
    assert (await child.receive())[0] == {"type": "printed", "input": ""}


@on_both_loops
async def test_a_cancel_is_noticed_between_steps(child: ChildProcess) -> None:
    await child.send({"type": "work", "request_id": "r1"})
    assert (await child.receive())[0]["type"] == "working"
    await child.send({"type": "cancel", "request_id": "other"})
    await child.send({"type": "cancel", "request_id": "r1"})
    assert (await child.receive())[0] == {"type": "stopped", "request_id": "r1"}


@on_both_loops
async def test_a_receive_cancelled_in_the_middle_of_a_message_loses_nothing(child: ChildProcess) -> None:
    data = np.random.default_rng(2).integers(0, 256, 48_000_000, dtype=np.uint8)
    cancelled = 0
    for turn in range(2):
        await child.send({"type": "echo", "text": str(turn)}, {"a": data.data, "b": b"last"})
        while True:
            try:
                async with asyncio.timeout(0.002):
                    header, parts = await child.receive()
                break
            except TimeoutError:
                cancelled += 1
        assert header["text"] == str(turn)
        assert parts["b"] == b"last"
        assert parts["a"] == data.tobytes()
    assert cancelled > 2


@on_both_loops
async def test_kill_9_in_the_middle_of_an_answer_is_generation_failed(child: ChildProcess) -> None:
    await child.send({"type": "flood"})
    await child.receive()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(GenerationFailed, match="SIGKILL"):
        while True:
            await child.receive()
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(GenerationFailed):
        await child.send({"type": "echo"})


@on_both_loops
async def test_what_a_child_said_before_it_died_is_heard_first_and_its_death_ever_after(child: ChildProcess) -> None:
    await child.send({"type": "last words"})
    assert [(await child.receive())[0]["number"] for _ in range(5)] == list(range(5))
    for _ in range(3):
        with pytest.raises(GenerationFailed, match="status 9"):
            await child.receive()


@on_both_loops
async def test_a_child_that_is_being_stopped_can_still_be_asked(child: ChildProcess) -> None:
    await child.send({"type": "linger"})
    await child.receive()
    async with asyncio.TaskGroup() as group:
        group.create_task(child.stop(grace_s=0.2))
        await asyncio.sleep(0.05)  # it is being stopped, and nobody was receiving
        with pytest.raises(GenerationFailed, match="SIGKILL"):
            await child.receive()


@on_both_loops
async def test_many_may_wait_for_a_death_and_all_are_told(child: ChildProcess) -> None:
    async def wait() -> None:
        with pytest.raises(GenerationFailed, match="SIGKILL"):
            await child.receive()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(wait())
        await asyncio.sleep(0)
        await child.kill()


@on_both_loops
async def test_a_kill_that_is_cancelled_twice_still_ends_the_child_and_all_that_belongs_to_it(
    child: ChildProcess,
) -> None:
    await child.send({"type": "flood"})
    await child.receive()
    for _ in range(2):
        killing = asyncio.get_running_loop().create_task(child.kill())
        await asyncio.sleep(0)
        killing.cancel()
        await asyncio.wait({killing})
    async with asyncio.timeout(20):
        while child.returncode is None or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
    assert child.returncode == -signal.SIGKILL


@on_both_loops
async def test_half_a_message_and_an_exit_status_are_told(child: ChildProcess) -> None:
    await child.send({"type": "half"})
    with pytest.raises(GenerationFailed, match="status 7"):
        await child.receive()


@on_both_loops
async def test_garbage_ends_the_child(child: ChildProcess) -> None:
    await child.send({"type": "garbage"})
    with pytest.raises(InternalError, match="header of"):
        await child.receive()
    assert child.returncode is not None


@on_both_loops
async def test_a_child_nobody_reads_can_be_killed(child: ChildProcess) -> None:
    await child.send({"type": "flood"})
    await child.receive()
    await child.kill()
    assert child.returncode == -signal.SIGKILL


@on_both_loops
async def test_a_child_that_does_not_stop_is_killed(child: ChildProcess) -> None:
    await child.send({"type": "flood"})
    await child.receive()
    await child.stop(grace_s=0.2)
    assert child.returncode is not None


@on_both_loops
async def test_an_interrupt_from_the_terminal_is_left_to_the_parent(child: ChildProcess) -> None:
    await child.send({"type": "echo"})
    await child.receive()  # it is up
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    await child.send({"type": "echo", "text": "still here"})
    assert (await child.receive())[0]["text"] == "still here"


@on_both_loops
async def test_stop_lets_it_end_by_itself(child: ChildProcess) -> None:
    await child.stop(grace_s=30.0)
    assert child.returncode == 0


async def test_a_machine_without_a_file_descriptor_to_spare_is_told_as_such() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = ChildProcess(MODULE, [])
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    try:
        with pytest.raises(NodeUnavailable, match="cannot be started"):
            await process.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await process.start()
    await process.kill()


async def test_a_module_that_does_not_exist_is_generation_failed() -> None:
    process = ChildProcess("tests.integration.no_such_module", [])
    await process.start()
    with pytest.raises(GenerationFailed, match="status 1"):
        await process.receive()


PARENT = """
import asyncio
from adaptivegen.child.parent import ChildProcess
async def main():
    child = ChildProcess("tests.integration.echo_child", [])
    await child.start()
    await child.send({"type": "work", "request_id": "r"})
    await child.receive()
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_child_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
