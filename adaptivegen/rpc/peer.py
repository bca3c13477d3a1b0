"""Who is at the other end of a call."""

from __future__ import annotations

from typing import Any

import grpc


def names_of(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, ...]:
    """All names in the certificate that was shown, the alternative ones and the common one; none without a
    certificate."""
    shown = context.auth_context()
    names = [*shown.get("x509_subject_alternative_name", ()), *shown.get("x509_common_name", ())]
    return tuple(dict.fromkeys(name.decode(errors="replace") for name in names if name))
