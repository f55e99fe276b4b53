"""Muon beside AdamW: which tensors each has, what an update does to them, and resuming exactly."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import tiny
from graftlm.data.collate import Example
from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder
from graftlm.training.optimizer import is_matrix, muon_adamw
from graftlm.training.phase import Phase
from graftlm.training.prepare import prepare
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from updates import Killed, die

EXAMPLES = [Example([1, 5 + i, 9] * (1 + i % 2), [20 + i, 7, 2]) for i in range(8)]
QUIET = Console(quiet=True)
PHASES = (Phase(freeze="decoder", steps=3), Phase(freeze="encoder,embeddings", steps=3), Phase(freeze="none"))
SETTINGS = TuneSettings(
    phases=PHASES, steps=8, batch_size=4, learning_rate=1e-2, warmup_steps=1, eval_every=1, optimizer="muon"
)


def model_with_everything() -> GraftForConditionalGeneration:
    """Cross-attention and tables of its own, and biases."""
    biased = {"qkv_bias": True, "output_bias": True}
    stacks = {side: tiny.stack(**biased) for side in ("encoder", "decoder")}
    return tiny.graft(**tiny.GRAFTS["separate-bos"] | stacks | {"tie_word_embeddings": False})


def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    model = model_with_everything()
    optimizer = muon_adamw(model, set(), lr=1e-2, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_muon = {name for name, p in model.named_parameters() if "momentum_buffer" in optimizer.state[p]}
    by_adamw = {name for name, p in model.named_parameters() if "exp_avg_sq" in optimizer.state[p]}
    assert by_muon | by_adamw == {name for name, _ in model.named_parameters()}
    assert not by_muon & by_adamw
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in by_muon} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert {"lm_head.weight", "encoder.embedding.weight", "decoder.layers.0.mlp_norm.weight"} <= by_adamw
    assert "encoder.layers.0.attention.q_proj.bias" in by_adamw


def test_updates_of_both_have_the_size_of_the_rate() -> None:
    """Muon's go in all directions alike, with a root mean square of about 0.2 of the rate."""
    model = model_with_everything()
    generator = torch.Generator().manual_seed(0)
    plain = torch.optim.AdamW([nn.Parameter(p.detach().clone()) for p in model.parameters()], lr=1e-2, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = muon_adamw(model, set(), lr=1e-2, weight_decay=0.0)
    for ours, theirs in zip(model.parameters(), plain.param_groups[0]["params"], strict=True):
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
    optimizer.step()
    plain.step()
    for (name, p), old, other in zip(model.named_parameters(), before, plain.param_groups[0]["params"], strict=True):
        update = (p - old).detach()
        if is_matrix(name, p):
            assert 0.1 < update.square().mean().sqrt() / 1e-2 < 0.3, name
            values = torch.linalg.svdvals(update)
            assert values.max() / values.quantile(0.1) < 2, name
        else:
            assert tiny.gap(p.detach(), other.detach()) < 1e-6, name


def test_norms_and_biases_do_not_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients of zero, decay is all that an update does."""
    model = model_with_everything()
    monkeypatch.setattr(
        GraftForConditionalGeneration,
        "forward",
        lambda self, **_: {"loss": sum((p * 0).sum() for p in self.parameters() if p.requires_grad)},
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = TuneSettings(freeze="none", steps=1, warmup_steps=0, weight_decay=0.5, optimizer="muon")
    tune(model, EXAMPLES, settings, QUIET)
    moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert moved == {name for name in before if not name.endswith("bias") and "norm" not in name}


def test_muon_learns() -> None:
    model = tiny.graft()
    settings = TuneSettings(steps=60, batch_size=8, learning_rate=1e-2, warmup_steps=5, optimizer="muon")
    losses = [loss for _, loss in tune(model, EXAMPLES, settings, QUIET)["losses"]]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("dies_after", [1, 3, 5, 6])
def test_resuming_is_exact_in_every_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int) -> None:
    def run(model: GraftForConditionalGeneration, **more: Any) -> dict[str, Any]:
        return tune(model, EXAMPLES, SETTINGS, QUIET, **more)

    expected = run(whole := model_with_everything())
    folder = RunFolder(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        die(patch, dies_after + 1)
        with pytest.raises(Killed):
            run(model_with_everything(), run_folder=folder)
    last = folder.last()
    assert last is not None
    assert run(resumed := model_with_everything(), run_folder=folder, resume=last)["losses"] == expected["losses"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    "changed", [{"freeze": "*,!bridge"}, {"lora": 2}, {"freeze": "decoder,encoder", "decoder_adapter": "lora"}], ids=str
)
def test_muon_without_a_matrix_is_refused(changed: dict[str, Any]) -> None:
    model = tiny.graft(**tiny.GRAFTS["separate-bos"] | {"bridge": {"kind": "scalar"}})
    settings = dataclasses.replace(TuneSettings(), **changed)
    assert prepare(model, settings).trainable
    with pytest.raises(ConfigError, match="of which none trains; choose adamw"):
        prepare(model, dataclasses.replace(settings, optimizer="muon"))
