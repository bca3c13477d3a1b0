"""How a process ends: after its drain, by its watchdog when the drain never ends, at once on a second signal."""

import signal
import subprocess
import sys

import psutil
import pytest

from adaptivegen.drain import watchdog_s

GRACE_S = 0.2


def start(how: str) -> subprocess.Popen[str]:
    """The process, once it is ready; one that refuses to start ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.draining_process", how, str(GRACE_S)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_drained_process_ends_with_0() -> None:
    process = start("drains")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("how", ["never", "hung"])
def test_a_drain_that_never_ends_is_ended_by_the_watchdog_when_grace_and_margin_are_over(how: str) -> None:
    process = start(how)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, f"error: the drain has not ended within {watchdog_s(GRACE_S):g} s\n")


def test_a_second_signal_ends_it_at_once() -> None:
    process = start("never")
    process.send_signal(signal.SIGTERM)
    watched = psutil.Process(process.pid)
    while watched.num_threads() < 2:  # the watchdog's: the first signal has arrived
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "")


@pytest.mark.parametrize(("how", "status", "line"), [("refused", 2, "port is 0"), ("buried", 1, "away")])
def test_our_errors_are_one_line_however_deep_they_were(how: str, status: int, line: str) -> None:
    process = start(how)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (status, f"error: {line}\n")
