"""adapt: language models in, encoder–decoder out; in memory, or streamed into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from transformers import GenerationConfig

from graftlm.adaptation.added_tokens import with_sentinels
from graftlm.adaptation.bridge_init import bridged
from graftlm.adaptation.cross_attention_init import cross_attention_init
from graftlm.adaptation.graft_donor import GraftDonor, open_graft_donor
from graftlm.adaptation.plan import Donors, Plan, make_plan
from graftlm.adaptation.recipe import Recipe, recipe_named
from graftlm.adaptation.shaping import shaped
from graftlm.data.tokenizers import Tokenizers, same_tokenizer, target_tokenizer_of, tokenizer_of, tokenizers_of
from graftlm.errors import ConfigError
from graftlm.families.donor import Donor, open_donor
from graftlm.families.locate import locate
from graftlm.families.shards import write_shards
from graftlm.families.stock_config import read_json
from graftlm.files import atomic_folder, check_new_folder, write_json
from graftlm.model.config import BridgeConfig, GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration

DEFAULT = "lossless"
REPORT = "initialisation.json"
SHARD_BYTES = 1_000_000_000


class Choices(TypedDict, total=False):
    """How to adapt; what is not given is as the recipe or the source has it."""

    encoder_from: str | Path | None
    """Model to take the encoder from (an unbalanced pair); the source itself by default."""
    recipe: str | None
    """`lossless` by default for an LLM; nothing else than None for what is an encoder–decoder already."""
    bridge: BridgeConfig | str | None
    """A bridge, or its kind, in the place of the recipe's or of the source's, which may then be a graft too."""
    bridge_init: str | None
    """How it begins; the names are in adaptation/bridge_init.py."""
    cross_attention: str | None
    """How cross-attention that no donor has begins; adaptation/cross_attention_init.py."""
    encoder_layers: str | Iterable[int] | None
    """Layers of the encoder's donor to take: numbers from 0, or text such as 0-11, 0,4,8 or 0-22:2; all by default."""
    decoder_layers: str | Iterable[int] | None
    """The same for the decoder."""
    expand_kv: str | None
    """`encoder`, `decoder` or `both`: each query head gets a copy of its key/value head (GQA becomes MHA)."""
    share_embeddings: bool | None
    """The encoder reads the decoder's table instead of one of its own."""
    tie_word_embeddings: bool | None
    """The output head is the decoder's table instead of a matrix of its own."""
    seed: int
    """Of tensors that no donor has; 0 by default."""


def adapt(
    source: str | Path, *, dtype: torch.dtype | None = None, **choices: Unpack[Choices]
) -> GraftForConditionalGeneration:
    """An encoder–decoder made of the LLM `source`, in memory; one that is an encoder–decoder already is only read.

    `choices` are the fields of Choices; `dtype` None keeps the stored one (the widest).
    Raises: ConfigError for choices that cannot be joined, ConversionError and CheckpointError for a bad source.
    """
    plan = plan_graft(source, **choices)
    return in_memory(plan, generation_config(plan), dtype)


def adapt_to_folder(
    source: str | Path,
    out: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    add_sentinels: int | None = None,
    **choices: Unpack[Choices],
) -> dict[str, Any]:
    """The same, streamed into the new folder `out` with tokenizers and initialisation report, which is returned.

    `add_sentinels` gives the tokenizer so many more tokens to mark spans, and the tables rows for them.
    """
    check_new_folder(out)
    plan = plan_graft(source, **choices)
    tokenizers = donor_tokenizers(plan.donors)
    if add_sentinels is not None:
        plan = with_sentinels(plan, tokenizers, add_sentinels)
    return in_folder(plan, generation_config(plan), tokenizers, out, shard_bytes)


def in_memory(
    plan: Plan, generation: GenerationConfig, dtype: torch.dtype | None = None
) -> GraftForConditionalGeneration:
    """The model of a plan; `dtype` None is the plan's."""
    with torch.device("meta"):
        model = GraftForConditionalGeneration(plan.config)
    state = {name: tensor.to(dtype or plan.dtype) for name, tensor in plan.tensors()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.generation_config = generation
    return model.eval()


def in_folder(
    plan: Plan, generation: GenerationConfig, tokenizers: Tokenizers, out: str | Path, shard_bytes: int
) -> dict[str, Any]:
    """The model of a plan, written tensor by tensor; returns the initialisation report."""
    report = initialisation_report(plan)
    with atomic_folder(out) as folder:
        write_shards(folder, plan.origins, plan.tensors(), shard_bytes)
        config = plan.config
        config.architectures = [GraftForConditionalGeneration.__name__]
        config.dtype = plan.dtype
        config.save_pretrained(folder)
        generation.save_pretrained(folder)
        tokenizers.save(folder)
        write_json(folder / REPORT, report)
    return report


def plan_graft(
    source: str | Path,
    *,
    encoder_from: str | Path | None = None,
    recipe: str | None = None,
    bridge: BridgeConfig | str | None = None,
    bridge_init: str | None = None,
    cross_attention: str | None = None,
    encoder_layers: str | Iterable[int] | None = None,
    decoder_layers: str | Iterable[int] | None = None,
    expand_kv: str | None = None,
    share_embeddings: bool | None = None,
    tie_word_embeddings: bool | None = None,
    seed: int = 0,
) -> Plan:
    """Read both donors' headers and lay out the graft; no tensor is loaded yet."""
    if bridge is None and bridge_init is not None:
        raise ConfigError("An initialisation of the bridge needs the kind of bridge that begins so; give --bridge too.")
    folder = locate(source)
    graft = bridge is not None and read_json(folder / "config.json").get("model_type") == GraftConfig.model_type
    decoder = open_graft_donor(folder) if graft else open_donor(folder)
    if isinstance(decoder, GraftDonor) or decoder.is_seq2seq:
        config, donors = _imported(decoder, encoder_from, recipe, cross_attention)
    else:
        config, donors = _joined(decoder, encoder_from, recipe_named(DEFAULT if recipe is None else recipe))
        balanced = donors["encoder"] is donors["decoder"]
        cross_attention = cross_attention_init(config, balanced, cross_attention)
    replaced = config.bridge
    assert isinstance(replaced, BridgeConfig)
    config, kept = shaped(
        config,
        replaced if bridge is None else BridgeConfig(),
        layers={"encoder": encoder_layers, "decoder": decoder_layers},
        expand_kv=expand_kv,
        tables={"share_embeddings": share_embeddings, "tie_word_embeddings": tie_word_embeddings},
    )
    begins = None
    if bridge is not None:
        chosen = BridgeConfig.from_dict({"kind": bridge}) if isinstance(bridge, str) else bridge
        config, begins = bridged(config, chosen, bridge_init, replaced.kind)
    return make_plan(config, donors, seed, begins, cross_attention, kept)


def _joined(decoder: Donor, encoder_from: str | Path | None, recipe: Recipe) -> tuple[GraftConfig, Donors]:
    if not decoder.is_causal_lm:
        name = decoder.family.name
        raise ConfigError(f"{decoder.folder} is an encoder ({name}); give it as --encoder-from of a decoder.")
    if encoder_from is not None and recipe.balanced_only:
        raise ConfigError(
            f"Recipe {recipe.name} takes encoder and decoder from one LLM; leave out --encoder-from, or take another "
            "recipe, such as t5gemma."
        )
    encoder = decoder if encoder_from is None else open_donor(locate(encoder_from))
    donors: Donors = {"encoder": encoder, "decoder": decoder}
    two = encoder is not decoder and donor_tokenizers(donors).two
    return recipe.config(decoder, encoder, source_tokenizer=two), donors


def _imported(
    donor: Donor | GraftDonor, encoder_from: str | Path | None, recipe: str | None, cross_attention: str | None
) -> tuple[GraftConfig, Donors]:
    kind = "graft" if isinstance(donor, GraftDonor) else donor.family.name
    if recipe is not None or encoder_from is not None:
        raise ConfigError(
            f"{donor.folder} is an encoder-decoder ({kind}) already; leave out --recipe and --encoder-from."
        )
    if cross_attention is not None:
        raise ConfigError(
            f"{donor.folder} is an encoder-decoder ({kind}) already, with what its decoder reads by; leave out the "
            "initialisation of cross-attention."
        )
    config: GraftConfig = donor.config
    if isinstance(donor, Donor):
        config.made_from = {"encoder": kind, "decoder": kind}
    return config, {"encoder": donor, "decoder": donor}


def initialisation_report(plan: Plan) -> dict[str, Any]:
    """Which tensor came from where, and totals by kind of origin."""
    tensors: dict[str, dict[str, Any]] = {}
    copied = fresh = 0
    for name, origin in plan.origins.items():
        size = torch.Size(origin.shape).numel()
        if origin.side is not None and origin.name is not None:
            donor = plan.donors[origin.side]
            tensors[name] = {"from": origin.side, "donor": str(donor.folder), "tensor": donor.source_name(origin.name)}
            if origin.repeats > 1:
                tensors[name]["repeats"] = origin.repeats
            new = 0 if origin.kept is None else size // origin.shape[0] * (origin.shape[0] - origin.kept)
            if new:
                tensors[name] |= {"rows": origin.kept, "seed": plan.seed}
            copied += size - new
            fresh += new
        else:
            tensors[name] = {"fresh": origin.fresh, "seed": plan.seed}
            fresh += size
    return {
        "recipe": plan.config.recipe,
        "bridge_init": plan.bridge_init,
        "cross_attention": plan.cross_attention,
        "parameters": {"copied": copied, "fresh": fresh, "stored": copied + fresh},
        "tensors": tensors,
    }


def generation_config(plan: Plan) -> GenerationConfig:
    """The decoder donor's way to generate, with the tokens that an encoder–decoder needs beside it."""
    config = plan.donors["decoder"].generation_config()
    # A kind of cache that suits the donor has no place for a memory.
    config.cache_implementation = None
    if config.decoder_start_token_id is None:
        config.decoder_start_token_id = plan.config.decoder_start_token_id
    if config.pad_token_id is None:
        config.pad_token_id = plan.config.pad_token_id
    return config


def donor_tokenizers(donors: Donors) -> Tokenizers:
    """The donors' tokenizers, as one where they are equal.

    Raises: ConfigError when one cannot be loaded, or the decoder's has no EOS token.
    """
    encoder, decoder = donors["encoder"], donors["decoder"]
    if isinstance(decoder, GraftDonor):
        return tokenizers_of(decoder.folder, decoder.config)
    target = target_tokenizer_of(decoder.folder)
    source = target if encoder is decoder else tokenizer_of(encoder.folder)
    return Tokenizers(target if same_tokenizer(source, target) else source, target)
