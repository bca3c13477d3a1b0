"""A deployment as it is outside one machine: every service started alone, with TLS, API keys and signed URLs."""

import json
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme

from adaptivegen.rpc.pb import admin_pb2 as pb
from adaptivegen.rpc.pb import admin_pb2_grpc as stubs
from cli.system.ports import free_ports
from edge_node.auth import digest
from tests.e2e.system import finish
from tests.servers import nats_server

MODULES = ("scheduler", "cdn_cache", "core_cloud", "edge_node")
PEPPER = "a pepper for tests only"
KEYS = {"acme": "agk_acmekey1_" + "a" * 64, "rival": "agk_rivalkey_" + "b" * 64}


@dataclass
class Deployment:
    """Addresses and certificates of the running services."""

    edge: str
    cache: str
    scheduler: str
    scheduler_http: str
    ca: trustme.CA
    folder: Path

    def client(self, tenant: str | None) -> httpx.Client:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        headers = {"authorization": f"Bearer {KEYS[tenant]}"} if tenant else {}
        return httpx.Client(base_url=self.edge, verify=context, headers=headers, timeout=30, follow_redirects=True)


def certificates(folder: Path) -> trustme.CA:
    """A CA, for each node a certificate that it uses as server and as client, and some of people."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for module in MODULES:
        node = ca.issue_cert("localhost", "127.0.0.1", common_name=node_id(module))
        node.private_key_pem.write_to_path(folder / f"{module}-key.pem")
        node.cert_chain_pems[0].write_to_path(folder / f"{module}.pem")
    for role in ("operator", "admin"):
        person = ca.issue_cert(f"{role}.example")
        person.private_key_pem.write_to_path(folder / f"{role}-key.pem")
        person.cert_chain_pems[0].write_to_path(folder / f"{role}.pem")
    return ca


def node_id(module: str) -> str:
    return f"{module.replace('_', '-')}-1"


def key_file(folder: Path) -> Path:
    listed = [
        {"id": key.split("_")[1], "tenant": tenant, "digest": digest(key, pepper=PEPPER)}
        for tenant, key in KEYS.items()
    ]
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": listed}))
    return path


def role_file(folder: Path) -> Path:
    path = folder / "roles.json"
    path.write_text(json.dumps({"roles": {"operator.example": "operator", "admin.example": "admin"}}))
    return path


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("secure")
    ca = certificates(folder)
    with nats_server(tmp_path_factory.mktemp("secure-nats")) as broker:
        edge, cache, edge_grpc, scheduler, scheduler_http, worker = free_ports(6)
        common = {"HOST": "127.0.0.1", "NATS_URLS": broker.url, "STORE_URL": f"file://{folder / 'store'}"}
        signing = {"SIGNING_KEYS": f"k1:{secrets.token_hex(32)}"}
        services: dict[tuple[str, str], dict[str, object]] = {
            ("scheduler", "SCHEDULER"): {
                "GRPC_PORT": scheduler,
                "HTTP_PORT": scheduler_http,
                "ROLES_FILE": role_file(folder),
            },
            ("cdn_cache", "CACHE"): {"HTTP_PORT": cache, "DIR": folder / "cache", **signing},
            ("core_cloud", "WORKER"): {"GRPC_PORT": worker},
            ("edge_node", "EDGE"): {
                "HTTP_PORT": edge,
                "GRPC_PORT": edge_grpc,
                "ADVERTISE_HOST": "localhost",
                "CACHE_URL": f"https://localhost:{cache}",
                "PLACE_BUDGET_S": 2,  # who decides is looked at, however busy this machine is
                "API_KEYS_FILE": key_file(folder),
                "API_KEY_PEPPER": PEPPER,
                **signing,
            },
        }
        running = [start(module, kind, {**common, **own}, folder) for (module, kind), own in services.items()]
        found = Deployment(
            f"https://localhost:{edge}",
            f"https://localhost:{cache}",
            f"localhost:{scheduler}",
            f"https://localhost:{scheduler_http}",
            ca,
            folder,
        )
        try:
            wait_ready(found)
            yield found
        finally:
            for process in running:
                process.terminate()
            assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]


def start(module: str, kind: str, settings: dict[str, object], folder: Path) -> subprocess.Popen[bytes]:
    env = {f"ADAPTIVEGEN_{kind}_{name}": str(value) for name, value in settings.items()}
    own = {"CERT": f"{module}.pem", "KEY": f"{module}-key.pem", "CLIENT_CA": "ca.pem"}
    env |= {f"ADAPTIVEGEN_{kind}_TLS_{name}": str(folder / path) for name, path in own.items()}
    env[f"ADAPTIVEGEN_{kind}_NODE_ID"] = node_id(module)
    with open(folder / f"{module}.log", "wb") as log:
        return subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **env}, stdout=log, stderr=log)


def wait_ready(found: Deployment) -> None:
    until = time.monotonic() + 90
    with found.client("acme") as client:
        while time.monotonic() < until:
            try:
                ready = [client.get(f"{url}/readyz").status_code == 200 for url in (found.edge, found.cache)]
                log = (found.folder / "edge_node.log").read_text()
                if all(ready) and "cache_reachable" in log and "nodes_found" in log:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
    logs = "\n".join(path.read_text()[-2000:] for path in found.folder.glob("*.log"))
    raise AssertionError(f"not ready:\n{logs}")


def test_the_path_works_with_keys_and_certificates(deployment: Deployment) -> None:
    with deployment.client("acme") as client:
        answer = client.post("/v1/videos", json={"prompt": "a red circle moves left", "seed": 1})
        assert answer.status_code == 202, answer.text
        done = finish(client, answer.json()["id"])
        assert (done["status"], done["plan"], done["notes"]) == ("completed", "refine", [])
        content = client.get(f"/v1/videos/{done['id']}/content")
        assert content.status_code == 200
        assert content.headers["cache-status"]
        spec = json.loads((deployment.folder / f"store/jobs/acme/{done['id']}/spec").read_text())
        assert spec["decision"]["decided_by"] == "scheduler-1"


def test_without_a_key_or_with_a_wrong_one_nothing_is_told(deployment: Deployment) -> None:
    with deployment.client(None) as client:
        for headers in ({}, {"authorization": "Bearer agk_acmekey1_" + "c" * 64}, {"authorization": "Basic x"}):
            assert client.get("/v1/videos", headers=headers).status_code == 401


def test_a_tenant_sees_neither_anothers_videos_nor_their_cached_repeats(deployment: Deployment) -> None:
    body = {"prompt": "a red circle moves left", "seed": 1, "plan": "cloud", "steps": 2}
    with deployment.client("acme") as acme, deployment.client("rival") as rival:
        mine = finish(acme, acme.post("/v1/videos", json=body).json()["id"])
        for tail in ("", "/content", "/events"):
            assert rival.get(f"/v1/videos/{mine['id']}{tail}").status_code == 404
        assert rival.get("/v1/videos").json()["data"] == []
        assert rival.post("/v1/videos", json=body).json()["cached"] is False
        location = acme.get(f"/v1/videos/{mine['id']}/content", follow_redirects=False).headers["location"]
        assert acme.get(location, headers={"authorization": ""}).status_code == 200
        assert acme.get(location.replace("tenant=acme", "tenant=rival")).status_code == 403
        assert acme.get(location.partition("?")[0]).status_code == 401


def scheduler_http(deployment: Deployment, cert: str = "", key: str = "") -> httpx.Client:
    """A client of the scheduler's HTTP port that shows a certificate, or none."""
    context = ssl.create_default_context()
    deployment.ca.configure_trust(context)
    if cert:
        context.load_cert_chain(deployment.folder / cert, deployment.folder / key)
    return httpx.Client(base_url=deployment.scheduler_http, verify=context, timeout=10)


def test_the_schedulers_metrics_are_for_clients_with_a_certificate_only(deployment: Deployment) -> None:
    with scheduler_http(deployment) as stranger, pytest.raises(httpx.TransportError):
        stranger.get("/metrics")
    with scheduler_http(deployment, "edge_node.pem", "edge_node-key.pem") as known:
        assert 'adaptivegen_scheduler_nodes{kind="worker"' in known.get("/metrics").text


def test_the_scheduler_answers_only_nodes_with_a_certificate(deployment: Deployment) -> None:
    ca = deployment.ca.cert_pem.bytes()
    with grpc.secure_channel(deployment.scheduler, grpc.ssl_channel_credentials(ca)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stubs.AdminServiceStub(channel).ListNodes(pb.ListNodesRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    own = [(deployment.folder / name).read_bytes() for name in ("edge_node-key.pem", "edge_node.pem")]
    with grpc.secure_channel(deployment.scheduler, grpc.ssl_channel_credentials(ca, *own)) as channel:
        reply = stubs.AdminServiceStub(channel).ListNodes(pb.ListNodesRequest(), timeout=5)
        assert {node.kind for node in reply.nodes} == {"edge", "worker"}


def test_a_nodes_certificate_changes_nothing_and_operators_do_what_their_role_allows(deployment: Deployment) -> None:
    policy = pb.SetPolicyRequest(values={"cost_render": 0.005}, reason="as it was")
    scale = pb.ScalePoolRequest(pool="default")
    with as_operator(deployment, "edge_node-key.pem", "edge_node.pem") as node:
        with pytest.raises(grpc.RpcError, match="has the role viewer") as caught:
            node.SetPolicy(policy, timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError, match="has the role viewer"):
            node.ScalePool(scale, timeout=5)
    with as_operator(deployment, "operator-key.pem", "operator.pem") as operator:
        with pytest.raises(grpc.RpcError, match="this needs admin"):
            operator.SetPolicy(policy, timeout=5)
        with pytest.raises(grpc.RpcError, match="also where it is 0"):
            operator.ScalePool(scale, timeout=5)
        operator.DrainNode(pb.DrainNodeRequest(node_id="core-cloud-1", undo=True), timeout=5)
    with as_operator(deployment, "admin-key.pem", "admin.pem") as admin:
        assert "admin.example" in admin.SetPolicy(policy, timeout=5).change.by
        (newest, before) = admin.ListAudit(pb.ListAuditRequest(), timeout=5).entries
        assert (newest.action, newest.by, newest.outcome) == ("set-policy", "admin.example", "done")
        assert (before.action, before.by, before.target) == ("put-back", "operator.example", "core-cloud-1")


@contextmanager
def as_operator(deployment: Deployment, key: str, cert: str) -> Iterator[stubs.AdminServiceStub]:
    own = [(deployment.folder / name).read_bytes() for name in (key, cert)]
    credentials = grpc.ssl_channel_credentials(deployment.ca.cert_pem.bytes(), *own)
    with grpc.secure_channel(deployment.scheduler, credentials) as channel:
        yield stubs.AdminServiceStub(channel)


def test_the_schedulers_admin_api_over_http_knows_people_by_their_certificates(deployment: Deployment) -> None:
    order = {"values": {"cost_render": 0.005}}
    statuses = []
    for who in ("", "operator", "admin"):
        shown = (f"{who}.pem", f"{who}-key.pem") if who else ("edge_node.pem", "edge_node-key.pem")
        with scheduler_http(deployment, *shown) as client:
            assert client.get("/admin").status_code == client.get("/v1/admin/nodes").status_code == 200
            orders = {"nodes/nobody/drain": {}, "policy": order}
            statuses.append([client.post(f"/v1/admin/{path}", json=body).status_code for path, body in orders.items()])
    assert statuses == [[403, 403], [404, 403], [404, 200]]
