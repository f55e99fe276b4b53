"""The files of recipes/scaling are what accelerate and transformers read; DeepSpeed itself is not needed for that."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import TrainingArguments
from transformers.integrations import deepspeed

from graftlm.errors import ConfigError
from graftlm.training import sharding
from graftlm.training.checkpoint import RunFolder
from graftlm.training.phase import Phase
from graftlm.training.settings import TuneSettings

FOLDER = Path(__file__).parents[3] / "recipes" / "scaling"


class WithoutDeepSpeed(deepspeed.HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):
    """transformers' own, on accelerate's, which it stands on only where DeepSpeed is installed."""


FOLDERLESS = RunFolder("unused", {})


def test_accelerate_reads_the_fsdp_config() -> None:
    config: Any = load_config_from_file(str(FOLDER / "fsdp2.yaml"))
    assert config.distributed_type == "FSDP"
    assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("stage", [2, 3])
def test_transformers_fills_in_the_deepspeed_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    monkeypatch.setattr(deepspeed, "dep_version_check", lambda _: None)
    config = WithoutDeepSpeed(str(FOLDER / f"deepspeed_zero{stage}.json"))
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=3, use_cpu=True)
    config.trainer_config_process(arguments)
    assert (config.is_zero2(), config.is_zero3()) == (stage == 2, stage == 3)
    assert config.config["train_micro_batch_size_per_gpu"] == 3
    assert config.config["gradient_clipping"] == arguments.max_grad_norm
    assert not config.mismatches


def test_deepspeed_came_to_the_losses_of_ddp() -> None:
    """recipes/scaling/deepspeed_losses.py, which needs DeepSpeed, was run with the configs as they are."""
    found = json.loads((FOLDER / "deepspeed_losses.json").read_text())
    for name, digest in found["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, f"{name} changed; run it again"
        assert found["losses"][name] == pytest.approx(found["losses"]["ddp"], rel=1e-5)
    assert set(found["losses"]) == {"ddp", "deepspeed_zero2.json", "deepspeed_zero3.json"}
    assert len(set(found["losses"]["ddp"])) == 4


def test_what_several_processes_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="batch_size is 16; make it a multiple of the 3 processes"):
        sharding.take_over_sharding(TuneSettings(), FOLDERLESS)
    with pytest.raises(ConfigError, match="of the 3 processes times the accumulation of 2"):
        sharding.take_over_sharding(TuneSettings(batch_size=10, accumulation=2), FOLDERLESS)
    assert not sharding.take_over_sharding(TuneSettings(batch_tokens=300), FOLDERLESS)
    phased = TuneSettings(batch_size=3, phases=(Phase(freeze="encoder", steps=1), Phase(freeze="none")))
    assert not sharding.take_over_sharding(phased, FOLDERLESS)
    monkeypatch.setenv(sharding.ASKED, "true")
    with pytest.raises(ConfigError, match="phases cannot be trained with FSDP"):
        sharding.take_over_sharding(phased, FOLDERLESS)
    with pytest.raises(ConfigError, match="optimizer muon needs whole matrices"):
        sharding.take_over_sharding(TuneSettings(batch_size=3, optimizer="muon"), FOLDERLESS)
    assert sharding.take_over_sharding(TuneSettings(batch_size=3), FOLDERLESS)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="DeepSpeed cannot be read or written here"):
        sharding.take_over_sharding(TuneSettings(batch_size=3), FOLDERLESS)
