"""`adaptivegen delete`: deletes videos at the nearest edge, one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adaptivegen.errors import AdaptiveGenError
from cli.generate import open_client
from cli.places import DEFAULT_DATA


def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of videos (vid_...).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output at the end.")] = False,
    edge: Annotated[list[str] | None, typer.Option(help="Address of an edge; several: the nearest is used.")] = None,
    data: Annotated[Path, typer.Option(help="Find the edges of `adaptivegen up --data DIR`.")] = DEFAULT_DATA,
    api_key: Annotated[str | None, typer.Option(envvar="ADAPTIVEGEN_API_KEY", help="Key of the edge.")] = None,
) -> None:
    """Delete videos with all that is stored of them; those that are not finished are cancelled first. The first that
    cannot be deleted ends it. Deleting one again is no error."""
    done: list[str] = []
    error: AdaptiveGenError | None = None
    with open_client(edge, data, api_key) as client:
        try:
            for video_id in ids:
                client.handle(video_id).delete()
                done.append(video_id)
                if not as_json:
                    typer.echo(f"{video_id} deleted")
        except AdaptiveGenError as exc:
            error = exc
    if as_json:
        typer.echo(json.dumps({"deleted": done, **({"error": error.body()} if error else {})}))
    if error is not None:
        raise error
