"""Who is calling: API keys to tenants.

A key is `agk_<id>_<secret>`, the secret 32 random bytes in hex. Stored is only HMAC-SHA256(pepper, key), in a JSON
file: {"keys": [{"id": "...", "tenant": "...", "digest": "<hex>"}]}. `python -m edge_node.auth TENANT` makes a key: it
prints the key once, and the line for the file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path

from adaptivegen.errors import InvalidRequest, SettingsInvalid, Unauthenticated
from adaptivegen.ids import check_name

LOCAL_TENANT = "local"
_KEY = re.compile(r"agk_([a-z0-9]{8})_[0-9a-f]{64}")


def digest(key: str, *, pepper: str) -> str:
    """What is stored of a key."""
    return hmac.new(pepper.encode(), key.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One accepted key."""

    id: str
    tenant: str
    digest: str


def read_keys(path: Path) -> dict[str, StoredKey]:
    """Keys by id; raises SettingsInvalid naming what is wrong."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys = [
            StoredKey(id=entry["id"], tenant=check_name(entry["tenant"], field="tenant"), digest=entry["digest"])
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, InvalidRequest) as exc:
        raise SettingsInvalid(f"api_keys_file {path} cannot be read: {exc}", param="api_keys_file") from exc
    return {key.id: key for key in keys}


class ApiKeys:
    """Accepts `Bearer <key>`."""

    def __init__(self, keys: dict[str, StoredKey], *, pepper: str) -> None:
        self._keys = keys
        self._pepper = pepper

    def tenant(self, authorization: str | None) -> str:
        """The caller's tenant; raises Unauthenticated, in the same time for a wrong id and a wrong secret."""
        scheme, _, key = (authorization or "").partition(" ")
        match = _KEY.fullmatch(key.strip())
        if scheme.lower() != "bearer" or match is None:
            raise Unauthenticated("send `Authorization: Bearer <API key>`", param="authorization")
        stored = self._keys.get(match[1])
        expected = stored.digest if stored else "0" * 64
        if not hmac.compare_digest(digest(match[0], pepper=self._pepper), expected) or stored is None:
            raise Unauthenticated("unknown API key", param="authorization")
        return stored.tenant


class Loopback:
    """Everyone on this machine is the local tenant; only for `auth=loopback`."""

    def tenant(self, authorization: str | None) -> str:
        """Always the local tenant."""
        return LOCAL_TENANT


def main() -> int:
    """Make a key for a tenant; the pepper is asked for, so that it stays out of the shell's history."""
    import getpass
    import secrets
    import sys

    tenant = check_name(sys.argv[1] if len(sys.argv) == 2 else "", field="tenant")
    key_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
    key = f"agk_{key_id}_{secrets.token_hex(32)}"
    entry = {"id": key_id, "tenant": tenant, "digest": digest(key, pepper=getpass.getpass("pepper: "))}
    sys.stdout.write(f"key (shown once): {key}\nfor api_keys_file: {json.dumps(entry)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
