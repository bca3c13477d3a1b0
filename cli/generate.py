"""`adaptivegen generate`: one video from the nearest edge, draft first. Decides what is shown and written when."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from adaptivegen.clock import Clock, SystemClock
from adaptivegen.errors import AdaptiveGenError, Cancelled, DeadlineExceeded, InvalidRequest
from cli import exits
from cli.places import DEFAULT_DATA, ENDPOINTS_FILE, data_dir
from cli.signals import remembered_interrupts

if TYPE_CHECKING:
    from adaptivegen.sdk.client import Client, Handle
    from adaptivegen.sdk.models import Video, VideoEvent
    from cli.progress import Display


@dataclass(slots=True)
class Timeline:
    """What was seen when, in seconds after the command's request was sent."""

    first_look_s: float | None = None
    draft_s: float | None = None
    final_s: float | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Where clips go; without `draft` the draft is not kept."""

    output: Path
    draft: Path | None

    def check(self) -> None:
        """Raise InvalidRequest for a place that cannot be written, before any work is asked for."""
        for option, path in (("--output", self.output), ("--draft-out", self.draft)):
            if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise InvalidRequest.field(option, str(path), "a file in a folder that exists")
        if self.draft is not None and self.draft.absolute() == self.output.absolute():
            raise InvalidRequest.field("--draft-out", str(self.draft), "another file than --output")


def generate(
    prompt: Annotated[str, typer.Argument(help="What to show, at most 4096 bytes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the clip is written (MP4).")],
    image: Annotated[Path | None, typer.Option(help="Image the clip starts from.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video the clip starts from.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and prompt give the same clip.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the clip.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    intent: Annotated[str, typer.Option(help="render: draft and final; iterate: the draft may be all.")] = "render",
    draft_out: Annotated[Path | None, typer.Option(help="Also write the draft, as soon as it is there.")] = None,
    plan: Annotated[str | None, typer.Option(help="draft, refine or cloud; default: the scheduler decides.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the final.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far to depart from --image or --video, 0 to 1.")] = None,
    task: Annotated[str | None, typer.Option(help="What --video is for: restyle, extend or interpolate.")] = None,
    session: Annotated[str | None, typer.Option(help="Drafts of one session come from one edge, where it can.")] = None,
    service_tier: Annotated[str | None, typer.Option(help="priority, default or flex.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds within which the final is needed.")] = None,
    allow_reduced: Annotated[bool, typer.Option(help="Rather fewer steps than late, none, or others waiting.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output at the end.")] = False,
    edge: Annotated[list[str] | None, typer.Option(help="Address of an edge; several: the nearest is used.")] = None,
    data: Annotated[Path, typer.Option(help="Find the edges of `adaptivegen up --data DIR`.")] = DEFAULT_DATA,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole; then the job is cancelled.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="ADAPTIVEGEN_API_KEY", help="Key of the edge.")] = None,
) -> None:
    """Make one video: the draft within a second or so, then the final. Ctrl-C cancels the job.

    Edges are found in ~/.adaptivegen/endpoints.json, where `adaptivegen up` lists them, unless --edge or --data says
    otherwise.
    """
    files = Files(output, draft_out)
    files.check()
    if timeout is not None and not timeout > 0:
        raise InvalidRequest.field("--timeout", timeout, "over 0 seconds")
    request: dict[str, Any] = {"prompt": prompt, "image": image, "video": video, "seed": seed, "seconds": seconds}
    request |= {"size": size, "intent": _intent(intent), "plan": plan, "steps": steps, "strength": strength}
    request |= {"task": task, "session": session, "service_tier": service_tier}
    request |= {"deadline_s": deadline, "allow_reduced": allow_reduced}
    run = Run(files, timeout_s=timeout, as_json=as_json, clock=SystemClock())
    try:
        with open_client(edge, data, api_key) as client:
            run.run(client, request)
    except AdaptiveGenError as exc:
        if as_json:
            typer.echo(json.dumps({"id": run.video_id, "error": exc.body()}))
        raise


def _intent(value: str) -> Literal["iterate", "render"]:
    if value == "render":
        return "render"
    if value == "iterate":
        return "iterate"
    raise InvalidRequest.field("--intent", value, "iterate, render")


def open_client(edges: list[str] | None, data: Path, api_key: str | None) -> Client:
    """A client of the edges that are named, else of those of a system on this machine."""
    from adaptivegen.sdk.client import Client

    if edges:
        return Client(edges, api_key=api_key)
    return Client(endpoints_file=data_dir(data) / ENDPOINTS_FILE, api_key=api_key)


class Run:
    """One run of the command, from the request to the written files."""

    def __init__(self, files: Files, *, timeout_s: float | None, as_json: bool, clock: Clock) -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._as_json = as_json
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._times = Timeline()
        self.video_id: str | None = None

    def run(self, client: Client, request: dict[str, Any]) -> None:
        """Submit, follow, write, report; cancels the job on Ctrl-C and when the time is over."""
        from cli.progress import Display

        quiet = self._as_json and not sys.stderr.isatty()
        with remembered_interrupts() as interrupts, Display(quiet=quiet, hold=interrupts.held) as display:
            display.say(f"edge   {client.edge()}")
            self._started_s = self._clock.monotonic_s()  # the probe of the edges is not part of the wait
            handle = client.submit(**request)
            self.video_id = handle.id
            try:
                display.say(f"video  {handle.id}")
                self._follow(handle, display)
                result = handle.result(timeout_s=self._left_s())
                result.save(self._files.output)
            except KeyboardInterrupt:
                interrupts.forget()
                _cancel(handle, display, why="Ctrl-C")
                raise typer.Exit(exits.INTERRUPTED) from None
            except DeadlineExceeded:
                _cancel(handle, display, why="out of time")
                raise
            if self._files.draft is not None and result.video.draft is None:
                display.say(f"draft  none was made (plan {result.video.plan}), so {self._files.draft} is not written")
        self._report(result.video)

    def _left_s(self) -> float | None:
        if self._timeout_s is None:
            return None
        return max(0.0, self._started_s + self._timeout_s - self._clock.monotonic_s())

    def _elapsed_s(self) -> float:
        return self._clock.monotonic_s() - self._started_s

    def _follow(self, handle: Handle, display: Display) -> None:
        for event in handle.events(timeout_s=self._left_s()):
            self._observe(event, handle, display)

    def _observe(self, event: VideoEvent, handle: Handle, display: Display) -> None:
        times, video = self._times, event.video
        if event.look_jpeg and times.first_look_s is None:
            times.first_look_s = self._elapsed_s()
            display.say(f"look   first after {times.first_look_s:.2f} s")
        if video.draft is not None and times.draft_s is None:
            times.draft_s = self._elapsed_s()
            display.say(f"draft  complete after {times.draft_s:.2f} s")
            if self._files.draft is not None:
                handle.save_draft(self._files.draft, timeout_s=self._left_s())
                display.say(f"draft  written to {self._files.draft}")
        if video.final is not None and times.final_s is None:
            times.final_s = self._elapsed_s()
            display.say(f"final  complete after {times.final_s:.2f} s")
        display.show(event)

    def _report(self, video: Video) -> None:
        if self._as_json:
            typer.echo(json.dumps(self._summary(video)))
            return
        if video.final is None:
            typer.echo(f"wrote {self._files.output}: the draft, since no final was asked for (intent {video.intent})")
            return
        where = "from the cache" if video.cached else f"{video.plan}: {_steps(video)}"
        typer.echo(f"wrote {self._files.output}: {video.size}, {video.seconds} s, seed {video.seed}; {where}")
        for note in video.notes:
            typer.echo(f"note: {note}")

    def _summary(self, video: Video) -> dict[str, object]:
        clip, times = video.clip, self._times
        draft_out = self._files.draft if video.draft is not None else None
        return {
            "id": video.id,
            "status": video.status,
            "output": str(self._files.output),
            "draft_output": str(draft_out) if draft_out is not None else None,
            "is_draft": video.final is None,
            "plan": video.plan,
            "intent": video.intent,
            "edge_id": video.edge_id,
            "worker_id": video.worker_id,
            "cached": video.cached,
            "seed": video.seed,
            "size": video.size,
            "seconds": video.seconds,
            "draft_steps": video.draft_steps,
            "final_steps": video.final_steps,
            "first_look_s": _rounded(times.first_look_s),
            "draft_s": _rounded(times.draft_s),
            "final_s": _rounded(times.final_s),
            "whole_s": _rounded(self._elapsed_s()),
            "sha256": clip.sha256 if clip else None,
            "size_bytes": clip.size_bytes if clip else None,
            "notes": list(video.notes),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _steps(video: Video) -> str:
    """Where the steps ran."""
    worker = video.worker_id or "cloud"
    parts = [f"{video.draft_steps} on {video.edge_id}"] if video.draft_steps else []
    parts += [f"{video.final_steps} on {worker}"] if video.final_steps else []
    return "steps: " + (", ".join(parts) or "none")


def _cancel(handle: Handle, display: Display, *, why: str) -> None:
    """Cancel the job and say what became of it; a second Ctrl-C leaves at once."""
    with suppress(KeyboardInterrupt):
        try:
            handle.cancel()
            display.say(f"{why}: cancelled {handle.id}")
        except Cancelled:
            display.say(f"{why}: cancelled {handle.id}")
        except AdaptiveGenError as exc:
            display.say(f"{why}: {handle.id} could not be cancelled: {exc.message}")
