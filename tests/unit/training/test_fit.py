"""The training loop: resumes exactly, settles its length, refuses checkpoints of something else."""

import csv
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from adaptivegen.errors import InvalidRequest  # noqa: E402
from training import fit as loop  # noqa: E402
from training.fit import FitSettings, batch_rows, fit, on_rows, rate_factor, read_checkpoint, step_generator  # noqa: E402

SETTINGS = FitSettings(steps=60, adam_rate=1e-2, muon_rate=1e-2, warm_steps=5)


class Stopped(Exception):
    """Stands for the power going off."""


class Tiny(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(6, 6)])
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks[0](x))


def run(path: Path, settings: FitSettings = SETTINGS, stop_at: int | None = None, params: int = 1) -> Tiny:
    model = Tiny()

    def loss_at(step: int) -> Any:
        if step == stop_at:
            raise Stopped
        x = torch.randn(8, 6, generator=step_generator(3, step, "cpu"))
        return (model(x) - x[:, :2]).square().mean()

    fit(model, loss_at, path, settings, {"size": params}, lambda share, loss: None)
    return model


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    run(tmp_path / "whole.pt")
    often = FitSettings(steps=60, adam_rate=1e-2, muon_rate=1e-2, warm_steps=5, save_every_s=0.0)
    for stop_at in (17, 41):
        with pytest.raises(Stopped):
            run(tmp_path / "parts.pt", often, stop_at)
    run(tmp_path / "parts.pt", often)
    whole, parts = (read_checkpoint(tmp_path / name) for name in ("whole.pt", "parts.pt"))
    assert parts["step"] == 60
    assert same(whole["model"], parts["model"])
    assert same(whole["ema"], parts["ema"])


def test_training_lowers_the_loss_and_writes_its_curve(tmp_path: Path) -> None:
    run(tmp_path / "a.pt", FitSettings(steps=200, adam_rate=1e-2))
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert [step for step, _ in rows] == list(range(20, 201, 20))
    assert rows[-1][1] < 0.5 * rows[0][1]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run(tmp_path / "a.pt")
    run(tmp_path / "a.pt", stop_at=0)


@pytest.mark.parametrize(
    ("settings", "params", "named"),
    [(FitSettings(steps=61, adam_rate=1e-2, muon_rate=1e-2), 1, "steps"), (SETTINGS, 2, "params")],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, settings: FitSettings, params: int, named: str) -> None:
    run(tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(InvalidRequest) as caught:
        run(tmp_path / "a.pt", settings, params=params)
    assert caught.value.param == named
    assert (tmp_path / "a.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_broken_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "base.pt"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"base\.pt"):
        run(path)


def test_the_length_can_be_settled_by_the_time_a_step_takes(tmp_path: Path) -> None:
    told: list[float] = []

    def settle(seconds: float) -> int:
        told.append(seconds)
        return 80

    run(tmp_path / "a.pt", FitSettings(steps=settle, adam_rate=1e-2, muon_rate=1e-2))
    state = read_checkpoint(tmp_path / "a.pt")
    assert (state["steps"], state["step"]) == (80, 80)
    assert len(told) == 1
    assert 0 < told[0] < 1
    run(tmp_path / "b.pt", FitSettings(steps=80, adam_rate=1e-2, muon_rate=1e-2))
    assert same(state["model"], read_checkpoint(tmp_path / "b.pt")["model"])


def test_the_timed_steps_lie_within_the_warm_up_where_the_rate_does_not_depend_on_the_length() -> None:
    assert FitSettings(steps=1, adam_rate=1.0).warm_steps > 0
    for step in range(loop.LAST_TIMED):
        assert rate_factor(step, 40, 30) == rate_factor(step, loop.UNSETTLED, 30)


def test_the_rate_warms_up_and_falls_over_the_second_half() -> None:
    assert rate_factor(0, 4000) < 0.1
    assert rate_factor(1000, 4000) == 1.0
    assert rate_factor(3000, 4000) == pytest.approx(0.5)
    assert 0 < rate_factor(3999, 4000) < 0.05


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order() -> None:
    epochs = [torch.cat([batch_rows(10, 2, step, 1) for step in range(start, start + 5)]).tolist() for start in (0, 5)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="batch is 11"):
        batch_rows(10, 11, 0, 1)


def test_the_rows_and_the_randomness_of_a_step_depend_on_its_number_alone() -> None:
    def loss(rows: Any, generator: Any) -> Any:
        return rows.sum() + torch.rand(1, generator=generator)[0]

    one, again, other = (on_rows(100, 10, seed, "cpu", loss) for seed in (1, 1, 2))
    backwards = [again(step) for step in (2, 1, 0)][::-1]
    assert [one(step) for step in range(3)] == backwards
    assert len({float(part(0)) for part in (one, other)}) == 2
