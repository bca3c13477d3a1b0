"""Which processes make a system, with which settings and ports; when one is started again."""

import sys
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.drain import watchdog_s
from adaptivegen.errors import InvalidRequest
from cli.system.layout import (
    Ports,
    ProcessPlan,
    RestartPolicy,
    Secrets,
    SystemOptions,
    assign_ports,
    plan_system,
    port_count,
)
from scheduler.api.pages import PAGE

SECRETS = Secrets(broker_password="pw", signing_key_hex="ab" * 32)


def options(**changes: Any) -> SystemOptions:
    return SystemOptions(data_dir=Path("/d"), python=sys.executable, environment={"PATH": "/bin"}, **changes)


def plans(**changes: Any) -> dict[str, ProcessPlan]:
    wanted = options(**changes)
    ports = assign_ports(wanted, list(range(1000, 1000 + port_count(wanted))))
    return {plan.name: plan for plan in plan_system(wanted, ports, SECRETS, ["nats-server", "-c", "/d/nats.conf"])}


def test_processes_start_in_the_order_of_their_needs() -> None:
    made = plans(edges=2, workers=2)
    assert list(made) == ["broker", "scheduler-1", "cache-1", "worker-1", "worker-2", "edge-1", "edge-2"]
    assert [made[name].stage for name in made] == sorted(made[name].stage for name in made)
    assert made["broker"].stage < made["scheduler-1"].stage < made["worker-1"].stage < made["edge-1"].stage


@pytest.mark.parametrize(("edges", "workers"), [(1, 1), (3, 2), (32, 32)])
def test_every_listener_has_a_port_of_its_own(edges: int, workers: int) -> None:
    made = plans(edges=edges, workers=workers)
    given = [
        value
        for plan in made.values()
        for key, value in plan.env.items()
        if key.endswith("_HTTP_PORT") or key.endswith("_GRPC_PORT")
    ]
    assert len(given) == len(set(given)) == port_count(options(edges=edges, workers=workers)) - 1  # the broker's
    assert made["broker"].address.rpartition(":")[2] not in given


def test_the_port_asked_for_is_the_first_edges() -> None:
    ports = assign_ports(options(edges=2, port=8080), list(range(1000, 1009)))
    assert ports == Ports(1000, 1001, 1002, 1003, (1004,), (8080, 1006), (1007, 1008))


def test_the_schedulers_dashboard_is_where_it_serves_one() -> None:
    made = plans()
    port = made["scheduler-1"].env["ADAPTIVEGEN_SCHEDULER_HTTP_PORT"]
    pages = {name: plan.dashboard for name, plan in made.items() if plan.dashboard}
    assert pages == {"scheduler-1": f"http://127.0.0.1:{port}{PAGE}"}


def test_edges_know_scheduler_cache_and_the_key_the_cache_checks() -> None:
    made = plans()
    edge, cache = made["edge-1"].env, made["cache-1"].env
    assert edge["ADAPTIVEGEN_EDGE_SCHEDULER_ADDRESSES"] == made["scheduler-1"].address
    assert edge["ADAPTIVEGEN_EDGE_CACHE_URL"] == made["cache-1"].url
    assert edge["ADAPTIVEGEN_EDGE_SIGNING_KEYS"] == cache["ADAPTIVEGEN_CACHE_SIGNING_KEYS"] == f"up:{'ab' * 32}"


def test_every_edge_has_a_spool_of_its_own() -> None:
    made = plans(edges=2)
    spools = [made[name].env["ADAPTIVEGEN_EDGE_SPOOL_DIR"] for name in ("edge-1", "edge-2")]
    assert spools == ["/d/spool/edge-1", "/d/spool/edge-2"]


def test_all_services_share_broker_and_store_and_keep_to_loopback() -> None:
    made = plans(edges=2)
    for name, plan in made.items():
        assert plan.address.startswith("127.0.0.1:")
        if name == "broker":
            continue
        held = {key.split("_", 2)[2]: value for key, value in plan.env.items() if key.startswith("ADAPTIVEGEN_")}
        assert held["NATS_URLS"] == f"nats://adaptivegen:pw@{made['broker'].address}"
        assert held["STORE_URL"] == "file:///d/store"
        assert (held["HOST"], held["AUTH"], held["NODE_ID"]) == ("127.0.0.1", "loopback", name)
        assert plan.env["PATH"] == "/bin"


def test_models_leases_and_extra_settings_reach_the_processes() -> None:
    made = plans(
        draft_model="d", cloud_model="c", ack_wait_s=4.5, threads=3, extra={"ADAPTIVEGEN_EDGE_LOG_LEVEL": "debug"}
    )
    edge, worker = made["edge-1"].env, made["worker-1"].env
    assert (edge["ADAPTIVEGEN_EDGE_DRAFT_MODEL"], edge["ADAPTIVEGEN_EDGE_CLOUD_MODEL"]) == ("d", "c")
    assert (worker["ADAPTIVEGEN_WORKER_MODEL"], worker["ADAPTIVEGEN_WORKER_THREADS"]) == ("c", "3")
    assert worker["ADAPTIVEGEN_WORKER_ACK_WAIT_S"] == "4.5"
    assert edge["ADAPTIVEGEN_EDGE_LOG_LEVEL"] == "debug"


def test_every_process_has_the_grace_from_which_the_supervisors_patience_follows() -> None:
    wanted = options(drain_grace_s=42.5)
    given = {
        value
        for name, plan in plans(drain_grace_s=42.5).items()
        for key, value in plan.env.items()
        if key.endswith("_DRAIN_GRACE_S")
    }
    assert given == {"42.5"}
    assert wanted.drain_grace_s < watchdog_s(wanted.drain_grace_s) < wanted.kill_after_s


@pytest.mark.parametrize("grace_s", [0.0, -1.0, 601.0, float("nan")])
def test_a_grace_no_process_would_take_is_refused(grace_s: float) -> None:
    with pytest.raises(InvalidRequest, match="drain_grace_s"):
        options(drain_grace_s=grace_s).check()


def test_no_secret_stands_in_an_argument_list() -> None:
    for plan in plans().values():
        assert not any("pw" in argument or "abab" in argument for argument in plan.argv)


@pytest.mark.parametrize(
    ("field", "value"), [("edges", 0), ("edges", 33), ("workers", 0), ("workers", -1), ("port", -1), ("port", 65536)]
)
def test_absurd_sizes_are_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{field} is {value}"):
        options(**{field: value}).check()


def test_pauses_double_up_to_the_longest() -> None:
    policy = RestartPolicy()
    assert [policy.pause_s(failures) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert policy.pause_s(10_000) == 30


def test_a_healthy_life_makes_the_next_failure_the_first() -> None:
    policy = RestartPolicy()
    assert policy.failures_after(5, lived_s=59.9) == 6
    assert policy.failures_after(5, lived_s=60.0) == 1
    assert policy.failures_after(0, lived_s=0.0) == 1
