"""The tree of errors and its one table."""

import grpc
import pytest

from adaptivegen import errors
from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    first_error,
    from_wire,
)


def every_class(root: type[AdaptiveGenError] = AdaptiveGenError) -> list[type[AdaptiveGenError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in every_class(child))]


def test_every_error_has_a_row_in_the_table() -> None:
    ours = [cls for cls in every_class() if cls.__module__ == "adaptivegen.errors"]
    assert set(ours) == set(STATUS)


def test_every_row_names_a_real_grpc_status_and_an_error_status() -> None:
    for status in STATUS.values():
        assert status.grpc in grpc.StatusCode.__members__
        assert 400 <= status.http <= 599


def test_codes_are_unique_so_that_the_class_survives_the_wire() -> None:
    codes = [cls.code for cls in STATUS if cls is not AdaptiveGenError]
    assert len(codes) == len(set(codes))


def test_the_docstring_draws_every_class() -> None:
    for cls in STATUS:
        assert cls.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", [cls for cls in STATUS if cls is not AdaptiveGenError])
def test_an_error_comes_back_from_the_wire_as_itself(cls: type[AdaptiveGenError]) -> None:
    sent = cls("too much", param="size", retry_after_s=2.5)
    body = sent.body()
    back = from_wire(str(body["code"]), str(body["message"]), param="size", retry_after_s=2.5)
    assert type(back) is cls
    assert (back.message, back.param, back.retry_after_s) == ("too much", "size", 2.5)


def test_an_unknown_code_is_kept_in_the_text() -> None:
    assert "from_the_future" in from_wire("from_the_future", "hm").message


def test_a_field_error_names_field_value_and_limit_and_shortens_the_value() -> None:
    error = InvalidRequest.field("steps", "9" * 500, "1 to 50")
    assert error.param == "steps"
    assert "1 to 50" in error.message
    assert len(error.message) < 150


def test_a_subclass_builds_itself() -> None:
    assert type(PayloadTooLarge.field("prompt", 5000, "4096 bytes")) is PayloadTooLarge


OURS, LATER, STRANGE, STOPPED = NotFound("ours"), NotFound("later"), ValueError("strange"), KeyboardInterrupt()


@pytest.mark.parametrize(
    ("group", "matters"),
    [
        (ExceptionGroup("", [STRANGE]), STRANGE),
        (ExceptionGroup("", [STRANGE, OURS, LATER]), OURS),
        (ExceptionGroup("", [STRANGE, ExceptionGroup("", [ValueError("inner"), OURS]), LATER]), OURS),
        (ExceptionGroup("", [ExceptionGroup("", [ExceptionGroup("", [STRANGE])]), ValueError("second")]), STRANGE),
        (BaseExceptionGroup("", [STOPPED, STRANGE]), STOPPED),
        (BaseExceptionGroup("", [STOPPED, OURS]), OURS),
    ],
    ids=["the only one", "ours first", "ours however deep", "else the first however deep", "no error", "before others"],
)
def test_of_a_group_the_first_of_our_errors_matters_else_the_first(
    group: BaseExceptionGroup[BaseException], matters: BaseException
) -> None:
    assert first_error(group) is matters
