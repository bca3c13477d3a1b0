"""The one tree of errors, and the one table from an error to its gRPC status and HTTP status.

    AdaptiveGenError
    |- InvalidRequest            a field of the request is outside its limit (names field, value, limit)
    |  |- UnsupportedMedia       an upload is not a decodable image or video of the kinds allowed
    |  `- PayloadTooLarge        a body, a prompt or an upload exceeds its size limit
    |- Unauthenticated           no credential, or one that is not known
    |- PermissionDenied          a known caller without the right
    |- NotFound                  no such video, job, node or object
    |  `- ModelNotFound          no such model in the registry
    |- Conflict                  the state forbids the step (idempotency key reused, job already terminal)
    |  |- PreconditionFailed     a compare-and-set lost: someone else wrote first
    |  `- AlreadyRunning         another process holds this data directory
    |- ResourceExhausted         a bounded queue or a rate limit is full (carries retry_after_s)
    |  |- QuotaExceeded          the tenant has used what it may (retry_after_s where waiting helps)
    |  `- Overloaded             the cloud has more work than it can do in time
    |- Unavailable               a peer cannot be reached now; the same call may work later
    |  |- BrokerUnavailable      the NATS server
    |  `- NodeUnavailable        a scheduler, worker, edge or cache
    |- DeadlineExceeded          the time given is over
    |  `- RequestTimeout         the request itself did not arrive in time
    |- Cancelled                 the caller asked to stop
    |- StorageFailure            the object store refused (base of the next two)
    |  |- StorageFull            no space left
    |  `- StorageReadOnly        the store cannot be written
    |- StoreUnsafe               the store failed its self-test (put-if-absent is not exclusive)
    |- ModelDigestMismatch       a weights file is not the one its card names
    |- GenerationFailed          the model failed on a valid request (also: the child process died)
    |- SettingsInvalid           a process was started with settings it must refuse
    `- InternalError             a bug on our side

This module decides how an error is named on every wire. It must not know grpc, HTTP libraries or any service.
Third-party exceptions are translated at their adapter (`raise ... from exc`) and never travel further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self


class AdaptiveGenError(Exception):
    """Base of all errors. `code` is stable and goes on the wire; `retryable` says whether the same call may
    succeed later without a change by the caller."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, object]:
        """The `error` object of an HTTP answer: code, message, param (OpenAI's shape), retryable."""
        return {"code": self.code, "message": self.message, "param": self.param, "retryable": self.retryable}


class InvalidRequest(AdaptiveGenError):
    """A field of the request is outside its limit. Build it with `InvalidRequest.field(...)`."""

    code = "invalid_request"

    @classmethod
    def field(cls, name: str, value: object, limit: str) -> Self:
        """Name the field, the value (shortened to 80 characters) and the limit."""
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        return cls(f"{name} is {shown}; allowed: {limit}", param=name)


class UnsupportedMedia(InvalidRequest):
    """An upload is not an image or video we decode."""

    code = "unsupported_media"


class PayloadTooLarge(InvalidRequest):
    """A body, prompt or upload exceeds its limit in bytes."""

    code = "payload_too_large"


class Unauthenticated(AdaptiveGenError):
    """No credential, or an unknown one."""

    code = "unauthenticated"


class PermissionDenied(AdaptiveGenError):
    """The caller is known and may not do this."""

    code = "permission_denied"


class NotFound(AdaptiveGenError):
    """No such video, job, node or object."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No such model in the registry."""

    code = "model_not_found"


class Conflict(AdaptiveGenError):
    """The present state forbids the step."""

    code = "conflict"


class PreconditionFailed(Conflict):
    """A compare-and-set or a put-if-absent lost against another writer."""

    code = "precondition_failed"


class AlreadyRunning(Conflict):
    """Another process holds the data directory."""

    code = "already_running"


class ResourceExhausted(AdaptiveGenError):
    """A bounded queue, quota or rate limit is full; `retry_after_s` says when to try again."""

    code = "resource_exhausted"
    retryable = True


class QuotaExceeded(ResourceExhausted):
    """A tenant has used what it may; without `retry_after_s` waiting does not help."""

    code = "quota_exceeded"


class Overloaded(ResourceExhausted):
    """More work waits than can be done in time; `retry_after_s` comes from what waits."""

    code = "overloaded"


class Unavailable(AdaptiveGenError):
    """A peer cannot be reached now."""

    code = "unavailable"
    retryable = True


class BrokerUnavailable(Unavailable):
    """The NATS server cannot be reached or did not acknowledge in time."""

    code = "broker_unavailable"


class NodeUnavailable(Unavailable):
    """A scheduler, worker, edge or cache cannot be reached."""

    code = "node_unavailable"


class DeadlineExceeded(AdaptiveGenError):
    """The time given for the call is over."""

    code = "deadline_exceeded"
    retryable = True


class RequestTimeout(DeadlineExceeded):
    """The request did not arrive within the time there is for it."""

    code = "request_timeout"


class Cancelled(AdaptiveGenError):
    """The caller asked to stop."""

    code = "cancelled"


class StorageFailure(AdaptiveGenError):
    """The object store failed the operation."""

    code = "storage_failure"
    retryable = True


class StorageFull(StorageFailure):
    """No space is left in the object store or on the cache's disk."""

    code = "storage_full"


class StorageReadOnly(StorageFailure):
    """The object store cannot be written."""

    code = "storage_read_only"
    retryable = False


class StoreUnsafe(AdaptiveGenError):
    """The object store let more than one of several racing creates win, so jobs would not be safe in it."""

    code = "store_unsafe"


class ModelDigestMismatch(AdaptiveGenError):
    """A weights file does not have the digest its model card names."""

    code = "model_digest_mismatch"


class GenerationFailed(AdaptiveGenError):
    """The model failed on a valid request, or its process died."""

    code = "generation_failed"
    retryable = True


class SettingsInvalid(AdaptiveGenError):
    """A process was started with settings it must refuse."""

    code = "settings_invalid"


class InternalError(AdaptiveGenError):
    """A bug on our side; the log has the traceback under the request id."""

    code = "internal"


def whole_s(retry_after_s: float) -> int:
    """For people and for HTTP's Retry-After, which knows whole seconds alone: never too early, and at least one."""
    return max(1, math.ceil(retry_after_s))


def platform_fault(error: AdaptiveGenError) -> bool:
    """Whether the error says nothing about the work at hand: the same may do well elsewhere or later."""
    return isinstance(error, (StorageFailure, Unavailable, ResourceExhausted, DeadlineExceeded))


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters of a group, however nested: the first of ours, else the first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(reversed(error.exceptions))
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, AdaptiveGenError)), flat[0])


@dataclass(frozen=True, slots=True)
class Status:
    """How an error is said on the wires: `grpc` is the name of a grpc.StatusCode, `http` the status number."""

    grpc: str
    http: int


class _Statuses(dict[type[AdaptiveGenError], Status]):
    """Statuses by type; a part's own kind of an error has that of the error it is a kind of."""

    def __missing__(self, cls: type[AdaptiveGenError]) -> Status:
        return next(self[base] for base in cls.__mro__[1:] if base in self)


STATUS: dict[type[AdaptiveGenError], Status] = _Statuses(
    {
        AdaptiveGenError: Status("INTERNAL", 500),
        InvalidRequest: Status("INVALID_ARGUMENT", 400),
        UnsupportedMedia: Status("INVALID_ARGUMENT", 415),
        PayloadTooLarge: Status("INVALID_ARGUMENT", 413),
        Unauthenticated: Status("UNAUTHENTICATED", 401),
        PermissionDenied: Status("PERMISSION_DENIED", 403),
        NotFound: Status("NOT_FOUND", 404),
        ModelNotFound: Status("NOT_FOUND", 404),
        Conflict: Status("FAILED_PRECONDITION", 409),
        PreconditionFailed: Status("ABORTED", 412),
        AlreadyRunning: Status("FAILED_PRECONDITION", 409),
        ResourceExhausted: Status("RESOURCE_EXHAUSTED", 429),
        QuotaExceeded: Status("RESOURCE_EXHAUSTED", 429),
        Overloaded: Status("RESOURCE_EXHAUSTED", 429),
        Unavailable: Status("UNAVAILABLE", 503),
        BrokerUnavailable: Status("UNAVAILABLE", 503),
        NodeUnavailable: Status("UNAVAILABLE", 503),
        DeadlineExceeded: Status("DEADLINE_EXCEEDED", 504),
        RequestTimeout: Status("DEADLINE_EXCEEDED", 408),
        Cancelled: Status("CANCELLED", 499),
        StorageFailure: Status("UNAVAILABLE", 503),
        StorageFull: Status("RESOURCE_EXHAUSTED", 507),
        StorageReadOnly: Status("FAILED_PRECONDITION", 507),
        StoreUnsafe: Status("FAILED_PRECONDITION", 500),
        ModelDigestMismatch: Status("DATA_LOSS", 500),
        GenerationFailed: Status("INTERNAL", 500),
        SettingsInvalid: Status("FAILED_PRECONDITION", 500),
        InternalError: Status("INTERNAL", 500),
    }
)

BY_CODE: dict[str, type[AdaptiveGenError]] = {cls.code: cls for cls in STATUS if cls is not AdaptiveGenError}


def from_wire(
    code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
) -> AdaptiveGenError:
    """Rebuild the typed error a peer sent; an unknown code becomes `InternalError` with the code in its text."""
    cls = BY_CODE.get(code)
    if cls is None:
        return InternalError(f"{code}: {message}", param=param, retry_after_s=retry_after_s)
    return cls(message, param=param, retry_after_s=retry_after_s)
