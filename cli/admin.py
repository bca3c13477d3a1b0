"""`adaptivegen admin`: what an operator asks a scheduler and how the answers are shown.

Exit codes as in cli.exits: 0 done, 2 bad input, 3 the scheduler or its broker cannot be reached, 7 no such node or job.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from adaptivegen.settings import load
from cli.admin_tables import (
    accuracies_table,
    dead_letters_table,
    jobs_table,
    nodes_table,
    open_console,
    paces_table,
    pools_table,
    print_explanation,
    print_json,
)
from cli.exits import exit_code
from cli.places import DEFAULT_DATA, ENDPOINTS_FILE, data_dir

if TYPE_CHECKING:
    from adaptivegen.rpc.admin import AdminClient
    from adaptivegen.rpc.channel import ClientTls

Answer = TypeVar("Answer")

app = typer.Typer(help="Ask and steer a scheduler.", no_args_is_help=True)


class AdminSettings(BaseSettings):
    """Where the scheduler is and how to show who asks, from `ADAPTIVEGEN_CLI_*`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_CLI_")

    scheduler: str = Field("", description="host:port of a scheduler.")
    tls_ca: Path | None = Field(None, description="CA of the schedulers' certificates (PEM).")
    tls_cert: Path | None = Field(None, description="Own certificate (PEM).")
    tls_key: Path | None = Field(None, description="Own private key (PEM).")

    def tls(self) -> ClientTls | None:
        """The files for a TLS channel; None without a CA."""
        from adaptivegen.rpc.channel import ClientTls

        return ClientTls(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key) if self.tls_ca else None


SchedulerOption = Annotated[str, typer.Option("--scheduler", metavar="HOST:PORT", help="The scheduler to ask.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Find the scheduler of `adaptivegen up --data DIR`.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("nodes")
def show_nodes(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """All nodes the scheduler knows, with their state and load."""
    found = _ask(scheduler, data, lambda client: client.nodes())
    if as_json:
        print_json({"nodes": [asdict(node) for node in found]})
    else:
        open_console().print(nodes_table(found))


@app.command("jobs")
def show_jobs(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    status: Annotated[str, typer.Option(help="queued, in_progress, completed, failed or cancelled.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Jobs, newest first."""
    from adaptivegen.rpc.admin import JobFilter

    wanted = JobFilter(tenant=tenant, status=status, limit=limit)
    found = _ask(scheduler, data, lambda client: client.jobs(wanted))
    if as_json:
        print_json({"jobs": [asdict(job) for job in found]})
    else:
        open_console().print(jobs_table(found))


@app.command("dead-letters")
def show_dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that were given up, with the reason, newest first."""
    found = _ask(scheduler, data, lambda client: client.dead_letters(limit))
    if as_json:
        print_json({"dead_letters": [asdict(letter) for letter in found]})
    else:
        open_console().print(dead_letters_table(found))


@app.command("predictions")
def show_predictions(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """How fast nodes are against their model's card, and how good predicted times were."""
    found = _ask(scheduler, data, lambda client: client.predictions())
    if as_json:
        print_json(asdict(found))
    else:
        open_console().print(paces_table(found.paces))
        open_console().print(accuracies_table(found.accuracies))


@app.command("explain")
def explain_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a video (vid_...).")],
    tenant: Annotated[str, typer.Option(help="Its tenant; searched for when not given.")] = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a job was placed as it was, and what became of it."""
    found = _ask(scheduler, data, lambda client: client.explain(job, tenant))
    if as_json:
        decision = found.decision.model_dump(mode="json")
        print_json({"job": asdict(found.job), "decision": decision, "notes": list(found.notes)})
    else:
        print_explanation(open_console(), found)


@app.command("drain")
def drain_node(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Id of an edge or worker.")],
    undo: Annotated[bool, typer.Option("--undo", help="Put it back into rotation.")] = False,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a node out of rotation; its running work finishes."""
    state = _ask(scheduler, data, lambda client: client.drain(node, undo=undo))
    if as_json:
        print_json({"node_id": node, "state": state})
    else:
        said = f"{node} goes back into rotation within seconds" if undo else f"{node} is {state}"
        Console().print(said, highlight=False, markup=False)


@app.command("pools")
def show_pools(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """The pools of workers: their load, and how many workers each should have."""
    found = _ask(scheduler, data, lambda client: client.pools())
    if as_json:
        print_json({"pools": [asdict(pool) for pool in found]})
    else:
        open_console().print(pools_table(found))


@app.command("scale")
def scale_pool(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Name of a pool of workers.")],
    workers: Annotated[int, typer.Argument(min=0, max=4096, metavar="WORKERS", help="How many should take jobs.")],
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have so many workers of a pool in rotation: those with the least to lose are drained, or put back.

    Machines are started and ended by others.
    """
    done = _ask(scheduler, data, lambda client: client.scale(pool, workers))
    if as_json:
        print_json({"pool": pool, **asdict(done)})
        return
    said = [f"{node} finishes its work and takes no more" for node in done.drained]
    said += [f"{node} goes back into rotation within seconds" for node in done.put_back]
    if done.missing:
        said.append(f"{done.missing} more must be started")
    Console().print("\n".join(said or [f"{pool} has {workers} in rotation already"]), highlight=False, markup=False)


# ---- asking -----------------------------------------------------------------------------------------------------


def _ask(scheduler: str, data: Path | None, question: Callable[[AdminClient], Awaitable[Answer]]) -> Answer:
    """Put one question to the scheduler; ends the program with a sentence and an exit code when it fails."""
    from adaptivegen.rpc.admin import AdminClient

    try:
        settings = load(AdminSettings)
        address = find_scheduler(scheduler, data, settings.scheduler, usual=data_dir(DEFAULT_DATA))
        tls = settings.tls()

        async def ask() -> Answer:
            client = AdminClient(address, tls=tls)
            try:
                return await question(client)
            finally:
                await client.close()

        return asyncio.run(ask())
    except AdaptiveGenError as exc:
        sys.stderr.write(f"error: {exc.message}\n")
        raise typer.Exit(exit_code(exc)) from exc


def find_scheduler(given: str, data: Path | None, configured: str, *, usual: Path) -> str:
    """host:port as given, else of the system in `data`, else as configured, else of the system in the usual place.

    Raises InvalidRequest or NotFound.
    """
    if given:
        return _check_address(given, "--scheduler")
    if data is None and configured:
        return _check_address(configured, "ADAPTIVEGEN_CLI_SCHEDULER")
    return _listed_scheduler(data_dir(data) if data is not None else usual)


def _listed_scheduler(folder: Path) -> str:
    path = folder / ENDPOINTS_FILE
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["endpoints"]
        addresses = [entry["grpc_address"] for entry in listed if entry["kind"] == "scheduler"]
    except FileNotFoundError as exc:
        hint = "say which scheduler by --scheduler HOST:PORT, --data DIR or ADAPTIVEGEN_CLI_SCHEDULER"
        raise NotFound(f"no system runs in {folder} ({path.name} is not there); {hint}", param="data") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidRequest(f"{path} is not a list of endpoints: {exc}", param="data") from exc
    if not addresses:
        raise NotFound(f"{path} names no scheduler", param="data")
    return _check_address(addresses[0], "grpc_address")


def _check_address(value: object, name: str) -> str:
    host, _, port = str(value).rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InvalidRequest.field(name, value, "host:port")
    return str(value)
