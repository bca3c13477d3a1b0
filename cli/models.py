"""`adaptivegen models`: versions of models for the nodes of a system."""

from __future__ import annotations

import asyncio
import getpass
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptivegen.errors import InvalidRequest
from cli.admin_ask import failing
from cli.admin_tables import print_json
from cli.places import DEFAULT_DATA, data_dir

if TYPE_CHECKING:
    from adaptivegen.models.card import ModelCard

NOTED_BY = "push"  # in the audit log, in place of a scheduler

app = typer.Typer(help="Versions of models for the nodes of a system.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Versions of models for the nodes of a system."""


@app.command("push")
def push_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The version, as its folder and its card call it.")],
    models_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of models that has it, beside those that came along.")
    ] = None,
    store: Annotated[str, typer.Option(metavar="URL", help="The system's object store (file://, s3://, ...).")] = "",
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="That of `adaptivegen up --data DIR`.")] = None,
) -> None:
    """Put a version's card and weights into the object store, from where nodes fetch them when they are to have it.

    Noted in the audit log, in the same store, by the name of the user of this machine.
    """
    with failing():
        if store and data is not None:
            raise InvalidRequest.field("--store", store, "absent with --data")
        folder = data_dir(data or DEFAULT_DATA) / "store"
        with redirect_stdout(sys.stderr):  # what is logged: only the answer goes to stdout
            card = asyncio.run(_push(name, models_dir, store or f"file://{folder}"))
        print_json({"model": card.name, "digest": card.digest, "bytes": sum(f.bytes for f in card.files.values())})


async def _push(name: str, models_dir: Path | None, store_url: str) -> ModelCard:
    from adaptivegen.blob.store import open_store
    from adaptivegen.clock import SystemClock
    from adaptivegen.models.pushed import push
    from adaptivegen.models.registry import ModelLibrary
    from scheduler.audit import Audit
    from scheduler.steady import SteadyTime

    blob = open_store(store_url)
    try:
        return await Audit(blob, node_id=NOTED_BY, time=SteadyTime(SystemClock())).carry_out(
            "models-push",
            name,
            lambda: push(blob, ModelLibrary(models_dir), name),
            by=_user(),
            details={},
            told=lambda card: f"done: {card.digest}",
        )
    finally:
        await blob.close()


def _user() -> str:
    """Who pushes, as this machine calls them: no scheduler has seen a certificate of theirs."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError, ImportError):  # where the user has no name; which of them is raised differs by Python
        return "a user without a name"
