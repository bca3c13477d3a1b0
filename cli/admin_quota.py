"""`adaptivegen admin quota`: what tenants may use and what they do use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask, changes_of
from cli.admin_tables import open_console, print_json, quota_changes_table, tenants_table

app = typer.Typer(help="What tenants may use: show and change it.", no_args_is_help=True)


@app.command("show")
def show_tenants(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """Tenants with what holds for them and what they use; * is whoever has no own values."""
    found = ask(scheduler, data, lambda client: client.tenants())
    if as_json:
        print_json({"tenants": [asdict(one) for one in found]})
    else:
        open_console().print(tenants_table(found))


@app.command("set")
def set_quota(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="A tenant, or * for all without own values.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE...",
            help="gpu_seconds_per_hour, concurrent_jobs, stored_bytes, weight, priority (0 or 1).",
        ),
    ] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", metavar="NAME", help="Back to everybody's.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the change.")] = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a tenant's quota at all schedulers, for requests from now on."""
    changes = changes_of(values, unset)
    made = ask(scheduler, data, lambda client: client.set_quota(tenant, changes, unset=unset or (), reason=reason))
    if as_json:
        print_json(asdict(made))
    else:
        open_console().print(quota_changes_table([made]))


@app.command("history")
def show_history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The changes, newest first: who made them, and why."""
    changes = ask(scheduler, data, lambda client: client.quota_changes(limit))
    if as_json:
        print_json({"changes": [asdict(change) for change in changes]})
    else:
        open_console().print(quota_changes_table(changes))
