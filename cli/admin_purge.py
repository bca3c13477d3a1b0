"""`adaptivegen admin purge`: has caches let go of videos, or deletes them, batch by batch."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from adaptivegen.errors import InvalidRequest
from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask, failing
from cli.admin_tables import open_console, print_json, purge_table
from cli.exits import UNAVAILABLE

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_client import AdminClient
    from adaptivegen.rpc.admin_rows import Purged, PurgeOrder

_AGE = re.compile(r"([0-9]{1,300}(?:\.[0-9]{1,300})?)([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(StrEnum):
    """What is purged."""

    CACHE = "cache"
    CONTENT = "content"


def purge(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Videos (vid_...); at most 500.")] = None,
    kind: Annotated[Kind, typer.Option(help="cache: let caches fetch them anew; content: delete them.")] = Kind.CACHE,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    content_key: Annotated[str, typer.Option(help="Only those with this content key.")] = "",
    model: Annotated[str, typer.Option(help="Only those made with this version, by name or digest.")] = "",
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Only those so old: 90s, 15m, 12h, 30d.")] = "",
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Videos at a time.")] = 200,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many, and how large.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before anything is deleted.")] = False,
    reason: Annotated[str, typer.Option(help="Kept in the audit log.")] = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Purge the videos of which all that is said holds. What is deleted cannot be had back; media that videos not
    meant refer to stay for those. Needs the role of an operator, for content that of an admin."""
    from adaptivegen.rpc.admin_rows import PurgeOrder

    with failing():
        order = PurgeOrder(
            ids=tuple(ids or ()),
            tenant=tenant,
            content_key=content_key,
            model=model,
            older_than_s=_seconds(older_than),
            dry_run=dry_run,
            limit=batch,
            reason=reason,
        )
    if kind is Kind.CONTENT and not (dry_run or yes):
        found = ask(scheduler, data, lambda client: _all(client, kind, replace(order, dry_run=True), quiet=True))
        typer.confirm(f"delete {found.videos} videos of {found.bytes} bytes?", abort=True, err=True)
    done = ask(scheduler, data, lambda client: _all(client, kind, order, quiet=as_json))
    if as_json:
        values = {name: value for name, value in asdict(done).items() if name != "next"}
        print_json({"kind": kind.value, "dry_run": dry_run, **values})
    else:
        open_console().print(purge_table(kind.value, done, dry_run=dry_run))
    if done.failed:
        raise typer.Exit(UNAVAILABLE)


async def _all(client: AdminClient, kind: Kind, order: PurgeOrder, *, quiet: bool) -> Purged:
    """One batch after the other; the sums."""
    from adaptivegen.rpc.admin_rows import Purged

    call = client.purge_caches if kind is Kind.CACHE else client.purge_videos
    total = Purged(0, 0, 0, 0, "")
    while True:
        part = await call(order)
        total = Purged(
            total.examined + part.examined,
            total.videos + part.videos,
            total.bytes + part.bytes,
            total.failed + part.failed,
            part.next,
        )
        if not part.next:
            return total
        if not quiet:
            sys.stderr.write(f"{total.videos} videos, {total.bytes} bytes so far\n")
        order = replace(order, after=part.next)


def _seconds(age: str) -> float | None:
    """Seconds of an age; raises InvalidRequest."""
    from adaptivegen.rpc.admin_rows import LONGEST_AGE_S

    if not age:
        return None
    match = _AGE.fullmatch(age)
    if match is None:
        raise InvalidRequest.field("--older-than", age, "a number of s, m, h or d, such as 30d")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST_AGE_S:
        raise InvalidRequest.field("--older-than", age, f"0s to {LONGEST_AGE_S / 86400:.0f}d")
    return seconds
