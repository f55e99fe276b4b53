"""Sources and targets each by their own tokenizer, with what each of them puts around a text."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors
from transformers import MBartTokenizer, PreTrainedTokenizerFast

import tiny
from graftlm.data.tokenizers import Tokenizers, same_tokenizer, tokenizer_of, tokenizers_of
from graftlm.errors import ConfigError, TaskError
from graftlm.model.config import GraftConfig
from tiny_seq2seq import seq2seq_config

FOX = "the quick fox"


def appending_eos() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, which ends every text with EOS as well."""
    backend = Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tiny.BOS), ("</s>", tiny.EOS)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def two_languages() -> MBartTokenizer:
    """A text, EOS and the code of its language: en_XX for sources, ro_RO for targets."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁fox", "▁vulpe", "▁lup", "en_XX", "ro_RO"]
    return MBartTokenizer(vocab=[(piece, -1.0) for piece in pieces], src_lang="en_XX", tgt_lang="ro_RO")


def pair(**rules: bool) -> Tokenizers:
    return Tokenizers(tiny.word_tokenizer(), tiny.tokenizer(), **rules)


def one(tokenizer: Any, **rules: bool) -> Tokenizers:
    return Tokenizers(tokenizer, tokenizer, **rules)


def words(text: str) -> list[int]:
    return tiny.word_tokenizer().convert_tokens_to_ids(text.split())


def test_each_side_has_its_own_ids() -> None:
    tokenizers = pair()
    assert tokenizers.two
    assert tokenizers.encode_source(FOX) == words("[CLS] the quick fox")
    assert tokenizers.encode_target(FOX) == [*tiny.tokenizer()(FOX, add_special_tokens=False)["input_ids"], tiny.EOS]
    assert tokenizers.decode(tokenizers.encode_target(FOX)) == FOX
    assert (tokenizers.eos_id, tokenizers.target_pad_id) == (tiny.EOS, tiny.PAD)
    assert tokenizers.source_pad_id == words("[PAD]")[0]


def test_sources_keep_what_ends_them_only_where_the_rules_say_so() -> None:
    appending = appending_eos()
    assert appending(FOX)["input_ids"][-1] == tiny.EOS
    assert one(appending).encode_source(FOX) == one(tiny.tokenizer()).encode_source(FOX)
    assert one(appending, source_eos=True).encode_source(FOX) == appending(FOX)["input_ids"]
    assert pair(source_eos=True).encode_source(FOX) == words("[CLS] the quick fox [SEP]")


def test_a_cut_source_keeps_its_end() -> None:
    kept, bare = pair(source_eos=True), pair()
    assert kept.encode_source(FOX, 4, truncate=True) == words("[CLS] the quick [SEP]")
    assert bare.encode_source(FOX, 3, truncate=True) == words("[CLS] the quick")
    assert kept.cut_source(words("[CLS] the fox [SEP]"), 4) == words("[CLS] the fox [SEP]")
    assert kept.cut_source(words("[CLS] the fox [SEP]"), 1) == words("[SEP]")
    languages = one(two_languages(), source_eos=True)
    whole = languages.encode_source("the fox the fox")
    assert languages.cut_source(whole, 4) == [whole[0], whole[1], *whole[-2:]]


def test_source_of_exactly_the_limit_is_kept() -> None:
    whole = pair().encode_source(FOX)
    assert pair().encode_source(FOX, len(whole)) == whole
    with pytest.raises(TaskError, match=f"has {len(whole)} tokens and the limit is {len(whole) - 1}"):
        pair().encode_source(FOX, len(whole) - 1)


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_source(text: str) -> None:
    with pytest.raises(TaskError, match="The source is empty"):
        pair().encode_source(text)


def test_target_that_spells_eos_gets_no_second_one() -> None:
    assert pair().encode_target("dog</s>").count(tiny.EOS) == 1


def test_targets_of_another_language_than_their_sources() -> None:
    tokenizer = two_languages()
    ids = tokenizer.convert_tokens_to_ids
    whole = one(tokenizer, source_eos=True, target_special_tokens=True)
    target = ids(["▁vulpe", "▁lup", "</s>", "ro_RO"])
    assert whole.encode_source("the fox") == ids(["▁the", "▁fox", "</s>", "en_XX"])
    assert whole.encode_target("vulpe lup") == target
    assert whole.decode(target) == "vulpe lup"
    assert whole.encode_source("the fox")[-1] == ids("en_XX")
    assert one(tokenizer).encode_target("vulpe lup") == target[:-1]


def test_targets_are_decoded_as_targets() -> None:
    class TwoSided(PreTrainedTokenizerFast):
        """Decodes as its source side does unless it is told, as Marian's does."""

        def _decode(self, token_ids: Any, use_source_tokenizer: bool = True, **settings: Any) -> str:
            text = super()._decode(token_ids, **settings)
            return text.upper() if use_source_tokenizer else text

    tokenizers = one(TwoSided(tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="</s>"))
    ids = tokenizers.encode_target("dog")
    assert (tokenizers.target.decode(ids[:-1]), tokenizers.decode(ids)) == ("DOG", "dog")


def test_only_targets_need_an_eos() -> None:
    swapped = Tokenizers(tiny.tokenizer(), tiny.word_tokenizer())
    with pytest.raises(TaskError, match="no EOS token"):
        swapped.encode_target(FOX)
    endless = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="</s>")
    assert one(endless).target_pad_id == tiny.EOS
    assert one(endless).source_pad_id == 0


def test_the_config_says_how_many_there_are_and_their_rules() -> None:
    plain = Tokenizers.of(tiny.tokenizer(), GraftConfig(target_special_tokens=True))
    assert plain == one(tiny.tokenizer(), target_special_tokens=True)
    two = GraftConfig(source_tokenizer=True, source_eos=True)
    assert Tokenizers.of(pair(), two) == pair(source_eos=True)
    for single in (tiny.tokenizer(), plain):
        with pytest.raises(ConfigError, match=r"another for targets; give both as graftlm\.Tokenizers"):
            Tokenizers.of(single, two)
    with pytest.raises(ConfigError, match="one tokenizer for sources and targets, not two"):
        Tokenizers.of(pair(), GraftConfig())


def test_round_trip_through_a_folder(tmp_path: Path) -> None:
    pair().save(tmp_path / "two")
    one(tiny.tokenizer()).save(tmp_path / "one")
    two = GraftConfig(source_tokenizer=True, source_eos=True)
    loaded = tokenizers_of(tmp_path / "two", two)
    assert loaded.encode_source(FOX) == pair(source_eos=True).encode_source(FOX)
    assert loaded.encode_target(FOX) == pair().encode_target(FOX)
    single = tokenizers_of(tmp_path / "one", GraftConfig())
    assert not single.two
    assert not (tmp_path / "one" / "source_tokenizer").exists()
    with pytest.raises(ConfigError, match=r"No tokenizer can be loaded from .*one/source_tokenizer"):
        tokenizers_of(tmp_path / "one", two)
    with pytest.raises(ConfigError, match="has no EOS token"):
        tokenizers_of(tmp_path / "two" / "source_tokenizer", GraftConfig())


def test_tokenizers_are_the_same_if_all_that_they_are_made_of_is(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path)
    assert same_tokenizer(tiny.tokenizer(), PreTrainedTokenizerFast.from_pretrained(tmp_path))
    assert tiny.tokenizer().get_vocab() == appending_eos().get_vocab()
    assert not same_tokenizer(tiny.tokenizer(), appending_eos())
    assert not same_tokenizer(tiny.tokenizer(), tiny.tokenizer(merges=3))
    unnamed = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<s>")
    assert not same_tokenizer(tiny.tokenizer(), unnamed)


@pytest.mark.parametrize("kind", ["t5", "mbart", "bart"])
def test_a_tokenizer_that_transformers_makes_of_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    seq2seq_config(kind).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no vocabulary; put the model's tokenizer files there"):
        tokenizer_of(tmp_path)
