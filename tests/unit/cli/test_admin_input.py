"""What operators type that cannot be meant is refused with what can."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from adaptivegen.errors import InvalidRequest
from adaptivegen.rpc.admin_rows import Ratings
from cli.admin import app
from cli.admin_ask import changes_of
from cli.admin_purge import _seconds
from cli.admin_qoe import _too_few


@pytest.mark.parametrize("age", ["99999999999d", "36501d", "9" * 200 + "h"])
def test_an_age_beyond_all_videos_is_refused_with_the_range(age: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--older-than is .*; allowed: 0s to 36500d"):
        _seconds(age)


@pytest.mark.parametrize(("age", "seconds"), [("36500d", 3153600000.0), ("90", 90.0), ("1.5h", 5400.0), ("", None)])
def test_an_age_is_read_with_its_unit(age: str, seconds: float | None) -> None:
    assert _seconds(age) == seconds


def test_a_name_that_is_given_two_values_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        changes_of(["a=1", "b=1", " a=2"], None)
    assert capsys.readouterr().err == "error: a is given 2 times; allowed: once\n"
    assert changes_of(["a=1", "b=2"], None) == {"a": 1.0, "b": 2.0}


def test_a_policy_with_a_name_twice_changes_nothing() -> None:
    done = CliRunner().invoke(app, ["policy", "set", "cost_iterate=1", "cost_iterate=2", "--scheduler", "127.0.0.1:1"])
    assert (done.exit_code, "given 2 times" in done.stderr) == (2, True)


def test_without_ratings_it_is_said_how_to_make_some_and_which_were_left_out() -> None:
    none = _too_few(Ratings((), 0))
    assert none.startswith("no stored rating can be fitted to; it takes 2 or more.")
    assert "`adaptivegen rate ID --stars N" in none
    assert "(3 are left out: they do not tell how long was waited" in _too_few(Ratings((), 3))
