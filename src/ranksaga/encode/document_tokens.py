"""How long documents are in a model's own tokens, and what its limit cuts off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ranksaga.data.importing.chunking import Tokens
from ranksaga.encode.encoder import Encoder
from ranksaga.encode.text_input import UNLIMITED, own_limit
from ranksaga.encode.towers import DOCUMENT, towers
from ranksaga.errors import ModelError, UsageError

__all__ = ["CutOff", "cut_off", "document_tokens"]

BATCH = 1024
SAMPLE = 50_000  # documents at most that are counted, evenly spread: counting more takes minutes


@dataclass(frozen=True)
class CutOff:
    """What a model does not read of a corpus.

    Attributes:
        documents: how many were counted.
        cut: how many of these are longer than the limit.
        tokens: of all that were counted, special ones included.
        lost: how many of these are behind the limit.
        limit: tokens of a document that the model reads.
        sampled: whether the corpus has more documents than were counted.
    """

    documents: int
    cut: int
    tokens: int
    lost: int
    limit: int
    sampled: bool = False

    def __str__(self) -> str:
        of = f"{self.documents} documents{' (a sample)' if self.sampled else ''}"
        if not self.cut:
            return f"none of {of} is longer than the {self.limit} tokens that the model reads"
        share = self.lost / self.tokens
        return (
            f"{self.cut} of {of} are cut off at the {self.limit} tokens that the model reads; "
            f"{self.lost} of {self.tokens} tokens ({share:.1%}) are lost"
        )


def document_tokens(encoder: Encoder, limit: int | None = None) -> Tokens:
    """How the documents' tower reads texts, for cutting them.

    Args:
        encoder: whose tokenizer and document prompt count.
        limit: tokens of a document, special ones included; none: the model's own limit.

    Raises:
        ModelError: the model has no tokenizer, or reads texts of any length and ``limit`` is none.
        UsageError: the model reads fewer tokens than ``limit``.
    """
    tower = towers(encoder.model)[1]
    prompt = encoder.spec.prompts.document
    own = min(encoder.spec.max_length, own_limit(tower, DOCUMENT))
    name = encoder.spec.model
    if limit is None and own == UNLIMITED:
        raise ModelError(f"{name}: the model reads texts of any length; give the length of documents with --tokens 256")
    if limit is not None and limit > own:
        raise UsageError(f"--tokens {limit}: {name} reads {own} tokens of a document; give that many or fewer")
    tokenizer = getattr(tower, "tokenizer", None)
    if tokenizer is None or not callable(tokenizer):
        raise ModelError(f"{name}: the model has no tokenizer of its own to count by; name another with --model")

    def count(texts: Sequence[str]) -> list[int]:
        plain = {"truncation": False, "padding": False, "return_attention_mask": False, "verbose": False}
        return [len(row) for row in tokenizer([f"{prompt}{text}" for text in texts], **plain)["input_ids"]]

    def ends(text: str) -> list[int]:
        if not getattr(tokenizer, "is_fast", False):  # it does not say where its tokens stand
            return [character + 1 for character in range(len(text))]
        options = {"truncation": False, "padding": False, "add_special_tokens": False, "verbose": False}
        spans = tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]
        return [end for start, end in spans if end > start]

    return Tokens(limit or own, count, ends)


def cut_off(encoder: Encoder, documents: Sequence[str]) -> CutOff | None:
    """How many documents the model reads in part only, and how much of them is lost.

    Args:
        encoder: the model, with its prompt and limit.
        documents: as it reads them, title and text.

    Returns:
        None where the model reads texts of any length, or has no tokenizer.
    """
    try:
        tokens = document_tokens(encoder)
    except ModelError:
        return None
    step = -(-len(documents) // SAMPLE) if documents else 1
    counted = documents[::step]
    lengths = [
        length for start in range(0, len(counted), BATCH) for length in tokens.count(counted[start : start + BATCH])
    ]
    over = [length - tokens.limit for length in lengths if length > tokens.limit]
    return CutOff(len(counted), len(over), sum(lengths), sum(over), tokens.limit, sampled=step > 1)
