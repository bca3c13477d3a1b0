"""`adaptivegen admin policy`: by what plans are weighed, changed while schedulers run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask, changes_of
from cli.admin_tables import changes_table, open_console, policy_table, print_json

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_rows import PolicyValueInfo

app = typer.Typer(help="By what plans are weighed: show and change it.", no_args_is_help=True)


@app.command("show")
def show_policy(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """All values, as they are in force and as the scheduler was started with."""
    values = ask(scheduler, data, lambda client: client.policy())
    if as_json:
        print_json({"values": [asdict(value) for value in values]})
    else:
        open_console().print(policy_table(values))


@app.command("diff")
def show_difference(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """What is in force otherwise than the scheduler was started with."""
    values = [value for value in ask(scheduler, data, lambda client: client.policy()) if _differs(value)]
    if as_json:
        print_json({"values": [asdict(value) for value in values]})
    elif values:
        open_console().print(policy_table(values))
    else:
        typer.echo("everything is as the scheduler was started with")


@app.command("set")
def set_policy(
    values: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="See `policy show`.")] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", metavar="NAME", help="Back to the settings.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the change.")] = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the policy of all schedulers, for requests from now on."""
    changes = changes_of(values, unset)
    made = ask(scheduler, data, lambda client: client.set_policy(changes, unset=unset or (), reason=reason))
    if as_json:
        print_json(asdict(made))
    else:
        open_console().print(changes_table([made]))


@app.command("history")
def show_history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The changes, newest first: who made them, and why."""
    changes = ask(scheduler, data, lambda client: client.policy_changes(limit))
    if as_json:
        print_json({"changes": [asdict(change) for change in changes]})
    else:
        open_console().print(changes_table(changes))


def _differs(value: PolicyValueInfo) -> bool:
    return value.in_force != value.configured
