"""A node as a service of Consul, and back: names, checks, entries, and what to ask for after an answer. Pure.

The endpoint itself is the service's meta data, so that what is read is what was registered; address and port are said
again where Consul's own tools (its pages, DNS) look for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from adaptivegen.discovery.base import Endpoint, parse_endpoint
from adaptivegen.errors import InvalidRequest
from adaptivegen.ids import check_name

LOCAL_AGENT = "http://127.0.0.1:8500"
TTL_S = 15.0
CHECK_TIMEOUT_S = 5.0
FORGET_AFTER = "1m"  # the shortest that Consul takes: whoever ended without a word is then out of its catalogue, too
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ConsulOptions:
    """How Consul is used. `check`: with `ttl` the node tells its agent that it lives, from wherever it can reach that;
    with `grpc` the agent asks the node, where it can reach that (`grpc_tls`: by TLS). `prefix` begins all names of
    services, so that two deployments can share one Consul. `ca` is the file to check an https agent with."""

    token: str = field(default="", repr=False)
    ca: Path | None = None
    check: Literal["ttl", "grpc"] = "ttl"
    grpc_tls: bool = False
    prefix: str = "adaptivegen"

    def service_name(self, kind: str) -> str:
        """The service that all nodes of a kind are instances of. Raises InvalidRequest."""
        return f"{self.prefix}-{check_name(kind, field='kind')}"


@dataclass(frozen=True, slots=True)
class Service:
    """What is registered of a node. `heartbeat`: its check is one that the node itself has to keep passing."""

    name: str
    id: str
    address: str
    port: int
    meta: Mapping[str, str]
    check: Mapping[str, object]

    @property
    def heartbeat(self) -> bool:
        return "TTL" in self.check

    @property
    def check_id(self) -> str:
        """The name Consul gives to the only check of a service."""
        return f"service:{self.id}"


def service_of(endpoint: Endpoint, options: ConsulOptions, *, ttl_s: float = TTL_S) -> Service:
    """The service that stands for a node. One node id is one service, so a node that was started anew takes the place
    of what it left behind. A node without gRPC (a cache) has the `ttl` check in any case."""
    host, port = _host_and_port(endpoint)
    check: dict[str, object] = {"DeregisterCriticalServiceAfter": FORGET_AFTER}
    if options.check == "grpc" and endpoint.grpc_address is not None:
        check |= {
            "GRPC": endpoint.grpc_address,
            "GRPCUseTLS": options.grpc_tls,
            "Interval": f"{ttl_s:g}s",
            "Timeout": f"{CHECK_TIMEOUT_S:g}s",
        }
    else:
        check |= {"TTL": f"{ttl_s:g}s", "Status": "passing"}  # it serves already: it is listed at once
    return Service(
        name=options.service_name(endpoint.kind),
        id=f"{options.prefix}.{endpoint.kind}.{endpoint.node_id}",  # no name has a dot: no two nodes share an id
        address=host,
        port=port,
        meta=endpoint.fields(),
        check=check,
    )


def endpoints_of(entries: list[object], kind: str) -> tuple[list[Endpoint], list[str]]:
    """The endpoints in an answer of `/v1/health/service`, by node id, and what is wrong with those left out. Of several
    with one node id, which only different agents can have, the one registered last counts."""
    newest: dict[str, tuple[int, Endpoint]] = {}
    faults: list[str] = []
    for number, entry in enumerate(entries):
        try:
            changed, endpoint = _read(entry, kind, where=f"{kind}[{number}]")
        except InvalidRequest as exc:
            faults.append(exc.message)
            continue
        other = newest.get(endpoint.node_id)
        if other is not None:
            faults.append(f"{kind}[{number}].node_id is {endpoint.node_id!r}; allowed: each node of a kind once")
        if other is None or changed > other[0]:
            newest[endpoint.node_id] = (changed, endpoint)
    return [endpoint for _, (_, endpoint) in sorted(newest.items())], faults


def next_index(asked: int, answered: int) -> int:
    """The index to wait for a change with. One that went backwards (Consul lost its state) would be waited for in vain,
    and 0 is no index: both begin anew, with a question that is answered at once."""
    return answered if answered >= max(1, asked) else 0


def _read(entry: object, kind: str, *, where: str) -> tuple[int, Endpoint]:
    service = entry.get("Service") if isinstance(entry, Mapping) else None
    if not isinstance(service, Mapping):
        raise InvalidRequest.field(where, entry, "an object with a Service")
    endpoint = parse_endpoint(service.get("Meta"), where=f"{where}.Meta")
    if endpoint.kind != kind:
        raise InvalidRequest.field(f"{where}.Meta.kind", endpoint.kind, kind)
    changed = service.get("ModifyIndex")
    return changed if isinstance(changed, int) else 0, endpoint


def _host_and_port(endpoint: Endpoint) -> tuple[str, int]:
    """Where a node is, by gRPC if it has that."""
    if endpoint.grpc_address is not None:
        host, _, port = endpoint.grpc_address.rpartition(":")
        return host.strip("[]"), int(port)
    parts = urlsplit(endpoint.http_url or "")
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]
