"""How the progress of a video is shown while it is made: one bar on standard error, and lines above it.

Without a terminal there is no bar, only the lines.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from adaptivegen.sdk.models import VideoEvent


class Display:
    """A bar for one video at a time; `quiet` shows nothing at all.

    `hold` keeps interrupts away while a line is written: rich forgets what it has written only after it has, so an
    interrupt in between has it written twice.
    """

    def __init__(self, *, quiet: bool = False, hold: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._hold = hold
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task("asking", total=100, eta="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._hold():
            self._console.print(line, markup=False)

    def begin(self, what: str) -> None:
        """Start the bar anew."""
        self._progress.reset(self._task, description=what, total=100, eta="")

    def show(self, event: VideoEvent) -> None:
        """Move the bar to an event."""
        stage, percent = stage_of(event)
        with self._hold():
            self._progress.update(self._task, description=stage, completed=percent, eta=eta_text(event.video.eta_s))


def stage_of(event: VideoEvent) -> tuple[str, float]:
    """What is being done, and how much of it, 0 to 100."""
    video = event.video
    if event.final:
        return video.status, 100.0
    if video.status == "in_progress":
        return "final", float(video.progress)
    if event.type.startswith("draft.") and video.draft is None:
        return "draft", 100.0 * event.step / event.steps if event.steps else 0.0
    return "waiting", 0.0


def eta_text(eta_s: float | None) -> str:
    """An ETA for people: rough, since it is a prediction."""
    if not eta_s or eta_s <= 0:
        return ""
    return f"about {max(1, round(eta_s))} s left" if eta_s < 90 else f"about {round(eta_s / 60)} min left"
