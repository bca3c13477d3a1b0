"""`adaptivegen admin`: what an operator asks a scheduler and how the answers are shown.

Exit codes as in cli.exits: 0 done, 2 bad input, 3 the scheduler or its broker cannot be reached, 7 no such node or job.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from adaptivegen.settings import load
from cli.exits import exit_code
from cli.places import DEFAULT_DATA, ENDPOINTS_FILE, data_dir

if TYPE_CHECKING:
    from adaptivegen.placement import Candidate
    from adaptivegen.rpc.admin import (
        AccuracyInfo,
        AdminClient,
        DeadLetterInfo,
        Explanation,
        JobInfo,
        NodeInfo,
        PaceInfo,
    )
    from adaptivegen.rpc.channel import ClientTls

Answer = TypeVar("Answer")
MIB = 1024 * 1024
TABLE_CHARS = 140

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
        _print_json({"nodes": [asdict(node) for node in found]})
    else:
        _console().print(_nodes_table(found))


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
        _print_json({"jobs": [asdict(job) for job in found]})
    else:
        _console().print(_jobs_table(found))


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
        _print_json({"dead_letters": [asdict(letter) for letter in found]})
    else:
        _console().print(_dead_letters_table(found))


@app.command("predictions")
def show_predictions(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """How fast nodes are against their model's card, and how good predicted times were."""
    found = _ask(scheduler, data, lambda client: client.predictions())
    if as_json:
        _print_json(asdict(found))
    else:
        _console().print(_paces_table(found.paces))
        _console().print(_accuracies_table(found.accuracies))


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
        _print_json({"job": asdict(found.job), "decision": decision, "notes": list(found.notes)})
    else:
        _print_explanation(_console(), found)


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
        _print_json({"node_id": node, "state": state})
    else:
        said = f"{node} goes back into rotation within seconds" if undo else f"{node} is {state}"
        Console().print(said, highlight=False, markup=False)


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


# ---- showing ----------------------------------------------------------------------------------------------------


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(escape(str(cell)) for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


def _console() -> Console:
    """At least `TABLE_CHARS` wide: a narrow terminal wraps whole lines, which leaves ids in one piece to copy."""
    return Console(width=max(TABLE_CHARS, Console().width))


def _nodes_table(nodes: list[NodeInfo]) -> Table:
    table = _table("node", "kind", "state", "address", "models", "running", "queued", "work", "cpu", "memory", "heard")
    for node in nodes:
        _row(
            table,
            node.node_id,
            node.kind,
            node.state,
            node.http_url or node.address,
            " ".join(node.models),
            node.in_flight,
            node.queued,
            f"{node.remaining_s:.1f} s",
            f"{node.cpu_percent:.0f} %",
            f"{node.memory_bytes / MIB:.0f} MiB",
            f"{node.report_age_s:.1f} s ago",
        )
    return table


def _paces_table(paces: Iterable[PaceInfo]) -> Table:
    table = _table("node", "model", "times of its card", "observed")
    for pace in paces:
        _row(table, pace.node_id, pace.model, f"{pace.factor:.2f}", pace.observations)
    return table


def _accuracies_table(accuracies: Iterable[AccuracyInfo]) -> Table:
    table = _table("predicted", "outcomes", "within the upper", "off by", "upper now")
    for part in accuracies:
        covered = f"{100 * part.covered / part.outcomes:.0f} %" if part.outcomes else "-"
        _row(table, part.part, part.outcomes, covered, f"{100 * part.error:.0f} %", f"{part.upper:.2f} times")
    return table


def _jobs_table(jobs: list[JobInfo]) -> Table:
    table = _table("job", "tenant", "status", "plan", "edge", "worker", "done", "claims", "created", "took", "error")
    for job in jobs:
        took_s = (job.completed_at_ns - job.created_at_ns) / 1e9 if job.completed_at_ns else None
        _row(
            table,
            job.id,
            job.tenant,
            job.status,
            job.plan,
            job.edge_id,
            job.worker_id or "-",
            f"{job.progress_percent} %",
            job.attempts,
            _moment(job.created_at_ns),
            _seconds(took_s),
            f"{job.error_code}: {job.error_message}" if job.error_code else "-",
        )
    return table


def _dead_letters_table(letters: list[DeadLetterInfo]) -> Table:
    table = _table("given up", "pool", "tenant", "job", "size", "reason")
    for letter in letters:
        job = letter.job_id or "(unreadable)"
        size = f"{letter.size_bytes} B"
        _row(table, _moment(letter.at_ns), letter.pool, letter.tenant or "-", job, size, letter.reason)
    return table


def _print_explanation(console: Console, found: Explanation) -> None:
    job, decision = found.job, found.decision
    console.print(f"{job.id} of tenant {job.tenant}: {job.status}", highlight=False, markup=False)
    console.print(
        f"Plan {decision.plan} was decided by {decision.decided_by} at {_moment(decision.decided_at_ns)} "
        f"(edge {decision.edge_id}, pool {decision.pool or '-'}, view {decision.view_digest or '-'}).",
        highlight=False,
        markup=False,
    )
    console.print(_candidates_table(decision.candidates, decision.plan))
    for heading, lines in (("Reasons", decision.reasons), ("What was done otherwise", found.notes)):
        if lines:
            console.print(f"{heading}:", highlight=False)
            for line in lines:
                console.print(f"  - {line}", highlight=False, markup=False)


def _candidates_table(candidates: tuple[Candidate, ...], chosen: str) -> Table:
    table = _table("", "plan", "first look", "draft", "final", "QoE", "cloud time", "score", "because")
    for candidate in candidates:
        known = candidate.feasible
        _row(
            table,
            ">" if candidate.plan == chosen else "",
            candidate.plan,
            _seconds(candidate.first_look_s),
            _seconds(candidate.draft_s),
            _seconds(candidate.final_s),
            f"{candidate.qoe:.2f}" if known else "-",
            _seconds(candidate.gpu_s) if known else "-",
            f"{candidate.score:.2f}" if known else "not possible",
            candidate.reason,
        )
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S") if at_ns else "-"
