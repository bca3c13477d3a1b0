"""The supervisor with real processes: tiny services, and the real broker."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import psutil
import pytest

from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import AlreadyRunning, NodeUnavailable, SettingsInvalid
from cli.system.broker import configuration, find_binary
from cli.system.data_dir import locked
from cli.system.layout import ProcessPlan, RestartPolicy, SystemOptions
from cli.system.logs import MAX_LOG_BYTES
from cli.system.ports import check_free, free_ports
from cli.system.readiness import is_ready
from cli.system.supervisor import System, running_system, supervised
from tests.integration.tiny_system import tiny_plans

TINY_SYSTEM = Path(__file__).with_name("tiny_system.py")
FAST = RestartPolicy(first_s=0.01, longest_s=0.04)


@pytest.fixture
def lines() -> list[str]:
    """What was announced."""
    return []


@pytest.fixture
def tiny(tmp_path: Path, lines: list[str]) -> Callable[..., AbstractAsyncContextManager[System]]:
    """Run tiny services under a supervisor."""

    def run(
        *kinds: str, grace_s: float = 10.0, clock: SystemClock | None = None
    ) -> AbstractAsyncContextManager[System]:
        return supervised(
            tmp_path,
            tiny_plans(tmp_path, *kinds),
            clock=clock or SystemClock(),
            announce=lines.append,
            policy=FAST,
            grace_s=grace_s,
        )

    return run


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int | None) -> bool:
    """Whether no such process runs."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_each_process_is_announced_with_its_address_once_it_is_ready(
    tiny: Callable[..., AbstractAsyncContextManager[System]], lines: list[str], tmp_path: Path
) -> None:
    async with tiny("http", "grpc") as system:
        assert lines == [
            f"http-1       {system.plan('http-1').url}  pid {system.pid('http-1')}",
            f"grpc-2       {system.plan('grpc-2').address}  pid {system.pid('grpc-2')}",
        ]
        assert [await is_ready(plan) for plan in system.plans] == [True, True]
        assert system.edge_urls == [plan.url for plan in system.plans]
        listed = json.loads((tmp_path / "endpoints.json").read_text())["endpoints"]
        assert [entry["node_id"] for entry in listed] == ["http-1", "grpc-2"]
        assert (tmp_path / "logs" / "http-1.log").read_text().startswith("http-1 starts\n")


class Hurried(SystemClock):
    """Sleeps no longer than it must."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


async def test_a_log_that_grew_too_large_begins_anew_while_its_process_runs(
    tiny: Callable[..., AbstractAsyncContextManager[System]], tmp_path: Path
) -> None:
    log, older = tmp_path / "logs" / "http-1.log", tmp_path / "logs" / "http-1.log.1"
    async with tiny("http", clock=Hurried()) as system:
        os.truncate(log, MAX_LOG_BYTES + 1)
        await until(lambda: log.stat().st_size <= MAX_LOG_BYTES)
        assert older.stat().st_size == MAX_LOG_BYTES + 1
        system.kill("http-1")  # started again, it says so in the same file
        await until(lambda: log.read_text().startswith("http-1 starts\n"))
    assert older.stat().st_size == MAX_LOG_BYTES + 1


async def test_all_end_in_reverse_order_and_leave_nothing(
    tiny: Callable[..., AbstractAsyncContextManager[System]], tmp_path: Path
) -> None:
    async with tiny("http", "http", "http") as system:
        pids = [system.pid(plan.name) for plan in system.plans]
    assert (tmp_path / "ended").read_text().split() == ["http-3", "http-2", "http-1"]
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "endpoints.json").exists()


async def test_a_killed_process_is_started_again_at_its_address_and_both_is_said(
    tiny: Callable[..., AbstractAsyncContextManager[System]], lines: list[str]
) -> None:
    async with tiny("http", "http") as system:
        old, neighbour = system.pid("http-1"), system.pid("http-2")
        lines.clear()
        system.kill("http-1")
        await until(lambda: len(lines) == 2)
        assert lines[0] == "http-1       ended with status -9; starting again in 0.01 s"
        assert lines[1] == f"http-1       {system.plan('http-1').url}  pid {system.pid('http-1')} again"
        assert system.pid("http-1") != old
        assert system.restarts("http-1") == 1
        assert (system.pid("http-2"), system.restarts("http-2")) == (neighbour, 0)
        await system.wait_ready("http-1", timeout_s=10)


async def test_a_process_that_fails_again_while_starting_is_tried_with_growing_pauses(
    tiny: Callable[..., AbstractAsyncContextManager[System]], lines: list[str]
) -> None:
    async with tiny("flaky") as system:
        lines.clear()
        system.kill("flaky-1")
        await until(lambda: system.restarts("flaky-1") == 3)
        await system.wait_ready("flaky-1", timeout_s=30)
        await until(lambda: lines[-1].endswith("again"))
    pauses = [line.split(" in ")[1] for line in lines if "starting again" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]
    assert "status 3" in lines[1]


async def test_a_process_that_does_not_start_is_named_with_its_log_and_the_others_end(
    tiny: Callable[..., AbstractAsyncContextManager[System]], lines: list[str], tmp_path: Path
) -> None:
    with pytest.raises(NodeUnavailable, match=r"broken-2 ended with status 3; see .*broken-2\.log"):
        async with tiny("http", "broken", "http"):
            pytest.fail("it is not ready")
    assert (tmp_path / "ended").read_text().split() == ["http-1"]
    assert len(lines) == 1


async def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    plan = ProcessPlan("ghost", (str(tmp_path / "nothing"),), {}, "http", "127.0.0.1:1", stage=0)
    with pytest.raises(NodeUnavailable, match="ghost cannot be started"):
        async with supervised(tmp_path, [plan], clock=SystemClock(), announce=print):
            pytest.fail("it is not ready")


async def test_a_process_that_ignores_the_request_to_end_is_killed_after_the_grace(
    tiny: Callable[..., AbstractAsyncContextManager[System]], lines: list[str]
) -> None:
    async with tiny("http", "deaf", grace_s=0.2) as system:
        deaf = system.pid("deaf-2")
    assert gone(deaf)
    assert lines[-1] == "deaf-2       did not end within 0.2 s and was killed"


async def test_what_a_killed_process_had_started_does_not_stay(
    tiny: Callable[..., AbstractAsyncContextManager[System]], tmp_path: Path
) -> None:
    async with tiny("parent") as system:
        grandchild = int((tmp_path / "grandchild").read_text())
        assert not gone(grandchild)
        system.kill("parent-1")
        await until(lambda: gone(grandchild))


async def test_stopping_while_a_process_is_down_starts_it_no_more(
    tiny: Callable[..., AbstractAsyncContextManager[System]], tmp_path: Path
) -> None:
    async with tiny("http") as system:
        system.kill("http-1")
        await until(lambda: system.pid("http-1") is None)
    starts = (tmp_path / "logs" / "http-1.log").read_text().count("starts")
    await asyncio.sleep(0.1)
    assert (tmp_path / "logs" / "http-1.log").read_text().count("starts") == starts
    assert gone(system.pid("http-1")) or system.pid("http-1") is None


async def test_silence_is_not_readiness(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for probe in ("http", "grpc", "tcp"):
        plan = ProcessPlan("x", (), {}, probe, f"127.0.0.1:{port}", stage=0)
        assert not await is_ready(plan)


async def test_a_broker_with_jetstream_is_ready(nats_url: str) -> None:
    assert await is_ready(ProcessPlan("broker", (), {}, "tcp", nats_url.rpartition("@")[2], stage=0))


@pytest.mark.parametrize(
    "greeting",
    [b"", b"220 mail.example ready", b'HELLO {"jetstream": true}', b'INFO {"jetstream": false}', b"INFO []", b"INFO"],
)
async def test_a_stranger_on_the_brokers_port_is_not_a_broker(greeting: bytes) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting + b"\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert not await is_ready(ProcessPlan("broker", (), {}, "tcp", address, stage=0))


async def test_the_broker_runs_from_a_folder_with_an_odd_name_and_wants_its_password(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\ näme {x} $HOME'
    folder.mkdir()
    (port,) = free_ports(1)
    config = folder / "nats.conf"
    config.write_text(configuration(port=port, store_dir=folder, password="secret"))
    argv = (str(find_binary(None, "")), "-c", str(config))
    plan = ProcessPlan("broker", argv, {}, "tcp", f"127.0.0.1:{port}", stage=0)
    async with supervised(tmp_path, [plan], clock=SystemClock(), announce=print):
        bus = NatsBus([f"nats://adaptivegen:secret@127.0.0.1:{port}"], name="t")
        await bus.start()
        await (await bus.kv("b")).put("k", b"v")
        await bus.close()
        assert (folder / "jetstream").is_dir()
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"CONNECT {}\r\nPING\r\n")
            answer = b""
            while chunk := stranger.recv(4096):
                answer += chunk
        assert b"Authorization Violation" in answer


# ---- the supervisor as a process ----------------------------------------------------------------------------------


@contextmanager
def supervisor_process(folder: Path, *kinds: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A ready supervisor, and the ids of its children."""
    process = subprocess.Popen(
        [sys.executable, str(TINY_SYSTEM), str(folder), *kinds],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        said = []
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            said.append(line)
            assert line, f"it ended: {said}"
        yield process, [child.pid for child in psutil.Process(process.pid).children()]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_everything_with_status_zero(tmp_path: Path, number: signal.Signals) -> None:
    with supervisor_process(tmp_path, "http", "http") as (process, children):
        assert len(children) == 2
        process.send_signal(number)
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert all(gone(pid) for pid in children)
        assert (tmp_path / "ended").read_text().split() == ["http-2", "http-1"]
        assert not (tmp_path / "endpoints.json").exists()
        with locked(tmp_path):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
async def test_a_killed_supervisor_takes_its_children_along_and_leaves_no_lock(tmp_path: Path) -> None:
    with supervisor_process(tmp_path, "http", "deaf") as (process, children):
        process.kill()
        await until(lambda: all(gone(pid) for pid in children))
        process.wait()
        with locked(tmp_path):
            pass


async def test_a_second_supervisor_on_the_same_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        supervisor_process(tmp_path, "http") as (process, _),
        pytest.raises(AlreadyRunning, match=f"process {process.pid}"),
        locked(tmp_path),
    ):
        pytest.fail("it is held")


async def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"port {port} cannot be used"):
            check_free(port)
        options = SystemOptions(data_dir=tmp_path, python=sys.executable, environment={}, port=port)
        with pytest.raises(SettingsInvalid, match=f"port {port}"):
            async with running_system(options, clock=SystemClock(), announce=print):
                pytest.fail("it cannot run")
    check_free(port)
    assert not (tmp_path / "logs").exists()
