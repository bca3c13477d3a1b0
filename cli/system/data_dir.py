"""The data directory of a system: its lock, its secrets, its list of endpoints.

The lock is an flock on an open file, so it ends with the process however that ends; no lock can be stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets as randomness
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptivegen.errors import AlreadyRunning, StorageReadOnly
from cli.system.layout import ProcessPlan, Secrets

ENDPOINTS_FILE = "endpoints.json"


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the directory for this process; raises AlreadyRunning naming the holder, StorageReadOnly."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StorageReadOnly(f"cannot use {data_dir}: {exc.strerror}", param="data") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise AlreadyRunning(f"{data_dir} is in use by process {holder or 'unknown'}", param="data") from exc
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def read_secrets(data_dir: Path) -> Secrets:
    """The directory's secrets, drawn once and kept readable by their owner only."""
    path = data_dir / "secrets.json"
    if not path.exists():
        drawn = {"broker_password": randomness.token_hex(24), "signing_key_hex": randomness.token_hex(32)}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(drawn, file)
    return Secrets(**json.loads(path.read_text(encoding="utf-8")))


def write_endpoints(data_dir: Path, plans: list[ProcessPlan]) -> None:
    """The list that clients on this machine discover the system by; written whole or not at all."""
    listed = [dict(plan.endpoint) for plan in plans if plan.endpoint]
    temporary = data_dir / f"{ENDPOINTS_FILE}.new"
    temporary.write_text(json.dumps({"endpoints": listed}, indent=2), encoding="utf-8")
    temporary.replace(data_dir / ENDPOINTS_FILE)


def remove_endpoints(data_dir: Path) -> None:
    """Nothing is to be found here any more."""
    (data_dir / ENDPOINTS_FILE).unlink(missing_ok=True)
