"""Ctrl-C at the moments that hurt: while a line is written, in a finaliser, and right after the job was made."""

import io
import signal
import sys
from pathlib import Path

import httpx
import pytest
import typer

from cli import exits
from cli.generate import Files
from cli.signals import remembered_interrupts
from tests.unit.cli.test_generate import DRAFTED, run
from tests.unit.sdk.scripted import VIDEO_ID, ScriptedEdge, answers, event, streams, video


class PressedAt(io.StringIO):
    """A standard error whose reader presses Ctrl-C as soon as it has this line, that is, before `flush` returns."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line
        self.presses = 0

    def flush(self) -> None:
        if self.getvalue().splitlines()[-1].startswith(self._line):
            self.presses += 1
            signal.raise_signal(signal.SIGINT)


class DropsInterrupts:
    """Python reports and drops what a finaliser raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def drop_one(request: httpx.Request) -> httpx.Response:
    DropsInterrupts()
    return httpx.Response(200, stream=httpx.ByteStream(event("1", "draft.completed", DRAFTED)))


@pytest.mark.parametrize("line", ["video", "draft"])
def test_a_line_whose_writing_is_interrupted_is_said_once_and_the_job_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    edge = ScriptedEdge(
        answers(video(), 202),
        *([streams(event("1", "draft.completed", DRAFTED))] if line == "draft" else []),
        answers(video(status="cancelled")),
    )
    screen = PressedAt(line)
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(typer.Exit) as ended:
        run(edge, Files(tmp_path / "clip.mp4", None))
    assert ended.value.exit_code == exits.INTERRUPTED
    said = screen.getvalue().splitlines()
    assert [text for text in said if text.startswith(line)] == [said[-2]]
    assert said[-1] == f"Ctrl-C: cancelled {VIDEO_ID}"
    assert screen.presses == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_dropped_cancels_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = ScriptedEdge(answers(video(), 202), drop_one, answers(video(status="cancelled")))
    with pytest.raises(typer.Exit) as ended:
        run(edge, Files(tmp_path / "clip.mp4", None))
    assert ended.value.exit_code == exits.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == f"Ctrl-C: cancelled {VIDEO_ID}"


def test_an_interrupt_is_raised_at_once_outside_and_at_the_end_of_what_is_held() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remembered_interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.forget()
        reached = False
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            reached = True
        assert reached
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            pass
        interrupts.forget()
        with interrupts.held():
            pass
    assert signal.getsignal(signal.SIGINT) is before
