"""Tiny models with random weights, saved as sentence-transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox", "Fox", "dog", "cat", "the", "a", "short", "text", "query"]
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SIZES |= {"vocab_size": 20, "max_position_embeddings": 40, "pad_token_id": 0}
Weights = dict[str, torch.Tensor]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words as they are written, between [CLS] and [SEP]."""
    tokens = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokens.normalizer = normalizers.Sequence([normalizers.NFC()])
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=32, **names)  # type: ignore[no-untyped-call]


def save_transformer(folder: Path, network: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """A bare transformer, every weight its own random number, so that no two tensors can be taken for each other."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1 + (1.0 if value.dim() == 1 else 0.0))
    network.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def save_tiny(folder: Path) -> Path:
    """BERT, mean of tokens, a dense layer and normalisation, with prompts."""
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), BertModel(BertConfig(**SIZES)))
    torch.manual_seed(0)
    modules = [Transformer(str(bare), max_seq_length=12), Pooling(16, "mean"), Dense(16, 8), Normalize()]
    SentenceTransformer(modules=modules, prompts={"query": "query ", "document": ""}, device="cpu").save_pretrained(
        str(folder)
    )
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(path: Path, change: Callable[[Weights], Weights]) -> None:
    """Change a safetensors file in place."""
    weights = {name: value.clone().contiguous() for name, value in change(load_file(path)).items()}
    save_file(weights, path, metadata={"format": "pt"})
