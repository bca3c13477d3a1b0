"""Settings a cache refuses."""

from __future__ import annotations

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
    ],
)
def test_unsafe_or_senseless_settings_are_refused(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid):
        settings(monkeypatch, **values)


def test_keys_do_not_reach_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "abab" not in str(describe(settings(monkeypatch, SIGNING_KEYS=KEY)))
