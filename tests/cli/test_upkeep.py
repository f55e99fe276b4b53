"""Runs that are kept going, from the command line and from recipes."""

import json
from pathlib import Path

import pytest

from conftest import Check, Command
from updates import press_ctrl_c


def test_a_recipe_goes_on_from_the_checkpoint_before_a_damaged_one(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {graft_folder}\ntask: {task_file}\nout: e\nsteps: 6\neval_every: 3\nbatch_size: 2\n"
        "keep_checkpoints: 2\nactivation_checkpointing: true\non_bad_loss: skip\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        press_ctrl_c(patch, 5)
        assert graftlm("train", recipe).code == 130
    before, newest = sorted((tmp_path / "e.run").glob("step-*"))
    (newest / "optimizer.safetensors").write_bytes(b"")
    # What is done about bad losses may change.
    resumed = graftlm("train", recipe, "on_bad_loss=stop", "--resume")
    assert resumed.code == 0, resumed.err
    assert f"{newest} is damaged; going on from {before}." in resumed.err
    run = json.loads((tmp_path / "e" / "task_encoder.json").read_text())["run"]
    assert (run["resumed_at"], run["skipped"]) == ([3], [])
    assert not (tmp_path / "e.run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--on-bad-loss", "hope"], "on_bad_loss is 'hope'; choose stop or skip"),
        (["--spike", 0.5], "spike is 0.5; it must be a number above 1"),
        (["--report-to", "paper"], "choose none, tensorboard, wandb, trackio"),
    ],
)
def test_upkeep_that_cannot_be(refuses_to_tune: Check, options: list, words: str) -> None:
    refuses_to_tune(options, words)
