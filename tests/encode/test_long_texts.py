"""A long text is cut before it is tokenised, and the tokens are those of the whole text."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ranksaga.encode.text_input import CHARACTERS, tokenised

LIMIT = 24
WORDS = [
    "the",
    "fox",
    "jumps",
    "lazy",
    "dog,",
    "naïve",
    "Ünïcode",
    "12.5%",
    "مرحبا",
    "東京都",
    "ΟΔΥΣΣΕΥΣ",
    "e\u0301",
    "x",
]


def trained(model: Any, trainer: Any, *, normalizer: Any = None, pre: Any = None, pair: bool = True) -> Any:
    """A tokenizer that has learned some words, with special tokens around a text."""
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    rng = random.Random(0)
    tokenizer.train_from_iterator([" ".join(rng.choices(WORDS, k=30)) for _ in range(200)], trainer)
    if pair:
        ids = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def wordpiece(word: int = 100) -> Any:
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False)
    model = models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=word)
    return trained(model, trainer, normalizer=normalizers.BertNormalizer(), pre=pre_tokenizers.BertPreTokenizer())


def byte_level() -> Any:
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made = trained(models.BPE(), trainer, pre=pre_tokenizers.ByteLevel(add_prefix_space=False))
    made.backend_tokenizer.decoder = decoders.ByteLevel()
    return made


def unigram(split: bool) -> Any:
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    collapse = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    return trained(models.Unigram(), trainer, normalizer=collapse, pre=pre_tokenizers.Metaspace(split=split))


def sentencepiece_bpe() -> Any:
    """As Llama's: no words, merges over the whole text."""
    trainer = trainers.BpeTrainer(vocab_size=250, special_tokens=SPECIAL, show_progress=False, max_token_length=8)
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return trained(models.BPE(unk_token="[UNK]", fuse_unk=True), trainer, normalizer=prepend)


TOKENIZERS = {
    "wordpiece": wordpiece,
    "wordpiece of long words": lambda: wordpiece(700),
    "byte-level": byte_level,
    "unigram": lambda: unigram(True),
    "unigram without words": lambda: unigram(False),
    "sentencepiece bpe": sentencepiece_bpe,
}


def texts() -> list[str]:
    """Of words, of one word, of blanks, and with a border of each kind near every place where a text may be cut."""
    rng = random.Random(1)
    size = CHARACTERS * LIMIT
    words = " ".join(rng.choices(WORDS, k=12 * size))
    alphabet = "abcdefgh"
    found = [words, words.replace(" ", ""), "a" * 9 * size, " " * 9 * size, "\u0301" * 9 * size, "\u200b" * 9 * size]
    found.append("".join(rng.choices(alphabet, k=9 * size)))
    for place in (size, 4 * size):
        for off in (-99, 0, 120):
            found.append(" " * (place + off) + words)
            found.append("x" * (place + off) + " " + words)
            found.append("the fox " + "\u200b" * (place + off) + words)
            found.append(words[: size // 9] + "".join(rng.choices(alphabet, k=place + off)) + " " + words)
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_cut_text_has_the_tokens_of_the_whole(name: str) -> None:
    tokenizer, prompt = TOKENIZERS[name](), "query: "
    tower: Any = SimpleNamespace(tokenizer=tokenizer)
    given = texts()
    whole = tokenizer([prompt + text for text in given], truncation=True, max_length=LIMIT)["input_ids"]
    assert tokenised(tower, given, prompt, LIMIT) == whole
    assert max(map(len, whole)) == LIMIT


class Counting:
    """A tokenizer that counts the characters it is given."""

    truncation_side = "right"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.backend_tokenizer = tokenizer.backend_tokenizer
        self.read = 0

    def __call__(self, given: list[str], **options: Any) -> Any:
        self.read += sum(map(len, given))
        return self._tokenizer(given, **options)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_little_of_a_long_text_is_read(name: str) -> None:
    counting = Counting(TOKENIZERS[name]())
    tower: Any = SimpleNamespace(tokenizer=counting)
    long = "the lazy fox jumps " * 20_000
    (row, short) = tokenised(tower, [long, "a fox"], "", LIMIT)
    assert len(row) == LIMIT
    assert len(short) < LIMIT
    assert counting.read < 3 * max(CHARACTERS * LIMIT, 1400) + 10


def test_a_text_that_is_cut_from_the_left_is_read_whole() -> None:
    tokenizer = wordpiece()
    tokenizer.truncation_side = "left"
    tower: Any = SimpleNamespace(tokenizer=tokenizer)
    text = "the fox " * 5000 + "a lazy dog " * 50
    whole = tokenizer([text], truncation=True, max_length=LIMIT)["input_ids"]
    assert tokenised(tower, [text], "", LIMIT) == whole
