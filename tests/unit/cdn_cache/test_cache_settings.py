"""Settings a cache refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptivegen.errors import SettingsInvalid
from adaptivegen.settings import describe, load
from cdn_cache.settings import CacheSettings

KEY = "k1:" + "ab" * 32


def settings(monkeypatch: pytest.MonkeyPatch, **values: str) -> CacheSettings:
    for name, value in {"NODE_ID": "cache-1", **values}.items():
        monkeypatch.setenv(f"ADAPTIVEGEN_CACHE_{name}", value)
    return load(CacheSettings)


def test_reads_are_signed_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, SIGNING_KEYS=KEY).signing_key_map() == {"k1": b"\xab" * 32}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"AUTH": "loopback", "HOST": "0.0.0.0"},
        {"AUTH": "none"},
        {"SIGNING_KEYS": KEY, "CAPACITY_BYTES": "0"},
        {"SIGNING_KEYS": KEY, "HTTP_PORT": "70000"},
        {"SIGNING_KEYS": KEY, "NODE_ID": "Cache 1"},
        {"SIGNING_KEYS": KEY, "TLS_CERT": "/cert.pem"},
        {"SIGNING_KEYS": KEY, "MAX_CONNECTIONS": "0"},
        {"AUTH": "loopback", "HOST": "0.0.0.0", "TLS_TERMINATED_UPSTREAM": "true"},
    ],
)
def test_unsafe_or_senseless_settings_are_refused(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid):
        settings(monkeypatch, **values)


def test_keys_do_not_reach_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "abab" not in str(describe(settings(monkeypatch, SIGNING_KEYS=KEY)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "cache.example"])
def test_signed_urls_do_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_CACHE_TLS_CERT"):
        settings(monkeypatch, SIGNING_KEYS=KEY, HOST=host)
    assert settings(monkeypatch, SIGNING_KEYS=KEY, HOST=host, TLS_TERMINATED_UPSTREAM="true").tls_cert is None
    pem = tmp_path / "cert.pem"
    pem.write_text("")
    own = settings(monkeypatch, TLS_TERMINATED_UPSTREAM="false", TLS_CERT=str(pem), TLS_KEY=str(pem))
    assert own.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_a_cache_needs_no_tls(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert settings(monkeypatch, SIGNING_KEYS=KEY, HOST=host).tls_cert is None
