"""`adaptivegen videos`: lists the caller's videos at the nearest edge, a page at a time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.generate import open_client
from cli.places import DEFAULT_DATA

if TYPE_CHECKING:  # help loads no client
    from adaptivegen.sdk.models import Video, VideoPage

PARTIAL = "partial: the edge is cut off, and lists only the videos that it keeps itself; the others are not gone"
PROMPT_CHARS = 60


def videos(
    limit: Annotated[int, typer.Option(help="How many at most, 1 to 100.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Those that follow this one.")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    edge: Annotated[list[str] | None, typer.Option(help="Address of an edge; several: the nearest is used.")] = None,
    data: Annotated[Path, typer.Option(help="Find the edges of `adaptivegen up --data DIR`.")] = DEFAULT_DATA,
    api_key: Annotated[str | None, typer.Option(envvar="ADAPTIVEGEN_API_KEY", help="Key of the edge.")] = None,
) -> None:
    """List videos, the newest first. Where the edge is cut off, and these are not all, it says so."""
    order: Literal["asc", "desc"] = "asc" if oldest else "desc"
    with open_client(edge, data, api_key) as client:
        page = client.videos(after=after, limit=limit, order=order)
    if as_json:
        typer.echo(json.dumps(as_object(page)))
        return
    for video in page.videos:
        typer.echo(line(video))
    if page.partial:
        typer.echo(PARTIAL, err=True)
    if page.has_more:
        typer.echo(f"more: --after {page.videos[-1].id}" if page.videos else "there are more", err=True)


def as_object(page: VideoPage) -> dict[str, Any]:
    """What `--json` says."""
    shown = {field.name: getattr(page, field.name) for field in dataclasses.fields(page)}
    return {**shown, "videos": [video.model_dump(mode="json") for video in page.videos]}


def line(video: Video) -> str:
    """One video as a line."""
    prompt = " ".join((video.prompt or "").split())
    if len(prompt) > PROMPT_CHARS:
        prompt = prompt[: PROMPT_CHARS - 3] + "..."
    return f"{video.id}  {video.status:<11}  {video.plan or '-':<7}  {prompt}"
