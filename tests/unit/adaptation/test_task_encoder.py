"""The task encoder: everything on the encoder's side, and only for its own decoder."""

import json
from pathlib import Path

import pytest
import torch

import tiny
from graftlm.adaptation.task_encoder import load_task_encoder, read_manifest, save_task_encoder
from graftlm.errors import CheckpointError
from graftlm.model.modeling import GraftForConditionalGeneration


def logits(model: GraftForConditionalGeneration) -> torch.Tensor:
    batch = tiny.batch("both", vocabulary=40)
    with torch.no_grad():
        return model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.target).logits


def changed(model: GraftForConditionalGeneration) -> GraftForConditionalGeneration:
    """The same model with another encoder, as tuning leaves it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("encoder."):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    if model.config.encoder_attention == "causal":
        model.set_encoder_attention("bidirectional")
    return model


def write(model: GraftForConditionalGeneration, out: Path) -> dict:
    return save_task_encoder(model, out, name="t", tasks=[{"name": "t"}], run={})


@pytest.mark.parametrize("settings", tiny.GRAFTS.values(), ids=tiny.GRAFTS)
def test_round_trip(tmp_path: Path, settings: dict) -> None:
    tuned = changed(tiny.graft(**settings))
    manifest = write(tuned, tmp_path / "e")
    assert read_manifest(tmp_path / "e") == json.loads(json.dumps(manifest))
    model = tiny.graft(**settings)
    assert tiny.gap(logits(model), logits(tuned)) > 1e-2
    load_task_encoder(model, tmp_path / "e")
    assert torch.equal(logits(model), logits(tuned))
    assert model.config.to_dict() == tuned.config.to_dict()


def test_another_decoder_is_refused_and_the_model_is_unchanged(tmp_path: Path) -> None:
    write(changed(tiny.graft()), tmp_path / "e")
    other = tiny.graft(seed=1)
    before = logits(other)
    with pytest.raises(CheckpointError, match="another decoder"):
        load_task_encoder(other, tmp_path / "e")
    assert torch.equal(logits(other), before)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(changed(tiny.graft()), tmp_path / "e")
    path = tmp_path / "e" / "task_encoder.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["share_embeddings"] = False
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"encoder\.embedding\.weight"):
        load_task_encoder(tiny.graft(), tmp_path / "e")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "task_encoder.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="format 99"):
        read_manifest(tmp_path)


def test_the_decoder_is_not_stored(tmp_path: Path) -> None:
    write(changed(tiny.graft()), tmp_path / "e")
    size = (tmp_path / "e" / "model.safetensors").stat().st_size
    encoder = sum(p.numel() for name, p in tiny.graft().named_parameters() if name.startswith("encoder."))
    assert encoder * 4 <= size < encoder * 4 + 10_000
