"""`adaptivegen admin rollout`: which version serves each model, and how a new one is tried."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask
from cli.admin_tables import gates_table, line_changes_table, lines_table, open_console, print_json

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_rows import LineChangeInfo

app = typer.Typer(help="Versions of models: try a new one on a share of the sessions.", no_args_is_help=True)
LineArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model that nodes were started with.")]
ReasonOption = Annotated[str, typer.Option(help="Kept with the change.")]


@app.command("show")
def show_lines(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """Which version serves each model, and what is known of one that is tried."""
    found = ask(scheduler, data, lambda client: client.lines())
    if as_json:
        print_json({"lines": [asdict(line) for line in found]})
        return
    console = open_console()
    console.print(lines_table(found))
    for line in found:
        if line.gates:
            console.print(gates_table(line))
        if line.waits_for:
            console.print(f"{line.candidate} waits for: {'; '.join(line.waits_for)}", markup=False, highlight=False)


@app.command("start")
def start_rollout(
    line: LineArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The model that is to serve it.")],
    stages: Annotated[str, typer.Option(metavar="PERCENT,...", help="Of the sessions, growing (5,25,50).")] = "",
    stage_s: Annotated[float | None, typer.Option(help="Seconds that each stage lasts at least (300).")] = None,
    min_outcomes: Annotated[int | None, typer.Option(min=1, help="Sessions of the version at each (20).")] = None,
    max_s: Annotated[float | None, typer.Option(help="By when it must be promoted (86400).")] = None,
    risk: Annotated[float | None, typer.Option(help="Of judging wrong, at each gate (0.05).")] = None,
    max_more_failures: Annotated[float | None, typer.Option(help="Share of clips that more may fail (0.05).")] = None,
    max_slower: Annotated[float | None, typer.Option(help="Share by which it may be slower (0.1).")] = None,
    max_fewer_stars: Annotated[float | None, typer.Option(help="Of 5, by which it may be worse (0.5).")] = None,
    reason: ReasonOption = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin to try a version: at one node, loaded at all, then on growing shares; in the end it is promoted or rolled
    back by itself. Where neither cards nor stars show its quality to be good enough, it waits for `promote`."""
    from adaptivegen.rpc.admin_rows import RolloutOrder

    order = RolloutOrder(
        line=line,
        version=version,
        reason=reason,
        stages=_percents(stages),
        stage_s=stage_s,
        min_outcomes=min_outcomes,
        max_s=max_s,
        risk=risk,
        max_more_failures=max_more_failures,
        max_slower=max_slower,
        max_fewer_stars=max_fewer_stars,
    )
    _print_change(ask(scheduler, data, lambda client: client.start_rollout(order)), as_json=as_json)


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers, such as 5,25,50", param_hint="--stages") from None


def _add_order(action: str, what: str) -> None:
    """A command that gives one order on a rollout."""

    @app.command(action, help=what)
    def order(
        line: LineArgument,
        reason: ReasonOption = "",
        scheduler: SchedulerOption = "",
        data: DataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        made = ask(scheduler, data, lambda client: client.steer_rollout(line, action, reason=reason))
        _print_change(made, as_json=as_json)


_add_order("promote", "Let the version that is tried serve everybody, now.")
_add_order("rollback", "End the try at once.")
_add_order("revert", "Go back to the version before the last promotion.")
_add_order("pause", "Stay at this stage until it is resumed; harm still rolls it back.")
_add_order("resume", "Go on with a rollout that was paused.")


def _print_change(made: LineChangeInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(made))
    else:
        open_console().print(line_changes_table([made]))


@app.command("history")
def show_history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was done, by people and by itself, newest first, and why."""
    changes = ask(scheduler, data, lambda client: client.line_changes(limit))
    if as_json:
        print_json({"changes": [asdict(change) for change in changes]})
    else:
        open_console().print(line_changes_table(changes))
