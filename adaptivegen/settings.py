"""What the settings of every process have in common: node identity, addresses, broker, store, authentication, TLS.

Each service subclasses `ServiceSettings` with its own `env_prefix` (`ADAPTIVEGEN_<SERVICE>_`) and loads it once, in its
`__main__`. A process that listens beyond loopback without authentication refuses to start.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from adaptivegen.drain import DEFAULT_GRACE_S, LONGEST_GRACE_S
from adaptivegen.errors import AdaptiveGenError, SettingsInvalid
from adaptivegen.ids import check_name


def is_loopback(host: str) -> bool:
    """Whether `host` is an address only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServiceSettings(BaseSettings):
    """Common settings. All durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    node_id: str = Field(description="Name of this node: a-z, 0-9, _ and -.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    advertise_host: str = Field("", description="Host name others reach this node by; empty: the listening address.")
    nats_urls: str = Field("nats://127.0.0.1:4222", description="Comma-separated NATS URLs.")
    store_url: str = Field("file:///var/lib/adaptivegen/store", description="file://, s3://, gs:// or az:// URL.")
    auth: Literal["required", "loopback"] = Field(
        "required", description="`loopback` drops authentication and is only allowed on a loopback address."
    )
    tls_cert: Path | None = Field(None, description="Server certificate (PEM).")
    tls_key: Path | None = Field(None, description="Private key of the server certificate (PEM).")
    tls_client_ca: Path | None = Field(None, description="CA of the peers' certificates (PEM): mutual TLS for gRPC.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_grace_s: float = Field(
        DEFAULT_GRACE_S, gt=0, le=LONGEST_GRACE_S, description="Time for open work after SIGTERM."
    )

    @field_validator("node_id")
    @classmethod
    def _legal_node_id(cls, value: str) -> str:
        try:
            return check_name(value, field="node_id")
        except AdaptiveGenError as exc:
            raise ValueError(exc.message) from exc

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        if self.auth == "loopback" and not is_loopback(self.host):
            raise ValueError(f"auth=loopback with host {self.host!r}: only a loopback address may go without keys")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together")
        return self

    def require_mutual_tls(self) -> None:
        """Refuse to serve gRPC between nodes without client certificates, unless `auth` is loopback."""
        if self.auth != "loopback" and (self.tls_cert is None or self.tls_client_ca is None):
            raise SettingsInvalid("auth=required needs tls_cert, tls_key and tls_client_ca for gRPC", param="tls_cert")

    def advertised(self, port: int) -> str:
        """host:port as other nodes reach it."""
        return f"{self.advertise_host or self.host}:{port}"

    def nats_servers(self) -> list[str]:
        """The NATS URLs as a list."""
        return [url.strip() for url in self.nats_urls.split(",") if url.strip()]


class SigningMixin(BaseSettings):
    """Keys that sign media URLs, shared by edges and caches."""

    signing_keys: SecretStr = Field(SecretStr(""), description="`kid:hex[,kid:hex]`; the first signs, all verify.")

    def signing_key_map(self) -> dict[str, bytes]:
        """Key id to key, in order; raises SettingsInvalid for a malformed or short (< 16 bytes) key."""
        keys: dict[str, bytes] = {}
        for part in filter(None, self.signing_keys.get_secret_value().split(",")):
            kid, _, text = part.partition(":")
            try:
                keys[check_name(kid, field="signing_keys.kid")] = bytes.fromhex(text)
            except (ValueError, AdaptiveGenError) as exc:
                raise SettingsInvalid("signing_keys must be kid:hex[,kid:hex]", param="signing_keys") from exc
            if len(keys[kid]) < 16:
                raise SettingsInvalid(f"signing key {kid!r} has under 16 bytes", param="signing_keys")
        return keys


def describe(settings: BaseSettings) -> dict[str, object]:
    """Settings for the log; secrets and credentials in URLs are redacted."""
    shown: dict[str, object] = {}
    for name, value in settings.model_dump().items():
        text = str(value)
        if "://" in text and "@" in text:
            text = ",".join(_without_credentials(part) for part in text.split(","))
        shown[name] = text if value is not None else None
    return shown


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


Settings = TypeVar("Settings", bound=BaseSettings)


def load(cls: type[Settings]) -> Settings:
    """Read and validate settings from the environment; raises SettingsInvalid naming the variable."""
    try:
        return cls()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        prefix = str(cls.model_config.get("env_prefix", ""))
        name = prefix + "_".join(str(part) for part in first["loc"]).upper() if first["loc"] else prefix + "*"
        raise SettingsInvalid(f"{name}: {first['msg']}", param=name) from exc
