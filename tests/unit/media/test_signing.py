"""Signed URLs: the signed path, tenant and time, and nothing else."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from adaptivegen.errors import PermissionDenied, Unauthenticated
from adaptivegen.media.signing import sign, verify

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}
PATH = "/media/out/t/vid/1/aa.mp4"
NOW_S = 1_700_000_000


def query(path: str = PATH, *, kid: str = "k1", expires_at_s: int = NOW_S + 60, tenant: str = "t") -> dict[str, str]:
    return dict(parse_qsl(sign(path, tenant=tenant, expires_at_s=expires_at_s, kid=kid, key=KEYS[kid])))


def test_what_was_signed_is_let_in() -> None:
    assert verify(PATH, query(), now_s=NOW_S, keys=KEYS) == "t"
    assert verify(PATH, query(kid="k2"), now_s=NOW_S, keys=KEYS) == "t"


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": "u"},
        {"exp": str(NOW_S + 9999)},
        {"kid": "k2"},
        {"kid": "none"},
        {"sig": "0" * 64},
        {"sig": "é"},
        {"sig": ""},
    ],
)
def test_a_changed_field_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(PermissionDenied):
        verify(PATH, query() | changed, now_s=NOW_S, keys=KEYS)


def test_another_path_is_refused() -> None:
    with pytest.raises(PermissionDenied):
        verify(PATH + "x", query(), now_s=NOW_S, keys=KEYS)


def test_fields_cannot_reach_into_one_another() -> None:
    with pytest.raises(PermissionDenied):
        verify("/a", query("/a\nb", tenant="c") | {"tenant": "b\nc"}, now_s=NOW_S, keys=KEYS)


def test_it_expires_with_a_little_patience_for_clocks() -> None:
    signed = query(expires_at_s=NOW_S)
    assert verify(PATH, signed, now_s=NOW_S + 5, keys=KEYS, skew_s=5) == "t"
    with pytest.raises(PermissionDenied, match="expired"):
        verify(PATH, signed, now_s=NOW_S + 6, keys=KEYS, skew_s=5)


@pytest.mark.parametrize("missing", ["tenant", "exp", "kid", "sig"])
def test_without_a_signature_one_is_asked_for(missing: str) -> None:
    signed = query()
    del signed[missing]
    with pytest.raises(Unauthenticated, match="signed URL"):
        verify(PATH, signed, now_s=NOW_S, keys=KEYS)


@pytest.mark.parametrize("exp", ["", "soon", "1e9", "9" * 5000])
def test_an_expiry_that_is_no_number_is_no_signature(exp: str) -> None:
    with pytest.raises(Unauthenticated):
        verify(PATH, query() | {"exp": exp}, now_s=NOW_S, keys=KEYS)
