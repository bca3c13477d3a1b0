"""Where the command line keeps and finds a system of this machine, and what a started system inherits.

One folder for all: `up` writes it, `generate` finds the edges in it. Both take another by `--data`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.system.layout import SystemOptions

DEFAULT_DATA = Path("~/.adaptivegen")
ENDPOINTS_FILE = "endpoints.json"


def data_dir(chosen: Path) -> Path:
    """The folder, absolute and with `~` resolved."""
    return chosen.expanduser().absolute()


def system_options(
    folder: Path,
    *,
    edges: int = 1,
    workers: int = 1,
    port: int = 0,
    threads: int | None = None,
    ack_wait_s: float = 30.0,
) -> SystemOptions:
    """Options of a system in `folder`, run by this Python, in this process's environment."""
    from cli.system.layout import SystemOptions

    environment = dict(os.environ)  # noqa: TID251 - handed to the child processes, not read
    cores = threads or min(4, os.cpu_count() or 1)
    return SystemOptions(
        data_dir=data_dir(folder),
        python=sys.executable,
        environment=environment,
        edges=edges,
        workers=workers,
        port=port,
        threads=cores,
        ack_wait_s=ack_wait_s,
    )
