"""A run: validation, the best weights, checkpoints, resuming exactly, and stopping early."""

import copy
import math
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tiny
from graftlm.data.collate import Example
from graftlm.data.mixture import Mixture
from graftlm.errors import CheckpointError, GraftError, TrainingError
from graftlm.evaluation.loss import loss_and_source_gain
from graftlm.generation.likelihood import target_nats
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training import checkpoint, keeper
from graftlm.training.checkpoint import RunFolder
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from updates import Killed, die, press_ctrl_c

MIXTURE = Mixture.of(
    {
        "a": [Example([1, 5 + i, 9], [20 + i, 7, 2]) for i in range(8)],
        "b": [Example([1, 30 + i % 5] * (1 + i % 3), [4, 5 + i % 9, 2]) for i in range(32)],
    }
)
VALIDATION = {name: rows[:5] for name, rows in MIXTURE.examples.items()}
SETTINGS = TuneSettings(steps=25, batch_size=4, learning_rate=1e-2, warmup_steps=3, eval_every=6)
QUIET = Console(quiet=True)


def run(model: GraftForConditionalGeneration, folder: RunFolder | None = None, **more: Any) -> dict[str, Any]:
    return tune(model, MIXTURE, more.pop("settings", SETTINGS), QUIET, validation=VALIDATION, run_folder=folder, **more)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("dies_after", [6, 13, 24])
def test_a_killed_run_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int) -> None:
    whole = tiny.graft()
    expected = run(whole)
    folder = RunFolder(tmp_path / "run", {"x": 1})
    with monkeypatch.context() as patch:
        die(patch, dies_after)
        with pytest.raises(Killed):
            run(tiny.graft(), folder)
    written = (dies_after - 1) // 6 * 6
    assert (folder.last() is None) == (written == 0)
    resumed = tiny.graft()
    torch.manual_seed(123)
    found = run(resumed, folder, resume=folder.last())
    for key in ("losses", "validation", "best"):
        assert found[key] == expected[key], key
    assert found["resumed_at"] == ([written] if written else [])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_finished_run_resumes_to_its_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {})
    expected = run(whole := tiny.graft(), folder)
    found = run(again := tiny.graft(), folder, resume=folder.last())
    assert found["losses"] == expected["losses"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_checkpoints_hold_no_pickle_and_nothing_frozen(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {})
    result = run(tiny.graft(), folder)
    best = result["best"]["step"]
    parts = ("optimizer.safetensors", "random.safetensors", "state.json", "trainer_state.json", "weights.safetensors")
    assert files(folder.path) == sorted(
        [f"step-00000025/{part}" for part in parts] + [f"best-{best:08d}/weights.safetensors"]
    )
    stored = checkpoint._read(folder.path / "step-00000025" / "weights.safetensors")
    assert all(name.startswith("encoder.") for name in stored)
    moments = checkpoint._read(folder.path / "step-00000025" / "optimizer.safetensors")
    assert len(moments) == 3 * len(stored)


def test_the_best_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 4.0, 1.0])
    seen: dict[float, dict[str, torch.Tensor]] = {}

    def validate(model: GraftForConditionalGeneration, *_: Any) -> dict[str, float]:
        loss = next(losses)
        seen.setdefault(loss, copy.deepcopy(model.state_dict()))
        return {"a": loss, "b": loss}

    monkeypatch.setattr(keeper, "validation_losses", validate)
    model = tiny.graft()
    result = run(model)
    best = result["best"]
    assert (best["step"], best["loss"], best["tasks"]) == (12, 1.0, {"a": 1.0, "b": 1.0})
    assert [entry["step"] for entry in result["validation"]] == [6, 12, 18, 24, 25]
    assert all(torch.equal(tensor, seen[1.0][name]) for name, tensor in model.state_dict().items())


def test_validation_is_the_loss_per_target_token_weighted_by_the_rates() -> None:
    model = tiny.graft()
    entry = run(model, settings=TuneSettings(steps=1, batch_size=4, learning_rate=1e-2, warmup_steps=0))["validation"][
        0
    ]
    own = {}
    for name, rows in VALIDATION.items():
        own[name] = sum(target_nats(model, rows)) / sum(len(row.labels) for row in rows)
        assert entry["tasks"][name] == pytest.approx(own[name], rel=2e-2)  # training's precision may be bf16
    assert entry["loss"] == pytest.approx(sum(MIXTURE.rates[n] * loss for n, loss in entry["tasks"].items()))


def test_validation_has_the_source_gain_of_tasks_with_several_sources() -> None:
    settings = TuneSettings(steps=1, batch_size=4, learning_rate=1e-2, warmup_steps=0)
    model = tiny.graft()
    only_a = {"a": VALIDATION["a"], "b": VALIDATION["b"][:1]}
    entry = tune(model, MIXTURE, settings, QUIET, validation=only_a)["validation"][0]
    gain = loss_and_source_gain(model, VALIDATION["a"])["source_gain"].value
    assert entry["source_gains"] == {"a": pytest.approx(gain, rel=5e-2)}  # training's precision may be bf16
    assert entry["source_gain"] == pytest.approx(gain, rel=5e-2)
    neither = {name: rows[:1] for name, rows in VALIDATION.items()}
    entry = tune(tiny.graft(), MIXTURE, settings, QUIET, validation=neither)["validation"][0]
    assert (entry["source_gain"], entry["source_gains"]) == (None, {})


def test_the_record_says_what_was_done() -> None:
    result = run(tiny.graft())
    assert result["mixture"] == {
        "a": {"examples": 8, "rate": pytest.approx(1 / 3)},
        "b": {"examples": 32, "rate": pytest.approx(2 / 3)},
    }
    assert result["settings"]["seed"] == 0
    assert result["keeps_decoder"]
    assert [step for step, _ in result["losses"]] == [10, 20, 25]
    assert 0 < result["validation_seconds"] < result["seconds"] + 0.1
    assert result["interrupted_at"] is None
    assert {"python", "graftlm", "torch", "transformers"} <= set(result["versions"])


def test_resuming_another_run_names_the_differences(tmp_path: Path) -> None:
    mine = {"settings": {"learning_rate": 0.01, "seed": 0}, "model": "a" * 64, "data": {"t": "x"}}
    folder = RunFolder(tmp_path / "run", mine)
    run(tiny.graft(), folder)
    other = RunFolder(
        tmp_path / "run", {"settings": {"learning_rate": 0.02, "seed": 0}, "model": "b" * 64, "data": {"u": "x"}}
    )
    model = tiny.graft()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError) as caught:
        run(model, other, resume=other.last())
    for words in (
        "settings.learning_rate was 0.01 and is 0.02",
        'model was "aaaaaaaaaaaaaaaaaaa… and is "bbbbbbbbbbbbbbbbbbb…',
        'data.t was "x" and is null',
        'data.u was null and is "x"',
    ):
        assert words in str(caught.value)
    assert "seed" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run", {})
    run(tiny.graft(), folder)
    last = folder.last()
    assert last is not None
    (last / name).write_bytes((last / name).read_bytes()[:-10])
    # The weights matter to a finished run, the moments only to one that goes on.
    settings = TuneSettings(**{**SETTINGS.__dict__, "steps": 40})
    with pytest.raises(CheckpointError, match=f"{name} is missing or damaged; remove .*run to start anew"):
        run(tiny.graft(), folder, resume=last, settings=settings)


def test_a_validation_loss_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "validation_losses", lambda *_: {"a": math.inf, "b": 1.0})
    with pytest.raises(TrainingError, match="validation loss is inf at update 6"):
        run(tiny.graft())


def test_ctrl_c_finishes_the_update_and_the_run_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(whole := tiny.graft())
    folder = RunFolder(tmp_path / "run", {})
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 15)
        stopped = run(tiny.graft(), folder)
    assert signal.getsignal(signal.SIGINT) is handler
    assert stopped["interrupted_at"] == 15
    assert stopped["best"]["step"] in (6, 12)
    last = folder.last()
    assert last is not None
    assert last.name == "step-00000015"
    found = run(resumed := tiny.graft(), folder, resume=last)
    assert found["losses"] == expected["losses"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(("presses", "keeps"), [(2, True), (1, False)], ids=["second", "first without a run folder"])
def test_ctrl_c_that_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int, keeps: bool) -> None:
    def press(*_: Any) -> None:
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(keeper.History, "add_loss", press)
    with pytest.raises(KeyboardInterrupt):
        run(tiny.graft(), RunFolder(tmp_path / "run", {}) if keeps else None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, part: str) -> None:
    expected = run(tiny.graft())["losses"]
    folder = RunFolder(tmp_path / "run", {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    remove = folder._remove_passed

    def fill_the_disk(*which: Any) -> None:
        """From now on files end half-way through the `part` of a checkpoint."""
        remove(*which)
        size = (folder.path / "step-00000006" / part).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    folder._remove_passed = fill_the_disk
    try:
        with pytest.raises(GraftError, match=r"^Cannot write \S+ \(File too large\); free some space there, or choose"):
            run(tiny.graft(), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = RunFolder(tmp_path / "run", {})
    last = folder.last_whole()
    assert last is not None
    assert last.name == "step-00000006"
    assert [path.name for path in folder.path.glob(".*")] == []
    assert run(tiny.graft(), folder, resume=last)["losses"] == expected


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    expected = run(tiny.graft())
    folder = RunFolder(tmp_path / "run", {}, keep=3)
    run(tiny.graft(), folder)
    steps = sorted(path.name for path in folder.path.glob("step-*"))
    assert steps == ["step-00000018", "step-00000024", "step-00000025"]
    assert folder.last_whole() == folder.last() == folder.path / steps[-1]
    for name, part in zip(steps[1:], ("optimizer.safetensors", "random.safetensors"), strict=True):
        content = bytearray((folder.path / name / part).read_bytes())
        content[-5] ^= 1
        (folder.path / name / part).write_bytes(content)
    last = folder.last_whole()
    assert last == folder.path / steps[0]
    found = run(tiny.graft(), folder, resume=last)
    assert (found["losses"], found["best"]) == (expected["losses"], expected["best"])
    assert [path.name for path in sorted(folder.path.glob("step-*"))] == steps
    for name in steps:
        (folder.path / name / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000025/weights.safetensors is missing or damaged; remove"):
        folder.last_whole()


def test_kept_checkpoints_have_their_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 4.0, 1.0, 5.0])
    monkeypatch.setattr(keeper, "validation_losses", lambda *_: dict.fromkeys("ab", next(losses)))
    folder = RunFolder(tmp_path / "run", {}, keep=3)
    run(tiny.graft(), folder)
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "best-00000012", "best-00000024", "step-00000018", "step-00000024", "step-00000025",
    ]  # fmt: skip
