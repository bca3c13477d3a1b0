"""Errors to gRPC and back: the status of each class, what its metadata say, and what strangers may send."""

import grpc
import pytest

from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from adaptivegen.rpc.status import MAX_DETAILS_BYTES, details, from_rpc_error, status_of, trailing_metadata

EVERY_CLASS = [cls for cls in STATUS if cls is not AdaptiveGenError]


def failed(status: grpc.StatusCode, *trailing: tuple[str, str | bytes], words: str = "words") -> grpc.aio.AioRpcError:
    """A call that ended so."""
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), words)


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_each_error_has_the_status_of_the_table_and_comes_back_as_itself(cls: type[AdaptiveGenError]) -> None:
    error = cls("too much", param="size", retry_after_s=1.5)
    status = status_of(error)
    assert status.name == STATUS[cls].grpc
    back = from_rpc_error(failed(status, *trailing_metadata(error), words=details(error)), peer="edge")
    assert type(back) is cls
    assert (back.message, back.param, back.retry_after_s) == ("too much", "size", 1.5)


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, NodeUnavailable),
        (grpc.StatusCode.UNAVAILABLE, NodeUnavailable),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.UNIMPLEMENTED, InternalError),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.DATA_LOSS, InternalError),
    ],
)
def test_a_strangers_status_is_named_with_the_peer(status: grpc.StatusCode, cls: type[AdaptiveGenError]) -> None:
    error = from_rpc_error(failed(status), peer="scheduler s1")
    assert type(error) is cls
    assert error.message == "scheduler s1: words"


def test_a_missing_object_of_a_stranger_is_no_missing_model() -> None:
    assert not isinstance(from_rpc_error(failed(grpc.StatusCode.NOT_FOUND), peer="p"), ModelNotFound)


@pytest.mark.parametrize("sent", ["soon", "", "nan", "inf", "-1"])
def test_a_delay_that_is_none_is_left_out(sent: str) -> None:
    trailing = (("ag-error-code", "unavailable"), ("ag-retry-after-s", sent))
    assert from_rpc_error(failed(grpc.StatusCode.UNAVAILABLE, *trailing), peer="p").retry_after_s is None


def test_binary_metadata_are_no_error_code() -> None:
    error = from_rpc_error(failed(grpc.StatusCode.NOT_FOUND, ("ag-error-code", b"conflict")), peer="p")
    assert type(error) is NotFound


@pytest.mark.parametrize("param", ["größe", "a\nb", "", "p" * 129])
def test_a_field_that_no_header_can_carry_is_left_to_the_message(param: str) -> None:
    assert dict(trailing_metadata(InvalidRequest("no", param=param))) == {"ag-error-code": "invalid_request"}


@pytest.mark.parametrize("letter", ["x", "ü", "\N{GRINNING FACE}"])
def test_a_long_message_is_cut_between_letters(letter: str) -> None:
    short, long = letter * 100, letter * 5000
    assert details(InvalidRequest(short)) == short
    cut = details(InvalidRequest(long))
    assert len(cut.encode()) <= MAX_DETAILS_BYTES
    assert cut.endswith(letter + "...")


def test_a_message_that_is_no_text_is_said_all_the_same() -> None:
    assert details(InvalidRequest("half a letter: \ud83d")) == "half a letter: ?"
