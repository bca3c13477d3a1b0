"""What the settings of every process have in common: node identity, addresses, broker, store, authentication, TLS.

Each service subclasses `ServiceSettings` with its own `env_prefix` (`ADAPTIVEGEN_<SERVICE>_`) and loads it once, in its
`__main__`. What is refused is said in one line: the variable, its value and what is allowed. A process that listens
beyond loopback without authentication refuses to start.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from adaptivegen.discovery.base import is_address
from adaptivegen.discovery.consul_service import ConsulOptions
from adaptivegen.discovery.source import agent_url, check_source
from adaptivegen.drain import DEFAULT_GRACE_S, LONGEST_GRACE_S
from adaptivegen.errors import AdaptiveGenError, SettingsInvalid
from adaptivegen.ids import check_name
from adaptivegen.models.registry import ModelLibrary

LONGEST_S = 7 * 86400.0  # no setting in seconds is longer: an endless wait is a bug somewhere else
_NATS_URL = re.compile(r"(nats|tls|wss?)://([^@/\s]+@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")
_NATS_LIMIT = "nats://[user:password@]host[:port], comma-separated (also tls://, ws://, wss://)"
_SHOWN_CHARS = 120


def refused(name: str, value: object, limit: str) -> PydanticCustomError:
    """The error for validators: a setting by its field name, its value (no secret), and what is allowed."""
    return PydanticCustomError("setting", "{limit}", {"setting": name, "value": str(value), "limit": limit})


def is_loopback(host: str) -> bool:
    """Whether `host` is an address only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _readable(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise ValueError(f"a file that can be read ({exc.strerror})") from exc
    return path


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("a folder")
    return path


ReadableFile = Annotated[Path, AfterValidator(_readable)]


def checked(check: Callable[[str], object]) -> AfterValidator:
    """A validator from a check that raises our errors; its message says what is allowed."""

    def validate(value: str) -> str:
        try:
            check(value)
        except AdaptiveGenError as exc:
            raise ValueError(exc.message.rpartition("allowed: ")[2]) from exc
        return value

    return AfterValidator(validate)


class ServiceSettings(BaseSettings):
    """Common settings. All durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    node_id: Annotated[str, checked(lambda value: check_name(value, field="node_id"))] = Field(
        description="Name of this node: a-z, 0-9, _ and -."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    advertise_host: str = Field("", description="Host name others reach this node by; empty: the listening address.")
    nats_urls: str = Field("nats://127.0.0.1:4222", description="Comma-separated NATS URLs.")
    nats_ca: ReadableFile | None = Field(None, description="CA of the broker's certificate (PEM); TLS to the broker.")
    nats_credentials: ReadableFile | None = Field(None, description="NATS credentials file of this node.")
    discovery: Annotated[str, checked(check_source)] = Field(
        "nats",
        description="Where nodes find one another: `nats`, `static:<path>` of a JSON file of endpoints, `consul` (its "
        "agent on this machine) or `consul:<URL of an agent>`.",
    )
    consul_token: SecretStr = Field(SecretStr(""), description="ACL token of this node; may read and write services.")
    consul_ca: ReadableFile | None = Field(None, description="CA of the agent's certificate (PEM), with an https URL.")
    consul_check: Literal["ttl", "grpc"] = Field(
        "ttl", description="`ttl`: this node tells its agent that it lives; `grpc`: the agent asks it."
    )
    consul_prefix: Annotated[str, checked(lambda value: check_name(value, field="consul_prefix"))] = Field(
        "adaptivegen", description="Begins the names of services in Consul; one deployment, one prefix."
    )
    store_url: str = Field("file:///var/lib/adaptivegen/store", description="file://, s3://, gs:// or az:// URL.")
    auth: Literal["required", "loopback"] = Field(
        "required", description="`loopback` drops authentication and is only allowed on a loopback address."
    )
    tls_cert: ReadableFile | None = Field(None, description="Server certificate (PEM).")
    tls_key: ReadableFile | None = Field(None, description="Private key of the server certificate (PEM).")
    tls_client_ca: ReadableFile | None = Field(
        None, description="CA of the peers' certificates (PEM): mutual TLS for gRPC."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_grace_s: float = Field(
        DEFAULT_GRACE_S, gt=0, le=LONGEST_GRACE_S, description="Time for open work after SIGTERM."
    )

    @field_validator("host", "advertise_host")
    @classmethod
    def _legal_host(cls, value: str) -> str:
        if value and not is_address(f"{_bracketed(value)}:1"):
            raise ValueError("a host name or an IP address")
        return value

    @field_validator("nats_urls")
    @classmethod
    def _legal_nats_urls(cls, value: str) -> str:
        if not all(_NATS_URL.fullmatch(url) for url in _listed(value)):
            raise ValueError(_NATS_LIMIT)
        return value

    @field_validator("consul_token")
    @classmethod
    def _legal_consul_token(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch("[!-~]*", value.get_secret_value()):
            raise ValueError("ASCII characters without blanks")  # it is sent as a header
        return value

    @field_validator("store_url")
    @classmethod
    def _legal_store_url(cls, value: str) -> str:
        if value.partition("://")[0] not in ("file", "s3", "gs", "az") or not value.partition("://")[2]:
            raise ValueError("a file://, s3://, gs:// or az:// URL")
        if value.startswith("file:") and not value.startswith("file:///"):
            raise ValueError("a folder is file:///absolute/path")
        return value

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        if not self.host:
            raise refused("host", "", "a host name or an IP address")
        if self.auth == "loopback" and not is_loopback(self.host):
            raise refused("auth", self.auth, f"required, as host is {self.host!r}: only loopback may go without keys")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            raise refused(missing, "", "tls_cert and tls_key come together")
        return self

    @model_validator(mode="after")
    def _consul_by_tls(self) -> Self:
        if self.consul_ca is not None and not (agent_url(self.discovery) or "").startswith("https:"):
            raise refused("consul_ca", self.consul_ca, "only with discovery=consul:https://host[:port]")
        return self

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a setting."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    def refuse(self, field: str, limit: str) -> SettingsInvalid:
        """The error for a setting that turned out wrong when it was used: variable, value, what is allowed."""
        return SettingsInvalid(_line(self.variable(field), getattr(self, field), limit), param=self.variable(field))

    def require_mutual_tls(self) -> None:
        """Refuse to serve gRPC between nodes without client certificates, unless `auth` is loopback."""
        for field in ("tls_cert", "tls_client_ca"):
            if self.auth != "loopback" and getattr(self, field) is None:
                raise self.refuse(field, "auth=required needs tls_cert, tls_key and tls_client_ca for gRPC")

    def advertised(self, port: int) -> str:
        """host:port as other nodes reach it."""
        return f"{_bracketed(self.advertise_host or self.host)}:{port}"

    def consul(self) -> ConsulOptions:
        """How Consul is used, where it is."""
        return ConsulOptions(
            token=self.consul_token.get_secret_value(),
            ca=self.consul_ca,
            check=self.consul_check,
            grpc_tls=self.tls_cert is not None,
            prefix=self.consul_prefix,
        )

    def nats_servers(self) -> list[str]:
        """The NATS URLs as a list."""
        return _listed(self.nats_urls)


class SchedulersMixin(BaseSettings):
    """Which schedulers a node asks, shared by edges and workers."""

    scheduler_addresses: str = Field(
        "", description="Comma-separated host:port of schedulers; empty: those that are discovered."
    )

    @field_validator("scheduler_addresses")
    @classmethod
    def _legal_addresses(cls, value: str) -> str:
        if not all(is_address(part) for part in _listed(value)):
            raise ValueError("host:port, comma-separated")
        return value

    def schedulers(self) -> list[str]:
        """The addresses as a list."""
        return _listed(self.scheduler_addresses)


class ModelsMixin(BaseSettings):
    """Which models there are, shared by edges, workers and schedulers."""

    models_dir: Annotated[Path, AfterValidator(_folder)] | None = Field(
        None,
        description="Folder of further models, beside those that come along; new ones are found while it runs, "
        "and those that were pushed into the object store are brought here.",
    )
    models_max_bytes: int = Field(4 * 1024**3, ge=1024**2, description="Bytes of one version that may be fetched.")
    models_keep_days: float = Field(
        30.0, gt=0, le=36500, description="Days after which fetched files of a version that nothing needs are removed."
    )

    def library(self) -> ModelLibrary:
        """All models."""
        return ModelLibrary(self.models_dir)


class SigningMixin(BaseSettings):
    """Keys that sign media URLs, shared by edges and caches."""

    signing_keys: SecretStr = Field(SecretStr(""), description="`kid:hex[,kid:hex]`; the first signs, all verify.")

    @model_validator(mode="after")
    def _legal_keys(self) -> Self:
        self.signing_key_map()
        return self

    def signing_key_map(self) -> dict[str, bytes]:
        """Key id to key, in order. Its errors come at construction: a malformed key, or one under 16 bytes."""
        keys: dict[str, bytes] = {}
        for part in filter(None, self.signing_keys.get_secret_value().split(",")):
            kid, _, text = part.partition(":")
            try:
                keys[check_name(kid, field="signing_keys.kid")] = bytes.fromhex(text)
            except (ValueError, AdaptiveGenError) as exc:
                raise refused("signing_keys", "(secret)", "kid:hex[,kid:hex]") from exc
            if len(keys[kid]) < 16:
                raise refused("signing_keys", f"(secret of {len(keys[kid])} bytes)", "kid:hex of 16 bytes or more")
        return keys


def describe(settings: BaseSettings) -> dict[str, object]:
    """Settings for the log; secrets and credentials in URLs are redacted."""
    return {name: None if value is None else _shown(value) for name, value in settings.model_dump().items()}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(value: object) -> str:
    """A value without credentials."""
    text = str(value)
    if "://" in text and "@" in text:
        text = ",".join(_without_credentials(part) for part in text.split(","))
    return text


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _line(variable: str, value: object, limit: str) -> str:
    text = _shown("" if value is None else value)
    shown = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
    return f"{variable} is {shown!r}; allowed: {limit}" if text else f"{variable} is not set: {limit}"


Settings = TypeVar("Settings", bound=BaseSettings)


def load(cls: type[Settings]) -> Settings:
    """Read and validate settings from the environment; raises SettingsInvalid naming the variable, its value and what
    is allowed."""
    try:
        return cls()
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name, value, limit = _refusal(cls, first)
        variable = f"{cls.model_config.get('env_prefix', '')}{name}".upper()
        raise SettingsInvalid(_line(variable, value, limit), param=variable) from exc


def _refusal(cls: type[BaseSettings], error: ErrorDetails) -> tuple[str, object, str]:
    """Field, value and limit of one of pydantic's errors."""
    if error["type"] == "setting":
        return error["ctx"]["setting"], error["ctx"]["value"], error["ctx"]["limit"]
    name = str(error["loc"][0]) if error["loc"] else "*"
    limit = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "missing":
        return name, "", "it is required"
    secret = name in cls.model_fields and cls.model_fields[name].annotation is SecretStr
    return name, "(secret)" if secret else error["input"], limit
