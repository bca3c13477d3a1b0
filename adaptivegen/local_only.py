"""What a server without keys must refuse: requests that a web page made the user's browser send. Pure.

Such a server trusts whoever reaches it on loopback, and every page that is open in a browser on the machine does. Two
checks keep pages out. The Host header names this machine: a page whose own name was made to resolve to 127.0.0.1 (DNS
rebinding) sends its own. The Origin header, which browsers add to every request of a page that can change something
or read the answer (Fetch standard, 3.2), is of this machine or absent. With keys neither is needed: a browser does not
add them by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adaptivegen.errors import PermissionDenied

NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9._-]{1,253}))(?::[0-9]{1,5})?")
_SCHEMES = ("http://", "https://")


def own_names(*hosts: str) -> frozenset[str]:
    """The names and addresses this machine's clients may use: those of loopback, and the settings' own."""
    return NAMES | {host.strip("[]").lower() for host in hosts if host}


def check_local(*, hosts: Sequence[str], origins: Sequence[str], names: frozenset[str]) -> None:
    """Refuse a request whose Host headers are not one of `names`, on any port, or that came from another origin.

    Raises PermissionDenied. A request needs exactly one Host; it needs no Origin (programs send none).
    """
    if len(hosts) != 1 or _name(hosts[0]) not in names:
        shown = ", ".join(hosts)[:80]
        raise PermissionDenied(f"host is {shown!r}; without keys only this machine's names", param="host")
    for origin in origins:
        scheme = next((scheme for scheme in _SCHEMES if origin.startswith(scheme)), None)
        if scheme is None or _name(origin.removeprefix(scheme)) not in names:
            raise PermissionDenied(f"origin is {origin[:80]!r}; without keys no other site may ask", param="origin")


def check_same_origin(*, hosts: Sequence[str], origins: Sequence[str], site: str = "", mode: str = "") -> None:
    """Refuse a request of a page that is not this very server's, also of one of another port of this machine.

    site, mode: the headers Sec-Fetch-Site and Sec-Fetch-Mode, by which a browser tells of requests that have no Origin
    and whose answer the page will not see (images, say); a link that somebody follows is none of those. For servers
    that know people by certificates, which a browser shows by itself, whoever's page asks. Raises PermissionDenied.
    """
    for origin in origins:
        scheme = next((scheme for scheme in _SCHEMES if origin.startswith(scheme)), None)
        own = [host.lower() for host in hosts]
        if scheme is None or own != [origin.removeprefix(scheme).lower()]:
            raise PermissionDenied(f"origin is {origin[:80]!r}; no other site may ask", param="origin")
    if site not in ("", "none", "same-origin") and mode != "navigate":
        raise PermissionDenied(f"sec-fetch-site is {site[:80]!r}; no other site may ask", param="sec-fetch-site")


def _name(authority: str) -> str | None:
    """The host of `host[:port]`, without brackets; None when it is no such thing."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return None if match is None else match[1] or match[2]
