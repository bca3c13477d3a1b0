"""Who may ask what of a scheduler: roles by the names in the certificates that callers show.

A viewer may look, an operator also drain and scale, an admin also change the policy. Who is denied is logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

from adaptivegen.errors import PermissionDenied, SettingsInvalid
from adaptivegen.telemetry import get_logger

Role = Literal["none", "viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
ANYBODY = "*"  # in a file of roles: whoever it does not name
MAX_NAMES = 10_000


class Roles:
    """Roles by name; who is not named has the role of ANYBODY, by default a viewer's: every node has a certificate."""

    def __init__(self, by_name: Mapping[str, Role], *, unnamed: Role = "viewer") -> None:
        self._by_name = dict(by_name)
        self._unnamed: Role = self._by_name.pop(ANYBODY, unnamed)

    def of(self, names: Iterable[str]) -> Role:
        """The highest of the roles of these names, all of one certificate; none where one of them is to have none."""
        found = [self._by_name[name] for name in names if name in self._by_name]
        if "none" in found:
            return "none"
        return max(found, key=ROLES.index, default=self._unnamed)

    def require(self, names: Iterable[str], role: Role) -> None:
        """Raises PermissionDenied where none of the names has at least this role."""
        known = tuple(names)
        has = self.of(known)
        if ROLES.index(has) < ROLES.index(role):
            who = called(known)[:200]
            get_logger().warning("denied", by=who, role=has, needs=role)
            raise PermissionDenied(f"{who} has the role {has}; this needs {role}", param="role")


def called(names: Iterable[str]) -> str:
    """How somebody with these names is named in the audit log and in refusals."""
    return ", ".join(names) or "somebody without a certificate"


def everybody_admin() -> Roles:
    """For a system on loopback without keys: whoever reaches it is its owner."""
    return Roles({}, unnamed="admin")


def read_roles(path: Path | None) -> Roles:
    """From `{"roles": {"name": "viewer" | "operator" | "admin" | "none", "*": ...}}`; names are those of certificates.

    Without a file everybody with a certificate may look and nobody may change anything. Raises SettingsInvalid.
    """
    if path is None:
        return Roles({})
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["roles"]
        named = {str(name): role for name, role in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SettingsInvalid(f"{path.name} is no file of roles: {exc!r}", param="roles_file") from exc
    if len(named) > MAX_NAMES:
        raise SettingsInvalid(f"{path.name} names {len(named)}; allowed: at most {MAX_NAMES}", param="roles_file")
    for name, role in named.items():
        if role not in ROLES:
            limit = ", ".join(ROLES)
            raise SettingsInvalid(f"the role of {name!r} is {role!r:.80}; allowed: {limit}", param="roles_file")
    return Roles(named)
