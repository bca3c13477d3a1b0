"""Who may say something of a node: whoever shows a certificate with that node's id among its names, or with a name that
the file of roles grants it. What is said of a node moves work to it and away from it, so one node's certificate is not
to be enough for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from adaptivegen.errors import InvalidRequest, PermissionDenied, SettingsInvalid
from adaptivegen.ids import check_name
from adaptivegen.roles import ANYBODY, MAX_NAMES, called
from adaptivegen.telemetry import get_logger

EVERY_NODE = "*"
MAX_SAID = 256  # denials that are logged, each once


class Speakers:
    """granted: ids of nodes by name in a certificate, beyond the node of that name itself; ANYBODY stands for whoever
    has a certificate, EVERY_NODE for all nodes."""

    def __init__(self, granted: Mapping[str, Iterable[str]] | None = None) -> None:
        self._granted = {name: frozenset(ids) for name, ids in (granted or {}).items()}
        self._said: set[tuple[str, str]] = set()

    def may(self, names: Iterable[str], node_id: str) -> bool:
        """Whether the holder of a certificate with these names may speak for a node."""
        for name in (*names, ANYBODY):
            ids = self._granted.get(name, frozenset())
            if (name == node_id and name != ANYBODY) or node_id in ids or EVERY_NODE in ids:
                return True
        return False

    def require(self, names: Iterable[str], node_id: str, *, field: str) -> None:
        """Raises PermissionDenied naming `field` where they may not."""
        known = tuple(names)
        if self.may(known, node_id):
            return
        who = called(known)[:200]
        if (who, node_id) not in self._said and len(self._said) < MAX_SAID:
            self._said.add((who, node_id))
            get_logger().warning("not_a_speaker", by=who, node=node_id[:64], field=field)
        limit = "a node that its certificate names, or that the roles file grants it under nodes"
        raise PermissionDenied(f"{field} is {node_id[:64]!r}, said by {who}; allowed: {limit}", param=field)


def read_speakers(path: Path | None) -> Speakers:
    """From `{"nodes": {"name in a certificate, or *": ["node id", ... or "*"]}}` in the file of roles; without it every
    certificate speaks for the nodes it names. Raises SettingsInvalid."""
    if path is None:
        return Speakers()
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("nodes", {})
        granted = {str(name): list(ids) for name, ids in found.items() if not isinstance(ids, str)}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise SettingsInvalid(f"{path.name} grants no nodes: {exc!r}", param="roles_file") from exc
    if len(granted) < len(found):
        name = next(str(name) for name, ids in found.items() if isinstance(ids, str))
        raise SettingsInvalid(f"{path.name} grants {name!r} no list of nodes", param="roles_file")
    if sum(map(len, granted.values())) + len(granted) > MAX_NAMES:
        raise SettingsInvalid(f"{path.name} grants more nodes than are allowed: {MAX_NAMES}", param="roles_file")
    for name, ids in granted.items():
        for node_id in ids:
            try:
                if node_id != EVERY_NODE:
                    check_name(node_id, field="node")
            except InvalidRequest as exc:
                raise SettingsInvalid(f"{path.name} grants {name!r}: {exc.message}", param="roles_file") from exc
    return Speakers(granted)
