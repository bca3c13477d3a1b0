"""`adaptivegen admin qoe`: the QoE function's weights and anchors from people's ratings."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptivegen.errors import Conflict, NotFound, SettingsInvalid
from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask, failing
from cli.admin_tables import changes_table, fit_table, open_console, print_json

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_client import AdminClient
    from adaptivegen.rpc.admin_rows import PolicyValueInfo, Ratings
    from scheduler.decide.fit import Fit

SEED = 7  # of the resampling: the same ratings, the same answer
LEFT_OUT = "they do not tell how long was waited, or are of clips that stalled"
DIGITS = 4  # of a value that is applied

app = typer.Typer(help="What people's ratings say about the policy.", no_args_is_help=True)


@app.callback()
def about() -> None:
    """What people's ratings say about the policy."""


@app.command("fit")
def fit_ratings(
    limit: Annotated[int, typer.Option(min=2, max=5000, help="The newest ratings, at most.")] = 2000,
    apply: Annotated[bool, typer.Option("--apply", help="Set the fitted values, where they are better.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="With --apply: also where that is not sure.")] = False,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the weights and anchors to stored ratings (`adaptivegen rate`), and show old against new with how sure it is.

    Left out are ratings that do not tell how long was waited, and those of clips that stalled.
    """
    found = _fitted(scheduler, data, limit)
    if as_json:
        print_json(asdict(found))
    else:
        console = open_console()
        console.print(fit_table(found))
        for line in _said(found):
            console.print(line, highlight=False, markup=False)
    if not apply:
        return
    if not (found.better or anyway):
        with failing():
            raise Conflict("nothing was set, as it is not sure to be better; --anyway sets it", param="apply")
    values = {value.name: float(f"{value.fitted:.{DIGITS}g}") for value in found.values}
    reason = f"fitted to {found.ratings} ratings of {found.raters} raters"
    made = ask(scheduler, data, lambda client: client.set_policy(values, reason=reason))
    if not as_json:
        open_console().print(changes_table([made]))


def _fitted(scheduler: str, data: Path | None, limit: int) -> Fit:
    async def question(client: AdminClient) -> tuple[Ratings, list[PolicyValueInfo]]:
        return await client.ratings(limit), await client.policy()

    given, policy = ask(scheduler, data, question)
    with failing():
        if len(given.ratings) < 2:
            raise NotFound(_too_few(given), param="ratings")
        try:
            from scheduler.decide.fit import fit
            from scheduler.decide.policy import Policy

            now = Policy().but({value.name: value.in_force for value in policy}).qoe
            prior = Policy().but({value.name: value.configured for value in policy}).qoe
            found = fit(given.ratings, now, prior=prior, seed=SEED)
        except ImportError as exc:
            hint = "fitting needs scipy: pip install 'adaptivegen[qoe]'"
            raise SettingsInvalid(hint, param="qoe") from exc
    if given.left_out:
        found = replace(found, notes=(*found.notes, f"{given.left_out} ratings were left out: {LEFT_OUT}."))
    return found


def _too_few(given: Ratings) -> str:
    """Why there is nothing to fit to, and how that is changed."""
    stored = f"{len(given.ratings)} stored rating can" if given.ratings else "no stored rating can"
    left_out = f" ({given.left_out} are left out: {LEFT_OUT})" if given.left_out else ""
    how = "`adaptivegen rate ID --stars N --draft-wait-s S --final-wait-s S`, the SDK's Handle.rate or POST .../rating"
    return f"{stored} be fitted to{left_out}; it takes 2 or more. Videos are rated by {how}"


def _said(found: Fit) -> list[str]:
    told = "is better" if found.better else "is not sure to be better"
    return [
        f"{found.ratings} ratings of {found.raters} raters, {found.offset_stars:+.2f} stars from what is expected.",
        f"On ratings not seen, off by {found.error_now:.3f} stars now and {found.error_fitted:.3f} fitted: it {told}.",
        *found.notes,
    ]
