"""Where nodes can be reached. Discovery says who is known, not who is well: callers probe or see it by failing calls.

Owns the one JSON shape of an endpoint, `{"kind", "node_id", "http_url"?, "grpc_address"?, "region"?}`, used in files
and in the broker alike. Knows no source.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol
from urllib.parse import urlsplit

from adaptivegen.errors import InvalidRequest
from adaptivegen.ids import check_name

_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_URL_LIMIT = "http://host[:port] or https://host[:port], without a user, a path, a query"
_ADDRESS_LIMIT = "host:port"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node. `kind` is edge, cache, scheduler or worker; at least one of the two addresses is set.

    Raises InvalidRequest naming the field.
    """

    kind: str
    node_id: str
    http_url: str | None = None
    grpc_address: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        check_name(self.kind, field="kind")
        check_name(self.node_id, field="node_id")
        if self.region is not None:
            check_name(self.region, field="region")
        if self.http_url is not None and not is_url(self.http_url):
            raise InvalidRequest.field("http_url", self.http_url, _URL_LIMIT)
        if self.grpc_address is not None and not is_address(self.grpc_address):
            raise InvalidRequest.field("grpc_address", self.grpc_address, _ADDRESS_LIMIT)
        if self.http_url is None and self.grpc_address is None:
            raise InvalidRequest.field("http_url", None, "an address: http_url or grpc_address, or both")

    def fields(self) -> dict[str, str]:
        """The JSON object of this endpoint; what is not set is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Tell = Callable[[list[Endpoint]], Awaitable[None]]


class Discovery(Protocol):
    """A source of endpoints."""

    async def endpoints(self, kind: str) -> list[Endpoint]:
        """All known endpoints of a kind, by node id; none is an empty list. Raises InvalidRequest for what cannot be
        a kind, NodeUnavailable or BrokerUnavailable when the source cannot be read."""
        ...

    async def follow(self, kind: str, tell: Tell) -> None:
        """Call `tell` with the endpoints of a kind, and again whenever they are others than those told last, until
        cancelled. While the source cannot be read nothing is told: the last list stands. Raises InvalidRequest for what
        cannot be a kind."""
        ...

    async def register(self, endpoint: Endpoint) -> None:
        """Keep `endpoint` listed until cancelled, then take it out; returns at once where operators keep the list."""
        ...


def parse_endpoint(value: object, *, where: str) -> Endpoint:
    """An endpoint from parsed JSON; fields of later versions are ignored. Raises InvalidRequest naming `where` and the
    field."""
    if not isinstance(value, Mapping):
        raise InvalidRequest.field(where, value, "an object with kind, node_id and an address")
    texts: dict[str, str] = {}
    for name in ("kind", "node_id", "http_url", "grpc_address", "region"):
        held = value.get(name)
        if held is None and name not in ("kind", "node_id"):
            continue
        if not isinstance(held, str):
            raise InvalidRequest.field(f"{where}.{name}", held, "text")
        texts[name] = held
    try:
        return Endpoint(**texts)
    except InvalidRequest as exc:
        raise InvalidRequest(f"{where}.{exc.message}", param=f"{where}.{exc.param}") from exc


def is_url(text: str) -> bool:
    """Whether it is `http(s)://host[:port]` and nothing more."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.query or parts.fragment or parts.username or parts.password) and parts.path in ("", "/")
    whole = parts.scheme in ("http", "https") and port != 0 and not re.search(r"[\s\x00-\x1f]", text)
    host = parts.netloc.rpartition("@")[2]
    host = host if port is None else host.rpartition(":")[0]
    return bare and whole and _HOST.fullmatch(host) is not None


def is_address(text: str) -> bool:
    """Whether it is `host:port`."""
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return bool(colon) and _HOST.fullmatch(host) is not None and 1 <= number <= 65535
