"""What processes refuse to be started with."""

from pathlib import Path

import pytest

from adaptivegen.errors import SettingsInvalid
from adaptivegen.settings import describe, load
from cdn_cache.settings import CacheSettings
from core_cloud.settings import WorkerSettings
from edge_node.settings import EdgeSettings


def test_beyond_loopback_nothing_goes_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_AUTH", "loopback")
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_HOST", "0.0.0.0")
    with pytest.raises(SettingsInvalid, match="loopback"):
        load(WorkerSettings)


def test_authentication_is_the_default_and_asks_for_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_EDGE_NODE_ID", "e")
    with pytest.raises(SettingsInvalid, match="api_keys_file"):
        load(EdgeSettings)
    monkeypatch.setenv("ADAPTIVEGEN_CACHE_NODE_ID", "c")
    with pytest.raises(SettingsInvalid, match="signing_keys"):
        load(CacheSettings)
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", "w")
    with pytest.raises(SettingsInvalid, match="tls_client_ca"):
        load(WorkerSettings).require_mutual_tls()


@pytest.mark.parametrize("node_id", ["", "Edge", "a.b", "a/b", "x" * 64])
def test_a_bad_node_id_is_named(monkeypatch: pytest.MonkeyPatch, node_id: str) -> None:
    monkeypatch.setenv("ADAPTIVEGEN_WORKER_NODE_ID", node_id)
    with pytest.raises(SettingsInvalid) as caught:
        load(WorkerSettings)
    assert "ADAPTIVEGEN_WORKER_NODE_ID" in caught.value.message


@pytest.mark.parametrize("keys", ["nokid", "k:xyz", "k:00", "a b:" + "00" * 32])
def test_malformed_or_short_signing_keys_are_refused(keys: str) -> None:
    settings = CacheSettings(node_id="c", auth="loopback", signing_keys=keys)
    with pytest.raises(SettingsInvalid, match="sign"):
        settings.signing_key_map()


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
