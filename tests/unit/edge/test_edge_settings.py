"""Settings an edge refuses for the sake of its clients' keys, and of its own memory."""

from pathlib import Path

import pytest

from adaptivegen.errors import SettingsInvalid
from adaptivegen.settings import load
from edge_node.settings import EdgeSettings


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An edge with API keys and nothing else."""
    (tmp_path / "keys.json").write_text('{"keys": []}')
    for name, value in {
        "NODE_ID": "edge-1",
        "API_KEYS_FILE": str(tmp_path / "keys.json"),
        "API_KEY_PEPPER": "p" * 16,
        "SCHEDULER_ADDRESSES": "127.0.0.1:7000",
    }.items():
        monkeypatch.setenv(f"ADAPTIVEGEN_EDGE_{name}", value)
    return monkeypatch


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "edge.example"])
def test_keys_do_not_travel_in_the_clear(keyed: pytest.MonkeyPatch, tmp_path: Path, host: str) -> None:
    keyed.setenv("ADAPTIVEGEN_EDGE_HOST", host)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_EDGE_TLS_CERT is not set"):
        load(EdgeSettings)
    (tmp_path / "some.pem").write_text("PEM")
    for name in ("TLS_CERT", "TLS_KEY"):
        keyed.setenv(f"ADAPTIVEGEN_EDGE_{name}", str(tmp_path / "some.pem"))
    assert load(EdgeSettings).host == host


@pytest.mark.parametrize("number", ["0", "-1", "1000000", "many"])
def test_a_number_of_connections_that_is_no_bound_is_refused(keyed: pytest.MonkeyPatch, number: str) -> None:
    keyed.setenv("ADAPTIVEGEN_EDGE_AUTH", "loopback")
    assert load(EdgeSettings).max_connections == 512
    keyed.setenv("ADAPTIVEGEN_EDGE_MAX_CONNECTIONS", number)
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_EDGE_MAX_CONNECTIONS"):
        load(EdgeSettings)


def test_a_spool_has_an_absolute_folder_or_none(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keyed.setenv("ADAPTIVEGEN_EDGE_AUTH", "loopback")
    for value, folder in (("", None), (str(tmp_path / "a#b"), tmp_path / "a#b")):
        keyed.setenv("ADAPTIVEGEN_EDGE_SPOOL_DIR", value)
        assert load(EdgeSettings).spool_dir == folder
    for value in ("spool", "./spool", ".", str(tmp_path / "a\udcff")):
        keyed.setenv("ADAPTIVEGEN_EDGE_SPOOL_DIR", value)
        with pytest.raises(SettingsInvalid, match=r"ADAPTIVEGEN_EDGE_SPOOL_DIR.*allowed: a"):
            load(EdgeSettings)


@pytest.mark.parametrize("spool", ["s t", "s t/spool", ".", "s t/../s t", "link/spool"])
def test_a_spool_in_the_store_or_around_it_is_refused(keyed: pytest.MonkeyPatch, tmp_path: Path, spool: str) -> None:
    keyed.setenv("ADAPTIVEGEN_EDGE_AUTH", "loopback")
    (tmp_path / "s t").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "s t")
    keyed.setenv("ADAPTIVEGEN_EDGE_STORE_URL", f"file://{tmp_path}/s%20t")
    keyed.setenv("ADAPTIVEGEN_EDGE_SPOOL_DIR", str(tmp_path / spool))
    with pytest.raises(SettingsInvalid, match="ADAPTIVEGEN_EDGE_SPOOL_DIR is"):
        load(EdgeSettings)
    keyed.setenv("ADAPTIVEGEN_EDGE_SPOOL_DIR", str(tmp_path / "s t2"))
    assert load(EdgeSettings).spool_dir == tmp_path / "s t2"
