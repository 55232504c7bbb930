"""Tiny models with random weights, one of every family and module that a sentence-transformers folder can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [f"word{number}" for number in range(40)]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# What prompts hold.
MORE = ["query", "passage", ":", "search", "for", "a", "b"]
SIZE = len(SPECIALS) + len(WORDS) + len(MORE)
WIDTH = 16
COMMON: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}


def tokenizer(*, ends: str = "[CLS] $A [SEP]", side: str = "right", chat: bool = False, pad: bool = True) -> Any:
    """Words split at white space, between the special tokens of ``ends``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIALS, *WORDS, *MORE])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(special, vocabulary[special.split(":")[0]]) for special in ("[CLS]", "[SEP]")]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, padding_side=side, model_max_length=32, **names
    )
    if pad:
        made.pad_token = "[PAD]"
    if chat:
        made.chat_template = "{% for message in messages %}search {{ message['content'] }} for{% endfor %}"
    return made


def transformer(folder: Path, name: str, options: dict[str, Any], texts: Any = None, load: Any = None) -> Any:
    """The module ``Transformer`` around a model of this transformers class (``Bert``, ``Qwen2``, ...)."""
    import torch
    import transformers
    from sentence_transformers.sentence_transformer.modules import Transformer

    torch.manual_seed(len(name))
    where = folder / f"{name}-{len(list(folder.glob('*')))}"
    config = getattr(transformers, f"{name}Config")(**{**COMMON, **options})
    kind = getattr(transformers, f"{name}EncoderModel", None) or getattr(transformers, f"{name}Model")
    model = kind(config)
    with torch.no_grad():  # far from 0, so that a missing layer or bias shows
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(where)
    (texts or tokenizer()).save_pretrained(where)
    return Transformer(str(where), **(load or {}))


def bert(folder: Path, **options: Any) -> Any:
    """The commonest one."""
    return transformer(folder, "Bert", options)


def save(folder: Path, modules: list[Any], **options: Any) -> Path:
    """A sentence-transformers folder of these modules."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(3)
    for module in modules:
        for name, parameter in module.named_parameters():
            if type(module).__name__ in ("Dense", "LayerNorm", "WeightedLayerPooling", "CNN", "LSTM"):
                parameter.data = torch.randn_like(parameter) * 0.4
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def pooled(first: Any, mode: Any = "mean", **options: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [first, Pooling(first.get_embedding_dimension(), mode, **options)]


def dense(into: int = WIDTH, **options: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(WIDTH, into, **options)


def static(width: int = WIDTH) -> Any:
    import torch
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(5)
    return StaticEmbedding(tokenizer(), embedding_dim=width)


def words() -> Any:
    """Word vectors, as of GloVe."""
    import numpy as np
    from sentence_transformers.sentence_transformer.modules import WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    weights = np.random.default_rng(2).normal(size=(len(WORDS) + 1, WIDTH)).astype(np.float32)
    return WordEmbeddings(WhitespaceTokenizer(["", *WORDS], stop_words=[]), weights)


def router(query: list[Any], document: list[Any], **options: Any) -> Any:
    from sentence_transformers.base.modules import Router

    return Router.for_query_document(query, document, **options)
