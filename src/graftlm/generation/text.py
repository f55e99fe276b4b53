"""From source texts to target texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase

from graftlm.data.collate import pad
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import ConfigError
from graftlm.generation.inference import inference
from graftlm.generation.sampling import row_seed, sampler
from graftlm.model.modeling import GraftForConditionalGeneration

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


def generate_texts(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase | Tokenizers,
    sources: Sequence[str],
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    batch_size: int = 16,
    source_limit: int | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """One target per source, in their order, greedy unless `num_beams` or `do_sample` say otherwise.

    A target depends on its source and, when sampling, on `seed` and its place in `sources`; never on the batch.
    Raises: TaskError for a source that is empty or over `source_limit`, ConfigError for settings that cannot work.
    """
    if do_sample and num_beams > 1:
        raise ConfigError("Sampling and beams do not go together; leave out do_sample or num_beams.")
    tokenizers = Tokenizers.of(tokenizer, model.config)
    rows = [
        tokenizers.encode_source(text, source_limit, truncate=truncate, name=f"Source {number}")
        for number, text in enumerate(sources, start=1)
    ]
    config = _settings(model, tokenizers, max_new_tokens, num_beams)
    # Like lengths side by side need little padding; the longest first, so that memory runs out at once or not at all.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    targets = [""] * len(rows)
    with inference(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            noise = sampler([row_seed(seed, i) for i in chosen], temperature, top_p) if do_sample else None
            texts = _generate(model, tokenizers, [rows[i] for i in chosen], config, noise)
            for i, text in zip(chosen, texts, strict=True):
                targets[i] = text
            if progress is not None:
                progress(start + len(chosen), len(order))
    return targets


def stop_ids(model: GraftForConditionalGeneration, tokenizers: Tokenizers) -> list[int]:
    """Tokens that end a target: the tokenizer's EOS, and what the model's config names beside it."""
    stops = model.config.eos_token_id
    return sorted({tokenizers.eos_id, *(stops if isinstance(stops, list) else [] if stops is None else [stops])})


def start_id(model: GraftForConditionalGeneration) -> int | None:
    """The decoder's first input where that is not the source's last token; some models leave it to BOS."""
    settings, config = model.generation_config, model.config
    choices = (settings.decoder_start_token_id, config.decoder_start_token_id, settings.bos_token_id)
    return next((token for token in choices if token is not None), None)


def _generate(
    model: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    rows: list[list[int]],
    config: GenerationConfig,
    noise: LogitsProcessorList | None,
) -> list[str]:
    output = model.generate(
        input_ids=pad(rows, tokenizers.source_pad_id, "left").to(model.device),
        attention_mask=pad([[1] * len(row) for row in rows], 0, "left").to(model.device),
        generation_config=config,
        logits_processor=noise,
    )
    # The first input is no part of the target; where it is the source's last token, `generate` leaves it out.
    targets = output if model.starts_with_source else output[:, 1:]
    return [tokenizers.decode(row) for row in targets.tolist()]


def _settings(
    model: GraftForConditionalGeneration, tokenizers: Tokenizers, max_new_tokens: int, num_beams: int
) -> GenerationConfig:
    """What the model's own settings are taken with; those that are not given here come from them."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        decoder_start_token_id=start_id(model),
        eos_token_id=stop_ids(model, tokenizers),
        pad_token_id=tokenizers.target_pad_id,
        # Penalties and lengths that a donor's own settings may bring would make scores incomparable.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        min_length=0,
        min_new_tokens=0,
    )
