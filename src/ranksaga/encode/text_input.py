"""How a model reads a text: prompt, truncation and tokens, and what else sentence-transformers tells its modules.

Most models read token ids, so a text is tokenised once and what travels to who computes is numbers. What the library's
own ``preprocess`` makes of a few texts decides: token ids from the tokenizer as it is, token ids that only the library
makes (chat templates, say), or, where ids are not all that a model reads, texts as they are, which the library turns
into features batch by batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ranksaga.encode.batch_layout import padded
from ranksaga.encode.towers import arguments
from ranksaga.errors import ModelError, machine_error

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "UNLIMITED",
    "Rows",
    "TextInput",
    "limit_length",
    "own_limit",
    "text_input_of",
    "tokenised",
    "vocabulary_probes",
]

Rows = Sequence[Any]  # a batch: token ids of each text, or the text

# Tokens of a text in a model that truncates none.
UNLIMITED = 2**20
# Characters a token, of the part of a long text that is tokenised first: more than any language needs.
CHARACTERS = 16
# Above this many tokens truncation is not probed: the text would take longer than all else.
PROBED_LENGTH = 2**15
PROBES = ("a", "Probe of Words: Ünïcode, 12.5 % and (punctuation)!")
# Names of tables of positions, and of parts of a model that read no text.
SENSES = ("vision", "visual", "image", "audio")
TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


@dataclass(frozen=True)
class TextInput:
    """How queries, or documents, are read.

    Attributes:
        task: query or document, as ``encode_query`` and ``encode_document`` name it.
        prompt: put before every text.
        max_length: tokens a text, special ones included.
        form: what a text is turned into: token ids by the tokenizer, token ids by the library, or nothing.
        given: features beside tensors, which are the same for all texts: the prompt's length, the modality.
        identity: all that changes a vector beside weights, prompt and tokens; empty for most models.
    """

    task: str = ""
    prompt: str = ""
    max_length: int = UNLIMITED
    form: Literal["tokens", "library", "texts"] = "tokens"
    given: Mapping[str, Any] = field(default_factory=dict)
    identity: tuple[Any, ...] = ()

    def rows(self, tower: SentenceTransformer, texts: Sequence[str]) -> list[Any]:
        """What travels of each text: its token ids, or the text."""
        if self.form == "texts":
            return list(texts)
        if self.form == "tokens":
            return tokenised(tower, texts, self.prompt, self.max_length)

        def read(parts: Sequence[str]) -> list[Any]:
            return [self._preprocess(tower, tower, [part])["input_ids"][0].tolist() for part in parts]

        return _from_the_start(tower, texts, self.max_length, read) if _is_transformer(tower[0]) else read(texts)

    def features(self, tower: SentenceTransformer, rows: Rows, length: int | None = None) -> dict[str, Any]:
        """What the first module takes, tensors in the CPU's memory; ids padded to ``length``, none: the longest."""
        if self.form == "texts":
            return {**self._preprocess(tower, tower, [str(row) for row in rows]), **self.given}
        ids, mask = padded(rows, tower.tokenizer, length)
        return {**self.given, "input_ids": ids, "attention_mask": mask}

    def _preprocess(
        self, model: SentenceTransformer, tower: SentenceTransformer, texts: Sequence[str]
    ) -> dict[str, Any]:
        limit = {"processing_kwargs": {"text": {"max_length": self.max_length}}} if _is_transformer(tower[0]) else {}
        return dict(model.preprocess(list(texts), prompt=self.prompt, task=self.task, **limit))


def text_input_of(
    model: SentenceTransformer, tower: SentenceTransformer, task: str, prompt: str, max_length: int
) -> TextInput:
    """How ``tower``, that of the task in ``model``, reads.

    Raises:
        ModelError: sentence-transformers cannot read a text with this model.
    """
    max_length = min(max_length, own_limit(tower, task))
    asked = TextInput(task, prompt, max_length)
    probes = [*PROBES, "a b " * (max_length // 2 + 8)] if max_length <= PROBED_LENGTH else [*PROBES]
    try:
        features = [asked._preprocess(model, tower, [text]) for text in probes]
    except Exception as error:  # whatever a tokenizer or a module's own code raises, a user sees one line
        if (known := machine_error(error)) is not None:
            raise known from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"sentence-transformers cannot read a {task} with this model ({first})") from error
    form: Literal["tokens", "library", "texts"] = "texts"
    if all(_is_ids(one) for one in features):
        ids = [one["input_ids"][0].tolist() for one in features]
        form = "tokens" if ids == tokenised(tower, probes, prompt, max_length) else "library"
    given = {name: value for name, value in features[0].items() if not hasattr(value, "shape")}
    identity: list[Any] = []
    if any(getattr(module, "include_prompt", True) is False for module in tower):
        identity.append(["prompt_length", given.get("prompt_length")])
    if form != "tokens" or any(arguments(tower, task)):
        identity.append([form, task, prompt])
    if tower.truncate_dim is not None:
        identity.append(["truncate_dim", tower.truncate_dim])
    return TextInput(task, prompt, max_length, form, given, tuple(identity))


def vocabulary_probes(model: SentenceTransformer) -> list[str]:
    """A short and a longer text of words that the model knows; none where it does not say which these are."""
    known: Sequence[str] = list(getattr(getattr(model, "tokenizer", None), "get_vocab", dict)())
    known = known[:: max(1, len(known) // 1000)]
    words = [plain for word in known if len(plain := re.sub(r"[\W_]", "", str(word))) > 3 and plain.isascii()]
    return [" ".join(words[:: max(1, len(words) // count)][:count]) for count in (2, 12)] if words else []


def own_limit(tower: SentenceTransformer, task: str) -> int:
    """Tokens a text that the model itself reads of this task; no more than it has positions for."""
    first: Any = tower[0]
    told = getattr(first, "processing_kwargs", {}).get("text", {}).get("max_length")
    limit = told or getattr(first, f"{task}_length", None) or getattr(first, "max_seq_length", None)
    if limit is None and _is_transformer(first):
        limit = 512
    return int(min(limit or UNLIMITED, _positions(first), UNLIMITED))


def limit_length(tower: SentenceTransformer, task: str, max_length: int) -> None:
    """Make the model itself truncate to ``max_length`` tokens, or to fewer where it has no positions for these.

    A limit of its own that is less stays.

    Raises:
        ModelError: the model has no limit that could be set.
    """
    first: Any = tower[0]
    length = int(min(max_length, _positions(first), UNLIMITED))
    if length == UNLIMITED:
        return
    if (getattr(first, "max_seq_length", None) or float("inf")) > length:
        try:
            if not hasattr(first, "max_seq_length"):
                raise AttributeError
            first.max_seq_length = length
        except AttributeError:
            raise ModelError(
                f"max_length {max_length}: {type(first).__name__} reads whole texts and truncates none; leave it out"
            ) from None
    if (getattr(first, f"{task}_length", None) or 0) > length:
        setattr(first, f"{task}_length", length)
    told = getattr(first, "processing_kwargs", {}).get("text", {})
    if (told.get("max_length") or 0) > length:
        told["max_length"] = length


def _positions(first: Any) -> float:
    """Tokens that a learned table of positions has rows for; infinite where there is none."""
    import torch

    found = float("inf")
    for path, module in first.named_modules():
        if any(sense in path for sense in SENSES):
            continue
        for name in TABLES:
            table = getattr(module, name, None)
            if isinstance(table, torch.nn.Embedding):
                # RoBERTa and its kin count from behind the padding index, BART and its kin from an offset.
                behind = 0 if table.padding_idx is None else table.padding_idx + 1
                found = min(found, table.num_embeddings - getattr(table, "offset", behind))
    return found


def _is_transformer(first: Any) -> bool:
    from sentence_transformers.base.modules import Transformer

    return isinstance(first, Transformer)


def _is_ids(features: Mapping[str, Any]) -> bool:
    """Whether one text's features are its token ids and nothing else."""
    tensors = {name: value for name, value in features.items() if hasattr(value, "shape")}
    ids = tensors.pop("input_ids", None)
    if ids is None or ids.ndim != 2:
        return False
    mask, types = tensors.pop("attention_mask", None), tensors.pop("token_type_ids", None)
    return not tensors and (mask is None or bool((mask == 1).all())) and (types is None or bool((types == 0).all()))


def tokenised(tower: SentenceTransformer, texts: Sequence[str], prompt: str, max_length: int) -> list[Any]:
    """Token ids of each text with the prompt before it, truncated to ``max_length``, special ones included."""

    def read(parts: Sequence[str]) -> list[Any]:
        encoded = tower.tokenizer(
            [f"{prompt}{part}" for part in parts],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
        )
        return list(encoded["input_ids"])

    return _from_the_start(tower, texts, max_length, read)


def _from_the_start(
    tower: SentenceTransformer, texts: Sequence[str], max_length: int, read: Callable[[Sequence[str]], list[Any]]
) -> list[Any]:
    """What ``read`` makes of each text, without reading all of a long one: a tokenizer takes 300 bytes a character.

    A part of it from the start stands for the whole where it fills ``max_length``, and half of that part gives the same
    tokens: they do not depend on what follows. Else the part is doubled.
    """
    tokenizer = tower.tokenizer
    if getattr(tokenizer, "truncation_side", "right") != "right":
        return read(texts)
    # A word of more characters than WordPiece reads is one unknown token: half a part must hold such a word.
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    word = getattr(model, "max_input_chars_per_word", 0) or 0
    size = max(CHARACTERS * max_length, 2 * word)
    long = {row for row, text in enumerate(texts) if len(text) > 4 * size}
    rows = read(["" if row in long else text for row, text in enumerate(texts)] if long else texts)
    for row in long:
        text, length = texts[row], size
        half, whole = None, read([text[:length]])[0]
        while length < len(text) and not (len(whole) == max_length and whole == half):
            length *= 2
            half, whole = whole, read([text[:length]])[0]
        rows[row] = whole
    return rows
