"""Signed media URLs: who may read which path until when. Pure.

The signature is HMAC-SHA256 over method, path, tenant, expiry and key id. It is no part of a cache key: a cache
authorises first and then looks the path up.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from adaptivegen.errors import PermissionDenied, Unauthenticated


def _signature(key: bytes, path: str, tenant: str, expires_at_s: int, kid: str) -> str:
    text = json.dumps(["GET", path, tenant, expires_at_s, kid])  # JSON, so that no field can reach into the next
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def sign(path: str, *, tenant: str, expires_at_s: int, kid: str, key: bytes) -> str:
    """The query string that lets its holder GET or HEAD `path` until `expires_at_s` (seconds since 1970)."""
    signature = _signature(key, path, tenant, expires_at_s, kid)
    return urlencode({"tenant": tenant, "exp": expires_at_s, "kid": kid, "sig": signature})


def verify(path: str, query: Mapping[str, str], *, now_s: float, keys: Mapping[str, bytes], skew_s: float = 5.0) -> str:
    """The tenant a signed request is for; `path` is the decoded path, `skew_s` how far clocks may differ.

    Raises Unauthenticated without a signature, PermissionDenied for one that does not fit or has expired.
    """
    try:
        tenant, kid, given = query["tenant"], query["kid"], query["sig"]
        expires_at_s = int(query["exp"])
    except (KeyError, ValueError) as exc:
        raise Unauthenticated("a signed URL is needed: tenant, exp, kid and sig", param="sig") from exc
    expected = _signature(keys.get(kid, b"\0" * 32), path, tenant, expires_at_s, kid)
    fits = hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
    if not fits or kid not in keys:
        raise PermissionDenied("the signature does not fit this path", param="sig")
    if expires_at_s + skew_s < now_s:
        raise PermissionDenied(f"the signed URL expired {now_s - expires_at_s:.0f} s ago", param="exp")
    return tenant
