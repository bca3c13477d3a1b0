"""The `adaptivegen` command. Decides which part runs and how an error ends; each part is imported when it is asked for,
so that `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module, metadata

import typer

from adaptivegen.errors import AdaptiveGenError
from cli import delete, demo, exits, generate, rate, up, videos

app = typer.Typer(
    help="Edge-cloud video generation: a draft within a second, upgraded to the final under the same id.",
    epilog="Exit codes: 0 done, 1 internal error, 2 bad input, 3 not reachable or full, 4 out of time, 5 generation "
    "failed, 6 already running, 7 not found or conflict, 130 cancelled by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up", short_help="Run a whole system on this machine.")(up.up)
app.command("generate", short_help="Make one video, draft first.")(generate.generate)
app.command("videos", short_help="List videos.")(videos.videos)
app.command("rate", short_help="Say how good a video was.")(rate.rate)
app.command("delete", short_help="Delete videos.")(delete.delete)
app.command("demo", short_help="Show everything once, with a table of times.")(demo.demo)

_SERVICES = {"edge": "edge_node", "scheduler": "scheduler", "worker": "core_cloud", "cache": "cdn_cache"}
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("admin", context_settings=_PASS_ON, short_help="Ask and steer a scheduler.")
def admin(context: typer.Context) -> None:
    """Ask and steer a scheduler: nodes, jobs, explain JOB, drain NODE."""
    from cli.admin import app as admin_app

    admin_app(args=context.args, prog_name="adaptivegen admin")


@app.command("models", context_settings=_PASS_ON, short_help="Push versions of models to a system's nodes.")
def models(context: typer.Context) -> None:
    """Versions of models for the nodes of a system: push NAME."""
    from cli.models import app as models_app

    models_app(args=context.args, prog_name="adaptivegen models")


def _serve(service: str) -> None:
    """Run one service in this process, from its settings."""
    status: int = import_module(f"{_SERVICES[service]}.__main__").main()
    raise typer.Exit(status)


@app.command("edge")
def edge() -> None:
    """Run one edge node from ADAPTIVEGEN_EDGE_*."""
    _serve("edge")


@app.command("scheduler")
def scheduler() -> None:
    """Run one scheduler from ADAPTIVEGEN_SCHEDULER_*."""
    _serve("scheduler")


@app.command("worker")
def worker() -> None:
    """Run one cloud worker from ADAPTIVEGEN_WORKER_*."""
    _serve("worker")


@app.command("cache")
def cache() -> None:
    """Run one media cache from ADAPTIVEGEN_CACHE_*."""
    _serve("cache")


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("adaptivegen"))


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `cli.exits`). Errors of ours are one line on standard error."""
    try:
        app(args=list(args) if args is not None else None, prog_name="adaptivegen")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else exits.INTERNAL if exc.code else exits.OK
    except AdaptiveGenError as exc:
        sys.stderr.write(f"error: {one_line(exc)}\n")
        return exits.exit_code(exc)
    return exits.OK


def one_line(error: AdaptiveGenError) -> str:
    """An error as one readable line."""
    text = " ".join(error.message.split())
    if error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:g} s)"
    return text


def run() -> None:
    """Entry point of the `adaptivegen` script."""
    sys.exit(main())
