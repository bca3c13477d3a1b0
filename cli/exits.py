"""Exit codes of the `adaptivegen` command, and which error ends with which. Pure.

0    done
1    a bug on our side
2    bad input: a wrong option, a request outside the limits, settings that are refused, a missing or wrong API key
3    an edge, scheduler, worker, broker or store cannot be reached, is full or failed
4    the time given is over
5    the generation failed
6    another process holds the data directory
7    no such thing, or its state forbids the step
130  cancelled by Ctrl-C
"""

from __future__ import annotations

from adaptivegen.errors import (
    AdaptiveGenError,
    AlreadyRunning,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    ModelDigestMismatch,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SettingsInvalid,
    StorageFailure,
    StoreUnsafe,
    Unauthenticated,
    Unavailable,
)

OK = 0
INTERNAL = 1
BAD_INPUT = 2
UNAVAILABLE = 3
DEADLINE = 4
GENERATION_FAILED = 5
ALREADY_RUNNING = 6
NO_SUCH_STATE = 7
INTERRUPTED = 130

_CODES: tuple[tuple[type[AdaptiveGenError], int], ...] = (  # the first that fits: AlreadyRunning is a Conflict
    (AlreadyRunning, ALREADY_RUNNING),
    (Conflict, NO_SUCH_STATE),
    (NotFound, NO_SUCH_STATE),
    (InvalidRequest, BAD_INPUT),
    (SettingsInvalid, BAD_INPUT),
    (Unauthenticated, BAD_INPUT),
    (PermissionDenied, BAD_INPUT),
    (Unavailable, UNAVAILABLE),
    (ResourceExhausted, UNAVAILABLE),
    (StorageFailure, UNAVAILABLE),
    (StoreUnsafe, UNAVAILABLE),
    (DeadlineExceeded, DEADLINE),
    (GenerationFailed, GENERATION_FAILED),
    (ModelDigestMismatch, GENERATION_FAILED),
    (Cancelled, INTERRUPTED),
)


def exit_code(error: AdaptiveGenError) -> int:
    """The exit code of an error."""
    return next((code for cls, code in _CODES if isinstance(error, cls)), INTERNAL)
