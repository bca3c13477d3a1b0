"""`adaptivegen rate`: says how good a video was, and what was seen of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.generate import open_client
from cli.places import DEFAULT_DATA


def rate(
    video_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a video (vid_...).")],
    stars: Annotated[int, typer.Option(help="1 (bad) to 5 (excellent).")],
    draft_wait_s: Annotated[float | None, typer.Option(help="Seconds from the request until the draft.")] = None,
    final_wait_s: Annotated[float | None, typer.Option(help="Seconds from the request until the final.")] = None,
    stalls: Annotated[int, typer.Option(help="How often playback stopped to wait.")] = 0,
    stalled_s: Annotated[float, typer.Option(help="For so many seconds in all.")] = 0.0,
    edge: Annotated[list[str] | None, typer.Option(help="Address of an edge; several: the nearest is used.")] = None,
    data: Annotated[Path, typer.Option(help="Find the edges of `adaptivegen up --data DIR`.")] = DEFAULT_DATA,
    api_key: Annotated[str | None, typer.Option(envvar="ADAPTIVEGEN_API_KEY", help="Key of the edge.")] = None,
) -> None:
    """Rate a video; of several ratings of one the last counts.

    `adaptivegen admin qoe fit` uses those that tell how long was waited for all that was made (`generate --json` prints
    it as draft_s and final_s), and of which playback never stalled.
    """
    with open_client(edge, data, api_key) as client:
        client.handle(video_id).rate(
            stars, stalls=stalls, stalled_s=stalled_s, draft_wait_s=draft_wait_s, final_wait_s=final_wait_s
        )
    typer.echo(f"{video_id} rated {stars} of 5")
    if draft_wait_s is None and final_wait_s is None:
        typer.echo("note: without --draft-wait-s and --final-wait-s `admin qoe fit` leaves it out", err=True)
