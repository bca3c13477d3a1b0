"""`adaptivegen demo`: the whole system for a minute, three prompts through the SDK and the first one again.

Decides what is run and shown. Everything is real: separate processes, the broker, the models, files that play.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptivegen.clock import Clock, SystemClock
from adaptivegen.errors import AdaptiveGenError, GenerationFailed
from cli import exits
from cli.places import system_options
from cli.signals import run_until_signal

if TYPE_CHECKING:
    from rich.table import Table

    from adaptivegen.sdk.aio import AsyncClient, AsyncHandle, AsyncResult
    from adaptivegen.sdk.models import Video
    from cli.progress import Display

PROMPTS: tuple[tuple[str, int], ...] = (
    ("a red circle moves left over a sunset sky", 7),
    ("a big yellow star bounces over the sea", 11),
    ("a blue square moves right in a forest", 23),
)
VIDEO_TIMEOUT_S = 180.0
SLUG_CHARS = 40
WIDTH_CHARS = 140  # of the table where there is no terminal to ask


@dataclass(slots=True)
class Row:
    """One line of the table; times in seconds after the request was sent."""

    prompt: str
    first_look_s: float | None = None
    draft_s: float | None = None
    final_s: float | None = None
    first_byte_s: float | None = None
    video: Video | None = None


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the clips and contact sheets.")] = Path("demo-output"),
    threads: Annotated[int | None, typer.Option(help="CPU threads per model; default: the cores, 4 at most.")] = None,
) -> None:
    """Start one scheduler, one worker, two edges, broker and cache; make three videos; show what took how long."""
    from rich.console import Console

    from adaptivegen.sdk.files import translated
    from cli.progress import Display

    with translated(out):
        out.mkdir(parents=True, exist_ok=True)  # a bad place is said now, not after the first video
    folder = Path(tempfile.mkdtemp(prefix="adaptivegen-demo-"))
    rows: list[Row] = []
    try:
        with Display() as display:
            done = run_until_signal(lambda: _run(folder, out, rows, threads=threads, display=display))
    except AdaptiveGenError:
        typer.echo(f"the demo failed; logs are in {folder / 'logs'}", err=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    if not done:
        typer.echo("stopped", err=True)
        raise typer.Exit(exits.INTERRUPTED)
    console = Console()
    Console(width=None if console.is_terminal else WIDTH_CHARS).print(_table(rows))
    typer.echo(_where(out, rows))


async def _run(folder: Path, out: Path, rows: list[Row], *, threads: int | None, display: Display) -> None:
    from adaptivegen.sdk.aio import AsyncClient
    from cli.system.supervisor import running_system

    clock = SystemClock()
    display.begin("starting the system")
    options = system_options(folder, edges=2, workers=1, threads=threads)
    async with running_system(options, clock=clock, announce=display.say) as system:
        first, second = system.edge_urls
        async with AsyncClient(first) as one, AsyncClient(second) as two:
            for number, (prompt, seed) in enumerate(PROMPTS, start=1):
                display.begin(f"video {number}")
                row = Row(prompt)
                rows.append(row)
                client = one if number % 2 else two
                result = await _generate(client, row, seed, clock=clock, display=display)
                await _write(out / f"{number}-{slug(prompt)}", result, row)
            display.begin("the first again")
            rows.append(Row(f"{PROMPTS[0][0]} (again)"))
            await _again(two, rows[-1], clock=clock, display=display)
        display.begin("stopping the system")


async def _generate(client: AsyncClient, row: Row, seed: int, *, clock: Clock, display: Display) -> AsyncResult:
    """One video, with the time of each thing seen."""
    started_s = clock.monotonic_s()
    handle = await client.submit(row.prompt, seed=seed)
    await watch(handle, row, started_s=started_s, clock=clock, display=display)
    result = await handle.result()
    row.video = result.video
    await first_byte(result, row, started_s=started_s, clock=clock)
    return result


async def watch(handle: AsyncHandle, row: Row, *, started_s: float, clock: Clock, display: Display) -> None:
    """Follow a video to its end, noting when each thing was first seen."""
    async with aclosing(handle.events(timeout_s=VIDEO_TIMEOUT_S)) as events:
        async for event in events:
            elapsed_s = clock.monotonic_s() - started_s
            display.show(event)
            if event.look_jpeg and row.first_look_s is None:
                row.first_look_s = elapsed_s
            if event.video.draft is not None and row.draft_s is None:
                row.draft_s = elapsed_s
            if event.video.final is not None and row.final_s is None:
                row.final_s = elapsed_s


async def _again(client: AsyncClient, row: Row, *, clock: Clock, display: Display) -> None:
    """The first prompt once more, at the other edge: known by its content, so served from the cache."""
    prompt, seed = PROMPTS[0]
    started_s = clock.monotonic_s()
    handle = await client.submit(prompt, seed=seed)
    result = await handle.result(timeout_s=VIDEO_TIMEOUT_S)
    row.video = result.video
    await first_byte(result, row, started_s=started_s, clock=clock)
    display.say("the repeat was served from the cache" if result.video.cached else "the repeat was made anew")


async def first_byte(result: AsyncResult, row: Row, *, started_s: float, clock: Clock) -> None:
    """Read the clip, noting when its first byte came."""
    async with aclosing(result.chunks()) as chunks:
        async for _ in chunks:
            if row.first_byte_s is None:
                row.first_byte_s = clock.monotonic_s() - started_s


async def _write(folder: Path, result: AsyncResult, row: Row) -> None:
    """draft.mp4, final.mp4, contact-sheet.png and video.json of one prompt."""
    video = result.video
    if video.draft is None or video.final is None:
        raise GenerationFailed(
            f"video {video.id} has no {'draft' if video.draft is None else 'final'} (plan {video.plan})"
        )
    draft, final = await result.content(variant="draft"), await result.content(variant="video")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-files") as pool:
        await asyncio.get_running_loop().run_in_executor(pool, _write_files, folder, draft, final, row)


def _write_files(folder: Path, draft: bytes, final: bytes, row: Row) -> None:
    """Blocking: decoding and drawing."""
    from adaptivegen.media.contact_sheet import contact_sheet
    from adaptivegen.media.mp4 import decode_video
    from adaptivegen.sdk.files import translated, write_atomically

    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "draft.mp4", draft)
    write_atomically(folder / "final.mp4", final)
    (draft_frames, _), (final_frames, fps) = decode_video(draft), decode_video(final)
    sheet = contact_sheet(
        draft_frames, final_frames, duration_s=len(final_frames) / fps, title=f"{row.prompt}: draft above final"
    )
    write_atomically(folder / "contact-sheet.png", sheet)
    if row.video is not None:
        write_atomically(folder / "video.json", json.dumps(row.video.model_dump(mode="json"), indent=2).encode())


def slug(prompt: str) -> str:
    """A prompt as part of a folder's name: a-z, 0-9 and -, whole words up to 40 characters."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    while len("-".join(words)) > SLUG_CHARS:
        words.pop()
    return "-".join(words) or "video"


def _table(rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title="What took how long, from the request on", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("prompt", overflow="fold", min_width=18)
    for heading in (
        "plan",
        "edge",
        "first draft frame",
        "draft",
        "final",
        "steps run where",
        "cache hit",
        "first byte",
    ):
        table.add_column(heading, no_wrap=heading not in ("first draft frame", "steps run where"))
    for row in rows:
        video = row.video
        table.add_row(
            row.prompt,
            video.plan if video else "-",
            video.edge_id if video else "-",
            _time(row.first_look_s),
            _time(row.draft_s),
            _time(row.final_s),
            steps_text(video),
            "-" if video is None else "yes" if video.cached else "no",
            _time(row.first_byte_s),
        )
    return table


def steps_text(video: Video | None) -> str:
    """Where the steps of a video ran; a cached one ran none."""
    if video is None or video.cached:
        return "none"
    return f"edge {video.draft_steps} / cloud {video.final_steps}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _where(out: Path, rows: list[Row]) -> str:
    folders = [str(out / f"{number}-{slug(prompt)}") for number, (prompt, _) in enumerate(PROMPTS, start=1)]
    return "\n".join(
        [
            f"\nWritten (draft.mp4, final.mp4, contact-sheet.png: draft above final) for {len(folders)} prompts:",
            *(f"  {folder}" for folder in folders),
            "\nTry next:",
            "  adaptivegen up                     the same system, kept running; then, in another terminal:",
            '  adaptivegen generate "a small green ring orbits over a city" -o clip.mp4 --draft-out draft.mp4',
            "  adaptivegen admin nodes --data ~/.adaptivegen",
        ]
    )
