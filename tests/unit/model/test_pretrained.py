"""The models as transformers' own: saved, loaded, trained and adapted by its tools."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import graftlm.hf  # noqa: F401 - registers the models
from graftlm.errors import ConfigError
from graftlm.families.donor import load_causal_lm
from graftlm.model.attention import Attention
from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import token_loss
from tiny import GRAFTS, VOCABULARY, batch, gap, gradients, graft, stack

ROWS = 8


def inputs(labels: bool = True) -> dict[str, Tensor]:
    """A padded batch whose rows have different numbers of label tokens."""
    b = batch("left", vocabulary=40, lengths=(14, 9, 1, 5, 7, 7, 12, 3))
    target = b.target.clone()
    for row in range(ROWS):
        target[row, 1 + row :] = -100
    return {"input_ids": b.ids, "attention_mask": b.mask} | ({"labels": target} if labels else {})


def rows() -> list[dict[str, Tensor]]:
    """The same as a data set."""
    whole = inputs()
    return [{name: tensor[row] for name, tensor in whole.items()} for row in range(ROWS)]


def train(model: Any, folder: Path, **settings: Any) -> Trainer:
    arguments = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_steps": 1, "max_grad_norm": 0.0}
    fixed = {"output_dir": str(folder), "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**(fixed | arguments | settings)),
        train_dataset=rows(),
        data_collator=default_data_collator,
    )
    trainer.train()
    return trainer


@pytest.fixture(params=GRAFTS)
def model(request: pytest.FixtureRequest) -> GraftForConditionalGeneration:
    return graft(**GRAFTS[request.param])


@pytest.mark.parametrize("shard", ["1GB", "10KB"])
@torch.no_grad()
def test_save_and_load(model: GraftForConditionalGeneration, shard: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 3) == (shard == "10KB")
    expected = model(**inputs()).logits
    for load in (GraftForConditionalGeneration, AutoModelForSeq2SeqLM):
        loaded, report = load.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is GraftForConditionalGeneration
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(loaded(**inputs()).logits, expected)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is GraftConfig
    assert config.decoder == model.config.decoder
    assert torch.equal(loaded.lm_head.weight, loaded.decoder.embedding.weight)


@torch.no_grad()
def test_the_causal_lm_too(tiny_lm: Any, tmp_path: Path) -> None:
    for family in ("llama", "gemma2"):  # untied and tied
        donor, b = load_causal_lm(tiny_lm(family)[1]), batch("left")
        donor.save_pretrained(tmp_path / family)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / family)
        assert type(loaded) is CausalLM
        assert torch.equal(loaded(b.ids, b.mask).logits, donor(b.ids, b.mask).logits)
        assert (loaded.lm_head.weight is loaded.decoder.embedding.weight) == (family == "gemma2")


def test_trainer_lowers_the_loss(model: GraftForConditionalGeneration, tmp_path: Path) -> None:
    trainer = train(model, tmp_path, max_steps=12, logging_steps=1, per_device_train_batch_size=ROWS)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert abs(trainer.evaluate(rows())["eval_loss"] - model.eval()(**inputs()).loss.item()) <= 1e-4


def test_autocast_trains_too(model: GraftForConditionalGeneration) -> None:
    """bf16 arithmetic on fp32 weights: nearly the same loss, and gradients in fp32."""
    expected = model(**inputs()).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**inputs()).loss
    assert 0 < abs(found.item() - expected.item()) < 0.05
    found.backward()
    assert gradients(model).keys() == dict(model.named_parameters()).keys()
    assert {grad.dtype for grad in gradients(model).values()} == {torch.float32}


def test_attention_dropout_acts_in_training_only(model: GraftForConditionalGeneration) -> None:
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        for module in layer.children():
            if isinstance(module, Attention):
                module.config = dataclasses.replace(module.config, attention_dropout=0.5)
    with torch.no_grad():
        first, again = (model.eval()(**inputs()).logits for _ in range(2))
        third, fourth = (model.train()(**inputs()).logits for _ in range(2))
    assert torch.equal(first, again)
    assert gap(third, fourth) > 0.1
    assert gap(third, first) > 0.1


def test_accumulation_weighs_every_token_alike(tmp_path: Path) -> None:
    """One batch of eight rows or eight batches of one: the same loss, and the same step."""
    steps = []
    for split in (1, 2, 8):
        model = graft()
        settings = {"per_device_train_batch_size": ROWS // split, "gradient_accumulation_steps": split}
        trainer = train(model, tmp_path, optim="sgd", learning_rate=0.1, logging_steps=1, **settings)
        steps.append((trainer.state.log_history[0]["loss"], model.state_dict()))
    with torch.no_grad():
        assert abs(steps[0][0] - graft()(**inputs()).loss.item()) <= 1e-4
    before = graft().state_dict()
    assert gap(steps[0][1]["decoder.layers.0.mlp.up_proj.weight"], before["decoder.layers.0.mlp.up_proj.weight"]) > 1e-3
    for loss, state in steps[1:]:
        assert abs(loss - steps[0][0]) <= 1e-4
        for name, tensor in state.items():
            assert gap(tensor, steps[0][1][name]) <= 1e-5, name


@torch.no_grad()
def test_the_loss_is_the_mean_over_label_tokens() -> None:
    given = inputs()
    output = graft()(**given)
    counted = given["labels"] != -100
    chosen = output.logits.log_softmax(-1).gather(-1, given["labels"].clamp(min=0)[..., None])[..., 0]
    assert abs(output.loss.item() + chosen[counted].mean().item()) <= 1e-5
    halves = [token_loss(output.logits[i], given["labels"][i], counted.sum()) for i in (slice(3), slice(3, None))]
    assert abs(sum(halves).item() - output.loss.item()) <= 1e-5


def test_gradient_checkpointing_changes_nothing(model: GraftForConditionalGeneration) -> None:
    model.train()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
            blocks = [*model.encoder.layers, *model.decoder.layers]
            assert all(block.gradient_checkpointing for block in blocks)
        model.zero_grad()
        model(**inputs()).loss.backward()
        found.append({name: grad.clone() for name, grad in gradients(model).items()})
    assert found[0].keys() == found[1].keys() == dict(model.named_parameters()).keys()
    for name, grad in found[0].items():
        assert torch.equal(grad, found[1][name]), name
        assert grad.abs().max() > 0, name


@pytest.mark.parametrize("task_type", [None, "SEQ_2_SEQ_LM"])
def test_lora_on_the_encoder_trains_only_that(tmp_path: Path, task_type: str | None) -> None:
    model = graft()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lora = LoraConfig(r=4, target_modules=r"encoder\..*\.(q_proj|v_proj)", task_type=task_type)
    adapted = get_peft_model(model, lora)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all(".encoder.layers." in name and "lora_" in name for name in trained)
    with torch.no_grad():
        start = adapted(**inputs()).logits
        assert gap(start, graft()(**inputs()).logits) == 0
    train(adapted, tmp_path, max_steps=3, per_device_train_batch_size=ROWS)
    after = adapted.get_base_model().state_dict()
    for name, tensor in after.items():
        if "lora_" not in name:
            assert torch.equal(tensor, before[name.replace(".base_layer", "")]), name
    with torch.no_grad():
        tuned = adapted(**inputs()).logits
    assert gap(tuned, start) > 1e-3
    adapted.save_pretrained(tmp_path / "lora")
    again = PeftModel.from_pretrained(graft(), tmp_path / "lora").eval()
    with torch.no_grad():
        assert gap(again(**inputs()).logits, tuned) == 0
        assert gap(again.merge_and_unload()(**inputs()).logits, tuned) < 1e-4
    assert again.generate(**inputs(labels=False), max_new_tokens=3).shape == (ROWS, 3)


def test_embedded_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="Give token ids"):
        graft()(inputs_embeds=torch.zeros(1, 3, 32), labels=torch.tensor([[5]]))


def test_the_vocabulary_cannot_be_resized(tiny_lm: Any) -> None:
    for model in (graft(), load_causal_lm(tiny_lm("llama")[1])):
        with pytest.raises(ConfigError, match="vocabulary of a graft is fixed"):
            model.resize_token_embeddings(VOCABULARY + 1)


def test_fresh_models_are_initialised() -> None:
    """Norms begin as the identity, whichever way they multiply; tables and maps are small and random."""
    for offset in (False, True):
        sides = {"encoder": stack(norm_unit_offset=offset), "decoder": stack(norm_unit_offset=offset)}
        made = GraftForConditionalGeneration(GraftConfig(**(GRAFTS["merged-bos"] | sides)))
        for name, parameter in made.named_parameters():
            if "norm" in name:
                assert parameter.unique().tolist() == [0.0 if offset else 1.0], name
            else:
                assert 0.01 < parameter.std() < 0.03, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_attentions": True}, "output_attentions is not available"),
        ({"input_ids": None}, "Give input_ids or encoder_outputs"),
        ({"labels": None}, "Give labels or decoder_input_ids"),
    ],
    ids=["attentions", "source", "target"],
)
def test_impossible_calls_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graft()(**(inputs() | arguments))


@torch.no_grad()
def test_hidden_states() -> None:
    output = graft()(**inputs(), output_hidden_states=True)
    assert len(output.encoder_hidden_states) == 3
    assert len(output.decoder_hidden_states) == 3 + 1
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    assert torch.equal(graft().logits(output.decoder_hidden_states[-1]), output.logits)
