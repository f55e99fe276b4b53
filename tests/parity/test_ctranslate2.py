"""The T5Gemma folder of a graft in CTranslate2: where its own converter and engine follow stock, and where not.

Written for CTranslate2 4.8.5. It follows stock T5Gemma (log-probabilities to 1e-4, the same greedy tokens, rows of
different lengths in one batch) with

- both soft-caps off: the converter reads neither, and the engine has none for attention. The cap of the logits changes
  scores only, not greedy tokens; the one of attention changes both, so every real T5Gemma (caps 50 and 30) deviates;
- `query_pre_attn_scalar` equal to `head_dim` (Gemma 2 2B and 9B, not 27B): attention is divided by sqrt(head_dim);
- windows wider than the source and the target: `layer_types` and each side's `sliding_window` are not read;
- a rotary base of 10000: the converter asks the config for `rope_theta`, which transformers 5 keeps in
  `rope_parameters`; a `rope_theta` key in config.json does not help, since loading moves it there;
- a head tied to the decoder's embedding: that embedding is always taken as the head;
- one `rms_norm_eps`: the encoder's is used on both sides;
- weights that are loaded in fp32: in bf16 the gains 1 + w are rounded to bf16. `"dtype": "float32"` in config.json is
  enough, the stored weights may be bf16;
- the tokenizer's one EOS: further end tokens of generation_config.json are not read (`end_token=` may name them);
- sources of at most 4096 tokens, unless config.json holds `"sliding_window": 0` beside `encoder` and `decoder`. T5Gemma
  has no such key and stock ignores it. The converter reads it, or else takes 4096, as the window of every layer, and
  behind that window the engine gives other tokens or its process dies.

A folder whose tokenizer has no unknown token, or has fewer tokens than the model, is refused. The engine's own defaults
`max_input_length=1024` and `min_decoding_length=1` are not stock's and are set by the caller.
"""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, T5GemmaForConditionalGeneration

import graftlm
from graftlm.adaptation.adapt import adapt
from graftlm.adaptation.store import save_graft
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import BOS, EOS, PAD, VOCABULARY, WHOLE, Batch, batch, gap, stock_lm, tokenizer

FOLLOWED = {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "query_pre_attn_scalar": 8,
    "sliding_window": 128,
}
"""Settings of a tiny Gemma 2 (head_dim 8) with which the engine follows stock."""
SEEN = 10 * WHOLE
"""A difference of log-probabilities that no rounding explains."""
NEW_TOKENS = 16
CPU = {"device": "cpu", "compute_type": "float32", "inter_threads": 1, "intra_threads": 1}
GREEDY = {"beam_size": 1, "max_decoding_length": NEW_TOKENS, "min_decoding_length": 0, "max_input_length": 0}


class Exported(NamedTuple):
    """A graft, stock's model of the folder that was written from it, and that folder."""

    graft: GraftForConditionalGeneration
    stock: PreTrainedModel
    folder: Path


class Engine:
    """CTranslate2's translator of a T5Gemma folder, by token numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.with_name(f"{folder.name}-ctranslate2")
        if not self.folder.exists():
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(self.folder))
        self.translator = ctranslate2.Translator(str(self.folder), **CPU)

    def greedy(self, b: Batch, **settings: Any) -> list[list[int]]:
        """Target tokens of every row, with the end token."""
        results = self.translator.translate_batch(sources(b), return_end_token=True, **(GREEDY | settings))
        return [tokenizer().convert_tokens_to_ids(result.hypotheses[0]) for result in results]

    def log_probabilities(self, b: Batch) -> Tensor:
        """Of each target token and the EOS after them; (B, T + 1)."""
        targets = [tokenizer().convert_ids_to_tokens(row.tolist()) for row in b.target]
        scored = self.translator.score_batch(sources(b), targets, max_input_length=0)
        return torch.tensor([row.log_probs for row in scored])


def sources(b: Batch) -> list[list[str]]:
    return [tokenizer().convert_ids_to_tokens(b.row(i).tolist()) for i in range(len(b.ids))]


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, b: Batch) -> Tensor:
    """What `Engine.log_probabilities` returns, of a model in transformers."""
    start, end = (torch.full((len(b.target), 1), token) for token in (BOS, EOS))
    inputs, labels = torch.cat([start, b.target], 1), torch.cat([b.target, end], 1)
    logits = model(input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=inputs).logits
    return logits.float().log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def greedy(model: PreTrainedModel, b: Batch, ends: tuple[int, ...] = (EOS,)) -> list[list[int]]:
    """What `Engine.greedy` returns, of a model in transformers."""
    tokens = {"decoder_start_token_id": BOS, "pad_token_id": PAD, "eos_token_id": list(ends)}
    made = model.generate(b.ids, attention_mask=b.mask, max_new_tokens=NEW_TOKENS, do_sample=False, **tokens)
    rows = [row[1:] for row in made.tolist()]
    stops = [next((i for i, token in enumerate(row) if token in ends), len(row)) for row in rows]
    return [row[: stop + 1] for row, stop in zip(rows, stops, strict=True)]


def with_unknown() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, with its padding as the unknown token that the engine asks for."""
    found = copy.deepcopy(tokenizer())
    found.unk_token = found.pad_token
    return found


@torch.no_grad()
def language_model(folder: Path, seed: int, dtype: torch.dtype, settings: dict[str, Any]) -> PreTrainedModel:
    """A Gemma 2 that does not only repeat its last token, as a large tied embedding makes it, and often ends."""
    model = stock_lm("gemma2", seed=seed, **(FOLLOWED | settings))
    model.get_input_embeddings().weight.mul_(0.1)[EOS] *= 2.5
    model.to(dtype).save_pretrained(folder)
    with_unknown().save_pretrained(folder)
    return model


@torch.no_grad()
def lively(graft: GraftForConditionalGeneration, fresh: bool) -> GraftForConditionalGeneration:
    """The graft with logits of ordinary size, and cross-attention that matters where it is fresh."""
    for name, parameter in graft.named_parameters():
        if name == "decoder.norm.weight":
            parameter.copy_((1 + parameter) * 4 - 1)
        if fresh and ".cross_attention." in name:
            parameter.mul_(0.25 / 0.02)
    return graft


Export = Callable[..., Exported]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """`export(decoder settings, encoder settings, dtype)`; balanced without encoder settings. Made once each."""
    made: dict[str, Exported] = {}

    def make(
        decoder: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Exported:
        key = json.dumps([decoder, encoder, str(dtype)], sort_keys=True)
        if key not in made:
            root = tmp_path_factory.mktemp("t5gemma")
            language_model(root / "lm", 2, dtype, decoder or {})
            if encoder is not None:
                language_model(root / "encoder-lm", 7, dtype, encoder)
            source = None if encoder is None else root / "encoder-lm"
            graft = lively(adapt(root / "lm", encoder_from=source, recipe="t5gemma"), fresh=encoder is not None)
            write(graft, root / "t5gemma")
            stock = T5GemmaForConditionalGeneration.from_pretrained(root / "t5gemma", dtype=torch.float32)
            made[key] = Exported(graft.float(), stock.eval(), root / "t5gemma")
        return made[key]

    return make


def write(graft: GraftForConditionalGeneration, folder: Path) -> None:
    """The graft as a T5Gemma folder, as graftlm export writes it."""
    stored = folder.with_name("graft")
    save_graft(graft, with_unknown(), stored, run={})
    graftlm.export(stored, "t5gemma", folder)


def with_keys(folder: Path, name: str, **keys: Any) -> Path:
    """A copy of the folder whose config.json holds these keys too."""
    edited = folder.with_name(name)
    shutil.copytree(folder, edited, dirs_exist_ok=True)
    config = json.loads((edited / "config.json").read_text())
    (edited / "config.json").write_text(json.dumps(config | keys))
    return edited


SOURCES = batch("both", lengths=(14, 9, 1, 5, 11, 3))
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "balanced": ({}, None),
    "biased": ({"attention_bias": True, "head_dim": 16, "query_pre_attn_scalar": 16}, None),
    "one-key-head": ({"num_key_value_heads": 1, "hidden_activation": "gelu"}, None),
    "no-groups": ({"num_key_value_heads": 4, "rms_norm_eps": 0.01}, None),
    "smaller-encoder": ({}, {"hidden_size": 24, "num_hidden_layers": 2, "num_key_value_heads": 1}),
    "larger-encoder": (
        {},
        {
            "hidden_size": 48,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
        },
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_engine_follows(export: Export, shape: str) -> None:
    graft, stock, folder = export(*SHAPES[shape])
    engine = Engine(folder)
    expected = log_probabilities(stock, SOURCES)
    assert gap(log_probabilities(graft, SOURCES), expected) <= WHOLE
    assert gap(engine.log_probabilities(SOURCES), expected) <= WHOLE
    rows = greedy(stock, SOURCES)
    assert greedy(graft, SOURCES) == rows
    assert engine.greedy(SOURCES) == rows
    assert len({tuple(row) for row in rows}) >= len(rows) - 1
    assert sum(len(set(row)) > 2 for row in rows) >= len(rows) / 2


def test_rows_end_at_their_own_steps(export: Export) -> None:
    _, stock, folder = export()
    rows = greedy(stock, SOURCES)
    assert {row[-1] == EOS for row in rows} == {True, False}
    assert [EOS] in rows, "no row shows that the first token may be EOS"
    assert Engine(folder).greedy(SOURCES) == rows
    assert [EOS] not in Engine(folder).greedy(SOURCES, min_decoding_length=1)


ONE_LAYER = {"num_hidden_layers": 1}


class Deviation(NamedTuple):
    """What the engine does not follow, lengths that show it, and `less`, where it still follows.

    `moves_tokens`: whether greedy tokens of `SOURCES` differ; None where that is up to the weights.
    """

    decoder: dict[str, Any]
    encoder: dict[str, Any] | None = None
    source: int = 1
    target: int = 1
    less: tuple[int, int] | None = None
    moves_tokens: bool | None = True


DEVIATIONS = {
    "the soft-cap of attention": Deviation({"attn_logit_softcapping": 5.0}),
    "the soft-cap of logits": Deviation({"final_logit_softcapping": 8.0}, moves_tokens=False),
    "the soft-caps of Gemma 2": Deviation(
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}, source=9, target=9, moves_tokens=None
    ),
    "the scale of queries": Deviation({"query_pre_attn_scalar": 16}),
    "the encoder's window": Deviation({"sliding_window": 5}, source=7, less=(6, 1)),
    "the decoder's window": Deviation({"sliding_window": 5}, target=5, less=(1, 4)),
    "the rotary base": Deviation({"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "an untied head": Deviation({"tie_word_embeddings": False}),
    "the decoder's epsilon": Deviation({"rms_norm_eps": 0.01}, {}),
}


@pytest.mark.parametrize("mechanism", DEVIATIONS)
def test_the_engine_deviates(export: Export, mechanism: str) -> None:
    """One layer and as few tokens as show that the engine leaves a mechanism out; graft and stock agree there."""
    case = DEVIATIONS[mechanism]
    encoder = None if case.encoder is None else ONE_LAYER | case.encoder
    graft, stock, folder = export(ONE_LAYER | case.decoder, encoder)
    engine = Engine(folder)
    b = batch("right", lengths=(case.source,), target=case.target)
    expected = log_probabilities(stock, b)
    assert gap(log_probabilities(graft, b), expected) <= WHOLE
    assert gap(engine.log_probabilities(b), expected) > SEEN, f"the engine follows {mechanism} now: say so above"
    rows = greedy(stock, SOURCES)
    assert greedy(graft, SOURCES) == rows
    if case.moves_tokens is not None:
        assert (engine.greedy(SOURCES) != rows) == case.moves_tokens
    if case.less:
        source, target = case.less
        b = batch("right", lengths=(source,), target=target)
        assert gap(engine.log_probabilities(b), log_probabilities(stock, b)) <= WHOLE


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_gains_are_rounded_to_the_dtype_of_the_config(export: Export, stored: torch.dtype) -> None:
    _, stock, folder = export(ONE_LAYER, dtype=stored)
    expected = log_probabilities(stock, SOURCES)
    found = gap(Engine(folder).log_probabilities(SOURCES), expected)
    assert found <= WHOLE if stored == torch.float32 else found > SEEN, "the engine adds 1 in fp32 now: say so above"
    named = with_keys(folder, "named-fp32", dtype="float32")
    assert gap(Engine(named).log_probabilities(SOURCES), expected) <= WHOLE


def test_only_the_tokenizers_end_token_is_read(export: Export) -> None:
    _, stock, folder = export()
    other = greedy(stock, SOURCES)[0][1]
    ends = (EOS, other)
    expected = greedy(stock, SOURCES, ends)
    edited = with_keys(folder, "two-ends", eos_token_id=list(ends))
    (edited / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ends)}))
    engine = Engine(edited)
    assert engine.greedy(SOURCES) != expected, "the engine reads all end tokens now: say so above"
    assert engine.greedy(SOURCES, end_token=tokenizer().convert_ids_to_tokens(list(ends))) == expected


LONG = {"sliding_window": 8192, "max_position_embeddings": 8192, "num_attention_heads": 1, "num_key_value_heads": 1}
TRANSLATE = """
import ctranslate2, json, sys
call = json.load(sys.stdin)
engine = ctranslate2.Translator(call["folder"], **call["device"])
print(json.dumps(engine.translate_batch(call["sources"], return_end_token=True, **call["settings"])[0].hypotheses[0]))
"""


def test_sources_beyond_4096_tokens_need_a_key(export: Export) -> None:
    """Without the key the engine's process may die of a corrupted heap, so a child runs it."""
    graft, stock, folder = export(ONE_LAYER | LONG)
    fitting, b = (batch("right", lengths=(length,), target=1) for length in (4096, 4097))
    assert Engine(folder).greedy(fitting) == greedy(stock, fitting)
    keyed = with_keys(folder, "without-a-window", sliding_window=0)
    again = T5GemmaForConditionalGeneration.from_pretrained(keyed).eval()
    expected, rows = log_probabilities(stock, b), greedy(stock, b)
    assert torch.equal(log_probabilities(again, b), expected)
    assert gap(log_probabilities(graft, b), expected) <= WHOLE
    assert gap(Engine(keyed).log_probabilities(b), expected) <= WHOLE
    assert Engine(keyed).greedy(b) == greedy(graft, b) == rows
    call = {"folder": str(Engine(folder).folder), "device": CPU, "sources": sources(b), "settings": GREEDY}
    child = subprocess.run([sys.executable, "-c", TRANSLATE], input=json.dumps(call), capture_output=True, text=True)
    found = tokenizer().convert_tokens_to_ids(json.loads(child.stdout)) if child.returncode == 0 else None
    assert [found] != rows, "the engine reads sources beyond 4096 tokens without the key now: say so above"


def test_what_the_engine_refuses(export: Export, tmp_path: Path) -> None:
    folder = with_keys(export().folder, "no-unknown")
    tokenizer().save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).unk_token is None
    with pytest.raises(RuntimeError, match="must be string, but is null"):
        Engine(folder)
    _, _, larger = export({"vocab_size": VOCABULARY + 8})
    with pytest.raises(ValueError, match=f"has size {VOCABULARY} but the model expected"):
        Engine(larger)
