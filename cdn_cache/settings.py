"""Settings of a media cache, from `ADAPTIVEGEN_CACHE_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from adaptivegen.settings import ServiceSettings, SigningMixin, is_loopback, refused


class CacheSettings(ServiceSettings, SigningMixin):
    """One cache on one folder."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_CACHE_")

    nats_urls: str = Field(
        "", description="Comma-separated NATS URLs, for discovery by the broker; empty: it does not register there."
    )
    http_port: int = Field(0, ge=0, le=65535, description="Port to serve on; 0 takes a free one.")
    dir: Path = Field(Path("/var/cache/adaptivegen"), description="Folder of the cached objects.")
    capacity_bytes: int = Field(10 * 1024**3, gt=0, description="Most bytes kept in the folder.")

    max_connections: int = Field(
        512, ge=1, le=100_000, description="HTTP connections; requests on further ones are answered 503."
    )
    tls_terminated_upstream: bool = Field(
        False, description="TLS ends in front of this cache, so it may be reached from outside without its own."
    )

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.auth == "required" and not self.signing_keys.get_secret_value():
            raise refused("signing_keys", "", "auth=required needs signing_keys")
        return self

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        """A signed URL is good for whoever reads it on its way."""
        if not is_loopback(self.host) and self.tls_cert is None and not self.tls_terminated_upstream:
            limit = f"required as host is {self.host!r}, unless tls_terminated_upstream=true (TLS ends in front of it)"
            raise refused("tls_cert", "", limit)
        return self
