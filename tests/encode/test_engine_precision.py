"""An engine in half precision is the model that transformers loads in that type: same types, same token vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ranksaga.encode.engine import Engine


def build(folder: Path, kind: str) -> Path:
    """A tiny model with rotary positions (qwen3, modernbert), or with parts that stay in float32 (t5)."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(60))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder / "plain")
    shared: Any = {"vocab_size": len(words), "pad_token_id": 0}
    bert: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    model: Any
    if kind == "t5":
        sizes: Any = {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        }
        model = transformers.T5EncoderModel(transformers.T5Config(**shared, **sizes))
    elif kind == "qwen3":
        model = transformers.Qwen3Model(transformers.Qwen3Config(**shared, **bert, head_dim=8, num_key_value_heads=2))
    else:
        model = transformers.ModernBertModel(transformers.ModernBertConfig(**shared, **bert))
    model.save_pretrained(folder / "plain")
    SentenceTransformer(modules=[Transformer(str(folder / "plain")), Pooling(32)], device="cpu").save(
        str(folder / "model"), create_model_card=False
    )
    return folder / "model"


@pytest.mark.parametrize("kind", ["qwen3", "modernbert", "t5"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_types_and_token_vectors_are_those_of_transformers(tmp_path: Path, kind: str, precision: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(build(tmp_path, kind))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    loaded = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": dtype})[0].eval()
    base = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": torch.float32})
    ours = Engine(base, precision, "cosine")._in_precision(base[0]).eval()
    types = [
        {name: one.dtype for name, one in [*module.named_parameters(), *module.named_buffers()]}
        for module in (ours, loaded)
    ]
    assert types[0] == types[1]
    assert set(types[0].values()) >= {dtype, torch.float32} or (kind, precision) == ("t5", "bf16")
    ids = torch.arange(5, 45).view(1, -1)
    with torch.no_grad():
        vectors = [
            module({"input_ids": ids.clone(), "attention_mask": torch.ones_like(ids)})["token_embeddings"]
            for module in (ours, loaded)
        ]
    assert torch.equal(*vectors)
    assert all(one.dtype == torch.float32 for one in base.parameters()), "the model itself stays as it was"
