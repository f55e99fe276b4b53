"""What tests of studies share."""

from pathlib import Path

import pytest

import tiny
from graftlm.data.tokenizers import tokenizer_of
from graftlm.families.locate import locate


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama with random weights and the shipped tokenizer; shared: do not change."""
    folder = tmp_path_factory.mktemp("lm")
    tokenizer = tokenizer_of(locate("embedded-lm"))
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tiny.stock_lm("llama", vocab_size=len(tokenizer), **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
