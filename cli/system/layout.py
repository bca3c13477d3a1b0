"""Which processes make a system on one machine, with their settings, ports and order. Pure.

Also when a process that died is started again. The settings' names are those of the services; each process listens on
loopback only and goes without keys (`auth=loopback`), which nothing but this layout does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adaptivegen.drain import DEFAULT_GRACE_S, LONGEST_GRACE_S, kill_after_s
from adaptivegen.errors import InvalidRequest

HOST = "127.0.0.1"
MAX_NODES = 32
DASHBOARD = "/admin"
Probe = Literal["http", "grpc", "tcp"]


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """What `up` was asked for. `environment` is the parent's, passed on; sizes in bytes, times in seconds."""

    data_dir: Path
    python: str
    environment: Mapping[str, str]
    edges: int = 1
    workers: int = 1
    port: int = 0
    threads: int = 2
    ack_wait_s: float = 30.0
    drain_grace_s: float = DEFAULT_GRACE_S
    draft_model: str = "pocket-draft"
    cloud_model: str = "pocket-cloud"
    cache_capacity_bytes: int = 1024**3
    nats_server_binary: Path | None = None
    nats_server_sha256: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InvalidRequest for a count or port out of range."""
        for name, value in (("edges", self.edges), ("workers", self.workers)):
            if not 1 <= value <= MAX_NODES:
                raise InvalidRequest.field(name, value, f"1 to {MAX_NODES}")
        if not 0 <= self.port <= 65535:
            raise InvalidRequest.field("port", self.port, "0 to 65535")
        if not 0 < self.drain_grace_s <= LONGEST_GRACE_S:
            raise InvalidRequest.field("drain_grace_s", self.drain_grace_s, f"above 0, at most {LONGEST_GRACE_S:g}")

    @property
    def kill_after_s(self) -> float:
        """How long each process may take to end; all are given the same grace."""
        return kill_after_s(self.drain_grace_s)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Random per data directory."""

    broker_password: str
    signing_key_hex: str


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process: how to start it, how to see that it is ready, when it starts and (reversed) stops."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    probe: Probe
    address: str
    stage: int
    endpoint: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where a person or a client finds it."""
        return f"http://{self.address}" if self.probe == "http" else self.address

    @property
    def dashboard(self) -> str:
        """The page that shows a scheduler at work; empty for other processes."""
        return f"{self.endpoint['http_url']}{DASHBOARD}" if self.endpoint.get("kind") == "scheduler" else ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of all processes, chosen by the caller."""

    broker: int
    scheduler: int
    scheduler_http: int
    cache: int
    workers: tuple[int, ...]
    edges_http: tuple[int, ...]
    edges_grpc: tuple[int, ...]


def port_count(options: SystemOptions) -> int:
    """How many ports the system needs."""
    return 4 + options.workers + 2 * options.edges


def assign_ports(options: SystemOptions, free: list[int]) -> Ports:
    """Give each process its port; the first edge's HTTP port is the one asked for."""
    workers, edges = options.workers, options.edges
    http = free[4 + workers : 4 + workers + edges]
    if options.port:
        http[0] = options.port
    return Ports(
        broker=free[0],
        scheduler=free[1],
        scheduler_http=free[2],
        cache=free[3],
        workers=tuple(free[4 : 4 + workers]),
        edges_http=tuple(http),
        edges_grpc=tuple(free[4 + workers + edges : 4 + workers + 2 * edges]),
    )


def plan_system(options: SystemOptions, ports: Ports, secrets: Secrets, broker_argv: list[str]) -> list[ProcessPlan]:
    """All processes in the order of their start; the broker is started by `broker_argv`."""
    broker = f"{HOST}:{ports.broker}"
    common = {
        "HOST": HOST,
        "NATS_URLS": f"nats://adaptivegen:{secrets.broker_password}@{broker}",
        "STORE_URL": f"file://{options.data_dir / 'store'}",
        "AUTH": "loopback",
        "DRAIN_GRACE_S": f"{options.drain_grace_s:g}",
    }
    services = [
        _scheduler(options, ports),
        _cache(options, ports, secrets),
        *(_worker(options, ports, number, port) for number, port in enumerate(ports.workers, start=1)),
        *(_edge(options, ports, secrets, number) for number in range(1, options.edges + 1)),
    ]
    return [
        ProcessPlan("broker", tuple(broker_argv), options.environment, "tcp", broker, stage=0),
        *(_process(options, service, common) for service in services),
    ]


@dataclass(frozen=True, slots=True)
class _Service:
    """One of our own processes: its module, its settings without their prefix, and the addresses others know."""

    kind: str
    module: str
    name: str
    stage: int
    settings: Mapping[str, str]
    http_port: int | None = None
    grpc_port: int | None = None

    @property
    def probe(self) -> Probe:
        """How it is asked whether it is ready: at the door that others need."""
        return "http" if self.kind in ("edge", "cache") else "grpc"


def _scheduler(options: SystemOptions, ports: Ports) -> _Service:
    patience = {"RECONCILE_PATIENCE_S": f"{2 * options.ack_wait_s:g}"}
    http, grpc = ports.scheduler_http, ports.scheduler
    return _Service("scheduler", "scheduler", "scheduler-1", 1, patience, http_port=http, grpc_port=grpc)


def _cache(options: SystemOptions, ports: Ports, secrets: Secrets) -> _Service:
    settings = {
        "DIR": str(options.data_dir / "cache"),
        "CAPACITY_BYTES": str(options.cache_capacity_bytes),
        "SIGNING_KEYS": _signing(secrets),
    }
    return _Service("cache", "cdn_cache", "cache-1", 1, settings, http_port=ports.cache)


def _worker(options: SystemOptions, ports: Ports, number: int, port: int) -> _Service:
    settings = {
        "SCHEDULER_ADDRESSES": f"{HOST}:{ports.scheduler}",
        "MODEL": options.cloud_model,
        "THREADS": str(options.threads),
        "ACK_WAIT_S": f"{options.ack_wait_s:g}",
    }
    return _Service("worker", "core_cloud", f"worker-{number}", 2, settings, grpc_port=port)


def _edge(options: SystemOptions, ports: Ports, secrets: Secrets, number: int) -> _Service:
    settings = {
        "SCHEDULER_ADDRESSES": f"{HOST}:{ports.scheduler}",
        "CACHE_URL": f"http://{HOST}:{ports.cache}",
        "DRAFT_MODEL": options.draft_model,
        "CLOUD_MODEL": options.cloud_model,
        "THREADS": str(options.threads),
        "SIGNING_KEYS": _signing(secrets),
        "SPOOL_DIR": str(options.data_dir / "spool" / f"edge-{number}"),
    }
    http, grpc = ports.edges_http[number - 1], ports.edges_grpc[number - 1]
    return _Service("edge", "edge_node", f"edge-{number}", 3, settings, http_port=http, grpc_port=grpc)


def _signing(secrets: Secrets) -> str:
    return f"up:{secrets.signing_key_hex}"


def _process(options: SystemOptions, service: _Service, common: Mapping[str, str]) -> ProcessPlan:
    """The process of a service: the environment it reads, and how it is found."""
    own = {**common, "NODE_ID": service.name, **service.settings}
    endpoint = {"kind": service.kind, "node_id": service.name}
    if service.http_port is not None:
        own["HTTP_PORT"] = str(service.http_port)
        endpoint["http_url"] = f"http://{HOST}:{service.http_port}"
    if service.grpc_port is not None:
        own["GRPC_PORT"] = str(service.grpc_port)
        endpoint["grpc_address"] = f"{HOST}:{service.grpc_port}"
    prefix = f"ADAPTIVEGEN_{service.kind.upper()}_"
    settings = {f"{prefix}{name}": value for name, value in own.items()}
    return ProcessPlan(
        name=service.name,
        argv=(options.python, "-m", service.module),
        env={**options.environment, "GRPC_ENABLE_FORK_SUPPORT": "0", **settings, **options.extra},
        probe=service.probe,
        address=f"{HOST}:{service.http_port if service.probe == 'http' else service.grpc_port}",
        stage=service.stage,
        endpoint=endpoint,
    )


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Pauses before a restart: doubling from `first_s` to `longest_s`, from the start again after a healthy while."""

    first_s: float = 0.5
    longest_s: float = 30.0
    healthy_s: float = 60.0

    def failures_after(self, failures: int, *, lived_s: float) -> int:
        """Consecutive failures, counting one that lived `lived_s`."""
        return 1 if lived_s >= self.healthy_s else failures + 1

    def pause_s(self, failures: int) -> float:
        """How long to wait before the restart after the `failures`-th failure in a row."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 16))
