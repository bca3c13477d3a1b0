"""The data directory of a system: its lock, its secrets, its list of endpoints.

The lock is an flock on an open file, so it ends with the process however that ends; no lock can be stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets as randomness
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptivegen.errors import AlreadyRunning, SettingsInvalid, StorageReadOnly
from cli.system.layout import ProcessPlan, Secrets

ENDPOINTS_FILE = "endpoints.json"
SECRETS_FILE = "secrets.json"
_HEX = re.compile("(?:[0-9a-f]{2}){16,}")


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
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def read_secrets(data_dir: Path) -> Secrets:
    """The directory's secrets, drawn once and readable by their owner only; raises SettingsInvalid for a file that
    does not hold them."""
    path = data_dir / SECRETS_FILE
    if not path.exists():
        drawn = {"broker_password": randomness.token_hex(24), "signing_key_hex": randomness.token_hex(32)}
        write_private(path, json.dumps(drawn))
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        secrets = Secrets(broker_password=held["broker_password"], signing_key_hex=held["signing_key_hex"])
        whole = all(_HEX.fullmatch(text) for text in (secrets.broker_password, secrets.signing_key_hex))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsInvalid(f"{path} does not hold this system's secrets; remove it to draw new ones") from exc
    if not whole:
        raise SettingsInvalid(f"{path} holds a secret that is not hexadecimal or too short; remove it to draw new ones")
    return secrets


def write_private(path: Path, text: str) -> Path:
    """A file for its owner's eyes, whole or not at all; returns its path."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def write_endpoints(data_dir: Path, plans: list[ProcessPlan]) -> None:
    """The list that clients on this machine discover the system by; written whole or not at all."""
    listed = [dict(plan.endpoint) for plan in plans if plan.endpoint]
    temporary = data_dir / f"{ENDPOINTS_FILE}.new"
    temporary.write_text(json.dumps({"endpoints": listed}, indent=2), encoding="utf-8")
    temporary.replace(data_dir / ENDPOINTS_FILE)


def remove_endpoints(data_dir: Path) -> None:
    """Nothing is to be found here any more."""
    (data_dir / ENDPOINTS_FILE).unlink(missing_ok=True)
