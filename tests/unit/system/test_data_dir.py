"""The data directory: lock, secrets, endpoints."""

import json
import os
import stat
from pathlib import Path

import pytest

from adaptivegen.errors import AlreadyRunning, SettingsInvalid, StorageReadOnly
from cli.system.data_dir import locked, read_secrets, remove_endpoints, write_endpoints, write_private
from cli.system.layout import ProcessPlan


def test_one_holds_the_directory_and_the_other_is_told_who(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "new"),
        pytest.raises(AlreadyRunning, match=f"in use by process {os.getpid()}"),
        locked(tmp_path / "new"),
    ):
        pytest.fail("both hold it")


def test_the_directory_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_file_left_behind_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12345")
    with locked(tmp_path):
        pass


def test_a_file_where_the_directory_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageReadOnly, match="cannot use"), locked(tmp_path / "file"):
        pytest.fail("there is no directory")


def test_secrets_are_drawn_once_and_for_the_owner_only(tmp_path: Path) -> None:
    drawn = read_secrets(tmp_path)
    assert read_secrets(tmp_path) == drawn
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert read_secrets(tmp_path / "other") != drawn


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"broker_password": 1, "signing_key_hex": 2}',
        '{"broker_password": "", "signing_key_hex": ""}',
    ],
)
def test_a_damaged_secrets_file_is_said_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(SettingsInvalid, match=r"secrets\.json .* remove it"):
        read_secrets(tmp_path)


def test_a_password_that_would_change_the_configuration_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "secrets.json", json.dumps({"broker_password": '" x', "signing_key_hex": "ab" * 32}))
    with pytest.raises(SettingsInvalid, match="not hexadecimal"):
        read_secrets(tmp_path)


def test_a_private_file_replaces_an_open_one_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "nats.conf"
    write_private(path, "a")
    path.chmod(0o644)
    (tmp_path / "sub" / "nats.conf.new").write_text("of a killed writer")
    write_private(path, "b")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("b", 0o600)


def test_endpoints_are_listed_without_the_broker_and_removed_at_the_end(tmp_path: Path) -> None:
    endpoint = {"kind": "edge", "node_id": "edge-1", "http_url": "http://127.0.0.1:1"}
    plans = [
        ProcessPlan("broker", (), {}, "tcp", "127.0.0.1:2", stage=0),
        ProcessPlan("edge-1", (), {}, "http", "127.0.0.1:1", stage=3, endpoint=endpoint),
    ]
    write_endpoints(tmp_path, plans)
    assert json.loads((tmp_path / "endpoints.json").read_text()) == {"endpoints": [endpoint]}
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.json"]
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []
