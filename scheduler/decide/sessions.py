"""Where sessions are drafted, and when one moves: not for a passing advantage. Pure.

A session's drafts stay at an edge while that can draft at all, until another is better by GAIN of QoE in PATIENCE
decisions in a row and the session has been there for DWELL_S. Without it, sessions swing between edges that fill up in
turn.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

GAIN = 0.15
PATIENCE = 3
DWELL_S = 5.0
FORGET_AFTER_S = 600.0
CROSSED_S = 0.1  # in which word of another scheduler may have been on its way already
MAX_TENANTS, MAX_SESSIONS = 1024, 256  # that are remembered, and sessions of each


@dataclass(frozen=True, slots=True)
class Session:
    """Where one session is drafted since when, and how many decisions in a row have seen a better edge."""

    edge_id: str
    since_s: float
    used_s: float
    better: int = 0


class Sessions:
    """The sessions of all tenants by name; what was used last is at the end."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, Session]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Sessions({sum(map(len, self._tenants.values()))})"

    def get(self, tenant: str, name: str, *, now_s: float) -> Session | None:
        """The session, if it was used lately."""
        sessions = self._tenants.get(tenant)
        session = sessions.get(name) if sessions is not None and name else None
        return session if session is not None and now_s - session.used_s <= FORGET_AFTER_S else None

    def gives_way(self, tenant: str, name: str, *, edge_id: str, now_s: float) -> bool:
        """Whether what another scheduler says of a session is taken over: not where both have just placed it, at two
        edges, and this is the one of them that stays. They must agree, or they would change places for ever."""
        known = self.get(tenant, name, now_s=now_s)
        return known is None or edge_id <= known.edge_id or now_s - known.used_s >= CROSSED_S

    def note(self, tenant: str, name: str, *, edge_id: str, gain: float, now_s: float) -> None:
        """A decision placed a draft of the session at `edge_id`, where another would have been better by `gain`."""
        if not name:
            return
        known = self.get(tenant, name, now_s=now_s)
        if known is None or known.edge_id != edge_id:
            known = Session(edge_id, since_s=now_s, used_s=now_s)
        sessions = self._tenants.setdefault(tenant, OrderedDict())
        sessions[name] = replace(known, used_s=now_s, better=known.better + 1 if gain >= GAIN else 0)
        sessions.move_to_end(name)
        self._tenants.move_to_end(tenant)
        while len(sessions) > MAX_SESSIONS:
            sessions.popitem(last=False)
        while len(self._tenants) > MAX_TENANTS:
            self._tenants.popitem(last=False)


def stays(session: Session | None, *, gain: float, now_s: float) -> bool:
    """Whether the next draft goes where the session is, though another edge would be better by `gain`."""
    if session is None:
        return False
    tired = gain >= GAIN and session.better + 1 >= PATIENCE
    return not (tired and now_s - session.since_s >= DWELL_S)
