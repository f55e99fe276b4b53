"""Tiny random encoder-only models, of another width and vocabulary than the tiny language models."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

from tiny import randomise

VOCABULARY, WIDTH, POSITIONS = 320, 48, 40
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODERS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "bert": (BertConfig, {"hidden_act": "gelu_new"}),
    "roberta": (RobertaConfig, {"type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}),
    "xlm-roberta": (XLMRobertaConfig, {"max_position_embeddings": POSITIONS + 4, "pad_token_id": 3}),
    "modernbert": (
        ModernBertConfig,
        {"local_attention": 6, "cls_token_id": 1, "sep_token_id": 2, "initializer_cutoff_factor": 3.0},
    ),
}


def encoder_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """Config of a tiny encoder of one family."""
    kind, settings = ENCODERS[family]
    return kind(**(SIZES | settings | overrides))


def stock_encoder(family: str, seed: int = 0, kind: Any = AutoModel, **overrides: Any) -> PreTrainedModel:
    """transformers' own model, eager, with random weights; `kind` is another Auto class for one with a head."""
    model = randomise(kind.from_config(encoder_config(family, **overrides), attn_implementation="eager"), seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("Wo.weight", "output.dense.weight")):
                # Else what attention adds, which is like for all tokens, outgrows what tells them apart.
                parameter.mul_(0.4)
            elif "norm" in name.lower():
                parameter.add_(float("LayerNorm.weight" in name) - float(name.endswith("norm.bias")))
    return model


def store_encoder(family: str, folder: Path) -> None:
    """Save the stock model in a new folder."""
    stock_encoder(family).save_pretrained(folder)


def stock_layers(stock: PreTrainedModel) -> Any:
    """Its layers, in order."""
    return stock.layers if hasattr(stock, "layers") else stock.encoder.layer


def stock_states(stock: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    """Raw states h_0 … h_N of a batch without padding, and last what the model returns."""
    states: list[Tensor] = []
    layers = stock_layers(stock)
    hooks = [layers[0].register_forward_pre_hook(lambda module, args: states.append(args[0]))]
    hooks += [layer.register_forward_hook(lambda module, args, output: states.append(output)) for layer in layers]
    last = stock(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    for hook in hooks:
        hook.remove()
    return [*states, last]
