"""Which processes make a system on one machine, with their settings, ports and order. Pure.

Also when a process that died is started again. The settings' names are those of the services; each process listens on
loopback only and goes without keys (`auth=loopback`), which nothing but this layout does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adaptivegen.errors import InvalidRequest

HOST = "127.0.0.1"
MAX_NODES = 32
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


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of all processes, chosen by the caller."""

    broker: int
    scheduler: int
    cache: int
    workers: tuple[int, ...]
    edges_http: tuple[int, ...]
    edges_grpc: tuple[int, ...]


def port_count(options: SystemOptions) -> int:
    """How many ports the system needs."""
    return 3 + options.workers + 2 * options.edges


def assign_ports(options: SystemOptions, free: list[int]) -> Ports:
    """Give each process its port; the first edge's HTTP port is the one asked for."""
    workers, edges = options.workers, options.edges
    http = free[3 + workers : 3 + workers + edges]
    if options.port:
        http[0] = options.port
    return Ports(
        broker=free[0],
        scheduler=free[1],
        cache=free[2],
        workers=tuple(free[3 : 3 + workers]),
        edges_http=tuple(http),
        edges_grpc=tuple(free[3 + workers + edges : 3 + workers + 2 * edges]),
    )


def plan_system(options: SystemOptions, ports: Ports, secrets: Secrets, broker_argv: list[str]) -> list[ProcessPlan]:
    """All processes in the order of their start."""
    broker = f"{HOST}:{ports.broker}"
    common = {
        "HOST": HOST,
        "NATS_URLS": f"nats://adaptivegen:{secrets.broker_password}@{broker}",
        "STORE_URL": f"file://{options.data_dir / 'store'}",
        "AUTH": "loopback",
    }
    keys = {"SIGNING_KEYS": f"up:{secrets.signing_key_hex}"}
    timing = {"ACK_WAIT_S": f"{options.ack_wait_s:g}"}

    def service(
        kind: str,
        module: str,
        name: str,
        probe: Probe,
        port: int,
        stage: int,
        settings: dict[str, str],
        **endpoint: str,
    ) -> ProcessPlan:
        prefix = f"ADAPTIVEGEN_{kind.upper()}_"
        own = {f"{prefix}{key}": value for key, value in {**common, "NODE_ID": name, **settings}.items()}
        return ProcessPlan(
            name=name,
            argv=(options.python, "-m", module),
            env={**options.environment, "GRPC_ENABLE_FORK_SUPPORT": "0", **own, **options.extra},
            probe=probe,
            address=f"{HOST}:{port}",
            stage=stage,
            endpoint={"kind": kind, "node_id": name, **endpoint},
        )

    scheduler, cache = f"{HOST}:{ports.scheduler}", f"http://{HOST}:{ports.cache}"
    plans = [
        ProcessPlan("broker", tuple(broker_argv), options.environment, "tcp", broker, stage=0),
        service(
            "scheduler",
            "scheduler",
            "scheduler-1",
            "grpc",
            ports.scheduler,
            1,
            {"GRPC_PORT": str(ports.scheduler), "RECONCILE_PATIENCE_S": f"{2 * options.ack_wait_s:g}", **timing},
            grpc_address=scheduler,
        ),
        service(
            "cache",
            "cdn_cache",
            "cache-1",
            "http",
            ports.cache,
            1,
            {
                "HTTP_PORT": str(ports.cache),
                "DIR": str(options.data_dir / "cache"),
                "CAPACITY_BYTES": str(options.cache_capacity_bytes),
                **keys,
            },
            http_url=cache,
        ),
    ]
    for number, port in enumerate(ports.workers, start=1):
        settings = {"GRPC_PORT": str(port), "MODEL": options.cloud_model, "THREADS": str(options.threads), **timing}
        address = f"{HOST}:{port}"
        plans.append(
            service("worker", "core_cloud", f"worker-{number}", "grpc", port, 2, settings, grpc_address=address)
        )
    for number, (http, grpc) in enumerate(zip(ports.edges_http, ports.edges_grpc, strict=True), start=1):
        settings = {
            "HTTP_PORT": str(http),
            "GRPC_PORT": str(grpc),
            "SCHEDULER_ADDRESSES": scheduler,
            "CACHE_URL": cache,
            "DRAFT_MODEL": options.draft_model,
            "CLOUD_MODEL": options.cloud_model,
            "THREADS": str(options.threads),
            **keys,
            **timing,
        }
        url, address = f"http://{HOST}:{http}", f"{HOST}:{grpc}"
        name = f"edge-{number}"
        plans.append(service("edge", "edge_node", name, "http", http, 3, settings, http_url=url, grpc_address=address))
    return plans


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
