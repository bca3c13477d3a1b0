"""Who may look, operate and administer."""

import json
from pathlib import Path

import pytest

from adaptivegen.errors import PermissionDenied, SettingsInvalid
from adaptivegen.roles import Roles, everybody_admin, read_roles


def written(folder: Path, content: object) -> Path:
    path = folder / "roles.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_who_is_not_named_may_look_and_no_more() -> None:
    roles = Roles({"ops.example": "operator"})
    roles.require(["edge-1.example"], "viewer")
    with pytest.raises(PermissionDenied, match=r"edge-1\.example has the role viewer; this needs operator"):
        roles.require(["edge-1.example"], "operator")


def test_a_role_contains_the_lower_ones() -> None:
    roles = Roles({"ops.example": "operator", "root.example": "admin"})
    for role in ("viewer", "operator"):
        roles.require(["ops.example"], role)
    with pytest.raises(PermissionDenied):
        roles.require(["ops.example"], "admin")
    roles.require(["root.example"], "admin")


def test_of_a_certificates_names_the_highest_role_counts() -> None:
    roles = Roles({"a": "viewer", "b": "admin"})
    roles.require(["a", "b", "c"], "admin")


def test_a_name_that_is_to_have_none_outweighs_the_others() -> None:
    with pytest.raises(PermissionDenied):
        Roles({"laptop": "admin", "mallory": "none"}).require(["laptop", "mallory"], "viewer")


def test_those_not_named_may_be_kept_out(tmp_path: Path) -> None:
    roles = read_roles(written(tmp_path, {"roles": {"*": "none", "ops": "viewer"}}))
    roles.require(["ops"], "viewer")
    with pytest.raises(PermissionDenied):
        roles.require(["node"], "viewer")
    with pytest.raises(PermissionDenied, match="somebody without a certificate"):
        roles.require([], "viewer")


def test_without_a_file_nobody_changes_anything() -> None:
    roles = read_roles(None)
    roles.require([], "viewer")
    with pytest.raises(PermissionDenied):
        roles.require(["localhost"], "operator")


def test_on_loopback_without_keys_everybody_is_its_owner() -> None:
    everybody_admin().require([], "admin")


@pytest.mark.parametrize(
    "content", ["{", "[]", {"role": {}}, {"roles": ["ops"]}, {"roles": {"ops": "root"}}, {"roles": {"ops": ["admin"]}}]
)
def test_a_file_that_is_none_of_roles_is_refused_by_name(tmp_path: Path, content: object) -> None:
    with pytest.raises(SettingsInvalid, match=r"role") as caught:
        read_roles(written(tmp_path, content))
    assert caught.value.param == "roles_file"
