"""Who is at the other end of an HTTP connection: the names in a certificate."""

from typing import Any

import pytest

from adaptivegen.serving import names_in


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        ({}, ()),
        ({"subjectAltName": (("DNS", "ops.example"), ("DNS", "b.example"))}, ("ops.example", "b.example")),
        ({"subject": ((("organizationName", "o"),), (("commonName", "Ann"),))}, ("Ann",)),
        (
            {"subject": ((("commonName", "ops"),),), "subjectAltName": (("DNS", "a.example"), ("DNS", "ops"))},
            ("a.example", "ops"),
        ),
        ({"subjectAltName": (("email", "a@b.example"), ("URI", "spiffe://x/y"))}, ("a@b.example", "spiffe://x/y")),
        ({"subjectAltName": (("IP Address", "10.0.0.7"),)}, ("10.0.0.7",)),
        ({"subjectAltName": (("IP Address", "2001:DB8:0:0:0:0:0:1"),)}, ("2001:db8::1",)),
        ({"subjectAltName": (("IP Address", "<invalid>"),)}, ("<invalid>",)),
        ({"subjectAltName": (("DirName", ((("commonName", "admin"),),)), ("othername", "admin"))}, ()),
        ({"subject": ((("commonName", "first"),), (("commonName", "admin"),))}, ("first",)),
    ],
)
def test_all_names_of_a_certificate_are_told_and_nothing_else(
    certificate: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert names_in(certificate) == names
