"""Train the byte-level BPE tokenizer and save it in the form AutoTokenizer loads."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from corpus import documents, load_recipe


def train(texts: Iterator[str], vocab_size: int, bos: str, eos: str, pad: str, reserved: int) -> Tokenizer:
    """Byte-level BPE of `vocab_size` entries, special and reserved tokens included; encoding prepends `bos` only."""
    specials = [bos, eos, pad, *(f"<reserved_{i}>" for i in range(reserved))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one subfolder per data set")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tokenizer to")
    args = parser.parse_args()
    recipe = load_recipe()
    settings = recipe["tokenizer"]
    tokenizer = train(documents(args.data, recipe["data"]["train"], "train"), **settings)
    if tokenizer.get_vocab_size() != settings["vocab_size"]:
        raise SystemExit(f"got {tokenizer.get_vocab_size()} entries instead of {settings['vocab_size']}")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": settings["bos"],
        "eos_token": settings["eos"],
        "pad_token": settings["pad"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": recipe["model"]["max_position_embeddings"],
        "model_input_names": ["input_ids", "attention_mask"],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
