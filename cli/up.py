"""`adaptivegen up`: a whole system on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.places import DEFAULT_DATA, system_options
from cli.signals import run_until_signal

if TYPE_CHECKING:
    from cli.system.layout import SystemOptions


def up(
    edges: Annotated[int, typer.Option(help="Number of edge nodes.")] = 1,
    workers: Annotated[int, typer.Option(help="Number of cloud workers.")] = 1,
    data: Annotated[Path, typer.Option(help="Folder of the system: store, broker, cache, logs.")] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(help="HTTP port of the first edge; 0 takes a free one.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads per model; default: the cores, 4 at most.")] = None,
    ack_wait: Annotated[float, typer.Option(help="Seconds until a lost worker's job is given to another.")] = 30.0,
    nats_server: Annotated[Path | None, typer.Option(help="Another nats-server binary than the packaged one.")] = None,
    nats_server_sha256: Annotated[str, typer.Option(help="Its SHA-256; checked when given.")] = "",
) -> None:
    """Start broker, scheduler, cache, workers and edges on loopback, and keep them running until Ctrl-C."""
    options = system_options(data, edges=edges, workers=workers, port=port, threads=threads, ack_wait_s=ack_wait)
    options = replace(options, nats_server_binary=nats_server, nats_server_sha256=nats_server_sha256)
    run_until_signal(lambda: _keep_running(options))
    typer.echo("stopped")


async def _keep_running(options: SystemOptions) -> None:
    from adaptivegen.clock import SystemClock
    from cli.system.supervisor import running_system

    async with running_system(options, clock=SystemClock(), announce=typer.echo) as system:
        typer.echo(f"ready: {len(system.edge_urls)} edge(s); logs in {options.data_dir / 'logs'}")
        typer.echo(
            f'try:   adaptivegen generate "a red circle moves left over a sunset sky" -o clip.mp4{_data(options)}'
        )
        for page in system.dashboards:
            typer.echo(f"watch: {page}")
        typer.echo("stop:  Ctrl-C")
        await asyncio.Event().wait()


def _data(options: SystemOptions) -> str:
    """The `--data` that finds this system; nothing for the default."""
    return "" if options.data_dir == DEFAULT_DATA.expanduser() else f" --data {options.data_dir}"
