"""How the commands of `adaptivegen admin` find a scheduler and put a question to it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from adaptivegen.settings import load
from cli.exits import exit_code
from cli.places import DEFAULT_DATA, ENDPOINTS_FILE, data_dir

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_client import AdminClient
    from adaptivegen.rpc.channel import ClientTls

Answer = TypeVar("Answer")


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


def ask(scheduler: str, data: Path | None, question: Callable[[AdminClient], Awaitable[Answer]]) -> Answer:
    """Put one question to the scheduler; ends the program with a sentence and an exit code when it fails."""
    from adaptivegen.rpc.admin_client import AdminClient

    with failing():
        settings = load(AdminSettings)
        address = find_scheduler(scheduler, data, settings.scheduler, usual=data_dir(DEFAULT_DATA))
        tls = settings.tls()

        async def put() -> Answer:
            client = AdminClient(address, tls=tls)
            try:
                return await question(client)
            finally:
                await client.close()

        return asyncio.run(put())


@contextmanager
def failing() -> Iterator[None]:
    """Ends the program with a sentence and an exit code for what raises one of our errors."""
    try:
        yield
    except AdaptiveGenError as exc:
        sys.stderr.write(f"error: {exc.message}\n")
        raise typer.Exit(exit_code(exc)) from exc


def changes_of(values: list[str] | None, unset: list[str] | None) -> dict[str, float]:
    """The changes in NAME=VALUE texts; ends the program where there are none."""
    with failing():
        given = [_change(text) for text in values or ()]
        changes = dict(given)
        for name in changes:
            if (count := sum(one == name for one, _ in given)) > 1:
                raise InvalidRequest(f"{name[:80]} is given {count} times; allowed: once", param="values")
        if not changes and not unset:
            raise InvalidRequest("nothing to change; give NAME=VALUE or --unset NAME", param="values")
        return changes


def _change(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError as exc:
        raise InvalidRequest.field("values", text[:120], "NAME=VALUE, with a number") from exc


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
