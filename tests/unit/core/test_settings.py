"""What processes refuse to be started with."""

import sys
from pathlib import Path

import pytest

from adaptivegen.discovery.consul_service import ConsulOptions
from adaptivegen.errors import SettingsInvalid
from adaptivegen.settings import ServiceSettings, describe, load
from cdn_cache.settings import CacheSettings
from core_cloud.settings import WorkerSettings
from edge_node.settings import EdgeSettings
from scheduler.settings import SchedulerSettings


def test_beyond_loopback_nothing_goes_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_AUTH", "loopback")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_HOST", "0.0.0.0")
    with pytest.raises(SettingsInvalid, match="loopback"):
        load(WorkerSettings)


def test_authentication_is_the_default_and_asks_for_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_NODE_ID", "e")
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_EDGE_API_KEYS_FILE is not set"):
        load(EdgeSettings)
    monkeypatch.setenv("ADAPTIVEGEN_CACHE_NODE_ID", "c")
    with pytest.raises(SettingsInvalid, match="signing_keys"):
        load(CacheSettings)
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    with pytest.raises(SettingsInvalid, match=r"ADAPTIVEGEN_WORKER_TLS_CERT is not set: .*tls_client_ca"):
        load(WorkerSettings).require_mutual_tls()


@pytest.mark.parametrize("node_id", ["", "Edge", "a.b", "a/b", "x" * 64])
def test_a_bad_node_id_is_named(monkeypatch: pytest.MonkeyPatch, node_id: str) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", node_id)
    with pytest.raises(SettingsInvalid) as caught:
        load(WorkerSettings)
    assert "ADAPTIVEGEN_WORKER_NODE_ID" in caught.value.message


@pytest.mark.parametrize("keys", ["nokid", "k:xyz", "k:0011", "a b:" + "00" * 32])
def test_malformed_or_short_signing_keys_are_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_CACHE_NODE_ID", "c")
    monkeypatch.setenv("ADAPTIVEGEN_CACHE_SIGNING_KEYS", keys)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_CACHE_SIGNING_KEYS") as caught:
        load(CacheSettings)
    assert keys not in caught.value.message


KINDS: dict[str, type[ServiceSettings]] = {
    "EDGE": EdgeSettings,
    "WORKER": WorkerSettings,
    "SCHEDULER": SchedulerSettings,
    "CACHE": CacheSettings,
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("EDGE", "HTTP_PORT", "eighty"),
        ("EDGE", "GRPC_PORT", "65536"),
        ("EDGE", "PLACE_BUDGET_S", "nan"),
        ("EDGE", "SCHEDULER_ADDRESSES", "one:1,two"),
        ("EDGE", "CACHE_URL", "cache:80"),
        ("EDGE", "MEDIA_URL_TTL_S", "inf"),
        ("EDGE", "THREADS", "0"),
        ("EDGE", "POOL", "a.b"),
        ("EDGE", "DISCOVERY", "consul://127.0.0.1"),
        ("EDGE", "DISCOVERY", "consul:127.0.0.1:8500"),
        ("CACHE", "CONSUL_CHECK", "http"),
        ("WORKER", "CONSUL_PREFIX", "a.b"),
        ("SCHEDULER", "CONSUL_CA", "/nowhere/ca.pem"),
        ("SCHEDULER", "CONSUL_CA", __file__),
        ("EDGE", "API_KEYS_FILE", "/nowhere/keys.json"),
        ("EDGE", "INSECURE_PEERS", "perhaps"),
        ("WORKER", "HOST", "not a host"),
        ("WORKER", "ADVERTISE_HOST", "-x-"),
        ("WORKER", "NATS_URLS", "http://broker:4222"),
        ("WORKER", "NATS_CA", "/nowhere/ca.pem"),
        ("WORKER", "STORE_URL", "ftp://store"),
        ("WORKER", "STORE_URL", "/var/lib"),
        ("WORKER", "STORE_URL", "file://relative"),
        ("WORKER", "BACKEND", "abacus"),
        ("WORKER", "STEP_TIMEOUT_S", "inf"),
        ("WORKER", "DRAIN_GRACE_S", "0"),
        ("SCHEDULER", "DISCOVERY", "static:"),
        ("SCHEDULER", "COST_RENDER", "-inf"),
        ("SCHEDULER", "TLS_CERT", "/nowhere/cert.pem"),
        ("SCHEDULER", "LOG_LEVEL", "loud"),
        ("SCHEDULER", "FINAL_BEST_S", "500.0"),
        ("CACHE", "CAPACITY_BYTES", "-1"),
        ("CACHE", "AUTH", "none"),
        ("CACHE", "NATS_URLS", "nats://a b"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_value_and_limit(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_NODE_ID", "n")
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_AUTH", "loopback")
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_{name}", value)
    with pytest.raises(SettingsInvalid) as caught:
        load(KINDS[kind])
    said = caught.value.message
    assert said.startswith(f"ADAPTIVEGEN_{kind}_{name} is {value!r}; allowed: ")
    assert len(said.partition("allowed: ")[2]) > 3
    assert "\n" not in said and said.count("allowed") == 1
    assert caught.value.param == f"ADAPTIVEGEN_{kind}_{name}"


def test_what_is_missing_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, cls in KINDS.items():
        with pytest.raises(SettingsInvalid, match=f"ADAPTIVEGEN_{kind}_NODE_ID is not set"):
            load(cls)
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_TLS_CERT", __file__)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_WORKER_TLS_KEY is not set"):
        load(WorkerSettings)


def test_credentials_in_a_refused_url_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NATS_URLS", "nats://user:hunter2@host:port")
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_WORKER_NATS_URLS is 'nats://host:port'") as caught:
        load(WorkerSettings)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("schedulers", ["", "10.0.0.1:7000", "127.0.0.1:7000,scheduler:7000"])
def test_an_edge_with_tls_that_could_not_reach_its_schedulers_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, schedulers: str
) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("PEM")
    values = {
        "NODE_ID": "e",
        "API_KEYS_FILE": str(pem),
        "API_KEY_PEPPER": "p" * 16,
        "TLS_CERT": str(pem),
        "TLS_KEY": str(pem),
        "SCHEDULER_ADDRESSES": schedulers,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"ADAPTIVEGEN_EDGE_{name}", value)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_EDGE_TLS_CLIENT_CA is not set"):
        load(EdgeSettings)
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_INSECURE_PEERS", "true")
    assert load(EdgeSettings).clear_to_strangers
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_INSECURE_PEERS", "false")
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_TLS_CLIENT_CA", str(pem))
    assert not load(EdgeSettings).clear_to_strangers
    monkeypatch.delenv("ADAPTIVEGEN_EDGE_TLS_CLIENT_CA")
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_SCHEDULER_ADDRESSES", "127.0.0.1:7000,[::1]:7000,localhost:1")
    assert not load(EdgeSettings).clear_to_strangers


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = CacheSettings(
        node_id="c",
        auth="loopback",
        nats_urls="nats://user:hunter2@127.0.0.1:1,nats://user:hunter2@127.0.0.1:2",
        signing_keys="k:" + "ab" * 32,
        dir=tmp_path,
    )
    shown = str(describe(settings))
    assert "hunter2" not in shown
    assert "abab" not in shown
    assert "127.0.0.1:2" in shown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("discovery", ["nats", "static:/nodes.json", "consul", "consul:http://127.0.0.1:8500"])
def test_every_service_takes_every_source_of_nodes(monkeypatch: pytest.MonkeyPatch, kind: str, discovery: str) -> None:
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_NODE_ID", "n")
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_AUTH", "loopback")
    monkeypatch.setenv(f"ADAPTIVEGEN_{kind}_DISCOVERY", discovery)
    assert load(KINDS[kind]).discovery == discovery


def test_consul_without_its_library_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consul", None)
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_DISCOVERY", "consul")
    with pytest.raises(SettingsInvalid, match=r"WORKER_DISCOVERY is 'consul'; .*pip install 'adaptivegen\[consul\]'"):
        load(WorkerSettings)


def test_what_is_set_for_consul_is_handed_on_and_its_token_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("PEM")
    values = {
        "NODE_ID": "w",
        "DISCOVERY": "consul:https://consul.example:8501",
        "CONSUL_TOKEN": "s3cr3t",
        "CONSUL_CA": str(pem),
        "CONSUL_CHECK": "grpc",
        "CONSUL_PREFIX": "staging",
        "TLS_CERT": str(pem),
        "TLS_KEY": str(pem),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"ADAPTIVEGEN_WORKER_{name}", value)
    settings = load(WorkerSettings)
    assert settings.consul() == ConsulOptions(token="s3cr3t", ca=pem, check="grpc", grpc_tls=True, prefix="staging")
    assert "s3cr3t" not in str(describe(settings)) and "s3cr3t" not in repr(settings.consul())


@pytest.mark.parametrize("token", ["two words", "line\n", "tökén"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_CONSUL_TOKEN", token)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_WORKER_CONSUL_TOKEN is '\\(secret\\)'") as caught:
        load(WorkerSettings)
    assert token not in caught.value.message
