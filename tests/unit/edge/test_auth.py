"""API keys: who is let in as whom, and what is refused."""

import json
from pathlib import Path

import pytest

from adaptivegen.errors import SettingsInvalid, Unauthenticated
from edge_node.auth import ApiKeys, StoredKey, digest, read_keys

KEY = "agk_abcd1234_" + "0123456789abcdef" * 4
PEPPER = "pepper"


def keys(*, pepper: str = PEPPER) -> ApiKeys:
    return ApiKeys(
        {"abcd1234": StoredKey(id="abcd1234", tenant="acme", digest=digest(KEY, pepper=PEPPER))}, pepper=pepper
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_is_its_tenant(scheme: str) -> None:
    assert keys().tenant(f"{scheme} {KEY}") == "acme"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY[:-1]}0",
        f"Bearer {KEY.replace('abcd1234', 'abcd1235')}",
        f"Bearer {KEY}0",
        f"Bearer {KEY.upper()}",
        "Bearer agk_é",
        "Bearer " + "x" * 100_000,
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as refused:
        keys().tenant(header)
    assert KEY not in refused.value.message


def test_a_stolen_file_without_its_pepper_lets_nobody_in() -> None:
    with pytest.raises(Unauthenticated):
        keys(pepper="another").tenant(f"Bearer {KEY}")


def test_keys_are_read_from_their_file(tmp_path: Path) -> None:
    entry = {"id": "abcd1234", "tenant": "acme", "digest": digest(KEY, pepper=PEPPER)}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [entry]}))
    assert ApiKeys(read_keys(tmp_path / "keys.json"), pepper=PEPPER).tenant(f"Bearer {KEY}") == "acme"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"keys": [{}]}', '{"keys": 7}', "\x00"])
def test_a_file_that_holds_no_keys_is_refused_at_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsInvalid, match="api_keys_file"):
        read_keys(path)


def test_a_tenant_that_could_leave_its_place_in_the_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": [{"id": "abcd1234", "tenant": "../other", "digest": "0"}]}')
    with pytest.raises(SettingsInvalid, match="tenant"):
        read_keys(path)
