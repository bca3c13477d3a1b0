"""Which nats-server is run, and with what configuration."""

import hashlib
from pathlib import Path

import pytest

from adaptivegen.errors import SettingsInvalid
from cli.system.broker import configuration, find_binary


def test_the_packaged_binary_has_the_pinned_digest() -> None:
    assert find_binary(None, "").name == "nats-server"


def test_another_binary_is_taken_with_its_own_digest_and_refused_with_another(tmp_path: Path) -> None:
    binary = tmp_path / "my-nats"
    binary.write_bytes(b"binary")
    digest = hashlib.sha256(b"binary").hexdigest()
    assert find_binary(binary, digest) == binary
    assert find_binary(binary, "") == binary
    with pytest.raises(SettingsInvalid, match=f"sha256 {digest}, expected {'0' * 64}"):
        find_binary(binary, "0" * 64)


def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"no nats-server at .*nothing"):
        find_binary(tmp_path / "nothing", "")


def test_the_broker_listens_on_loopback_syncs_every_write_and_wants_a_password() -> None:
    text = configuration(port=4222, store_dir=Path("/d/broker"), password="secret")
    assert 'listen: "127.0.0.1:4222"' in text
    assert "sync_interval: always" in text
    assert 'password: "secret"' in text
    assert 'store_dir: "/d/broker"' in text
    assert "http" not in text


def test_a_path_cannot_add_to_the_configuration() -> None:
    text = configuration(port=4222, store_dir=Path('/d"\nno_auth_user: x'), password="p")
    assert [line for line in text.splitlines() if line.startswith("no_auth_user")] == []
