"""What nodes tell a scheduler over mutual TLS: each speaks for itself, as its certificate says."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from adaptivegen.errors import PermissionDenied
from adaptivegen.placement import Attempt, Outcome, Ticket
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.placement_client import PlacementClient
from tests.people import People
from tests.schedulers import CLOCK, Running, scheduler, video_id
from tests.servers import NatsServer
from tests.unit.scheduler.builders import query

Call = Callable[[PlacementClient, str], Awaitable[object]]


def ticket(worker_id: str) -> Ticket:
    return Ticket(worker_id=worker_id, pool="default", model="pocket-cloud", tenant="local", job_id=video_id())


def ended(edge_id: str) -> Outcome:
    return Outcome(job_id=video_id(), edge_id=edge_id, worker_id="worker-1", plan="refine", status="completed")


CALLS: dict[str, Call] = {
    "edge_id": lambda placer, node: placer.place(query(job_id=video_id(), edge_id=node)),
    "edge_id of an outcome": lambda placer, node: placer.report(ended(node)),
    "reporter": lambda placer, node: placer.report_attempt(Attempt(node_id="edge-3", reporter=node, ok=False)),
    "worker_id": lambda placer, node: placer.next_job(ticket(node)),
}


async def answers(running: Running, shown: ClientTls, node: str) -> dict[str, str]:
    """What comes of each call that speaks for a node: nothing, or what was refused."""
    placer = PlacementClient([running.address], clock=CLOCK, budget_s=5.0, tls=shown)
    told = {}
    for what, call in CALLS.items():
        try:
            await call(placer, node)
            told[what] = ""
        except PermissionDenied as exc:
            told[what] = exc.param or "?"
    await placer.close()
    return told


@pytest.fixture
def people(tmp_path: Path) -> People:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return People(ca, tmp_path)


async def test_a_certificate_speaks_for_the_nodes_it_names_or_is_granted_and_no_other(
    own_nats: NatsServer, tmp_path: Path, people: People
) -> None:
    own = people.issue("scheduler", "localhost", "127.0.0.1")
    (tmp_path / "roles.json").write_text(json.dumps({"roles": {}, "nodes": {"fleet.example": ["edge-2"]}}))
    secured: dict[str, Any] = {
        "auth": "required",
        "tls_cert": own.cert,
        "tls_key": own.key,
        "tls_client_ca": tmp_path / "ca.pem",
    }
    async with scheduler(own_nats.url, tmp_path, tls=own, roles_file=tmp_path / "roles.json", **secured) as running:
        edge_1 = people.issue("edge-1", "edge-1.example", common_name="edge-1")
        fleet = people.issue("fleet", "fleet.example")
        refused = {what: what.partition(" ")[0] for what in CALLS}
        spoken = dict.fromkeys(CALLS, "")
        assert await answers(running, edge_1, "edge-1") == spoken
        assert await answers(running, edge_1, "edge-2") == refused
        assert await answers(running, fleet, "edge-2") == spoken
        assert await answers(running, fleet, "edge-1") == refused
        assert await answers(running, own, "edge-1") == refused


async def test_without_certificates_whoever_reaches_a_scheduler_speaks_for_any_node(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with scheduler(own_nats.url, tmp_path) as running:
        for what, call in CALLS.items():
            for node in ("edge-1", "edge-2"):
                await call(running.placer, node), what
