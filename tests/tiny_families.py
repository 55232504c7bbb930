"""Tiny models with random weights, one of every family and module that a sentence-transformers folder can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [f"word{number}" for number in range(40)]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# What prompts hold.
MORE = ["query", "passage", ":", "search", "for", "a", "b"]
SIZE = len(SPECIALS) + len(WORDS) + len(MORE) + 8  # and what a tokenizer may add
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
            drawn = torch.randn_like(parameter)
            parameter.copy_(0.4 * drawn if parameter.ndim > 1 else parameter + 0.1 * drawn)
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
        for parameter in module.parameters():
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


def real_tokens(folder: Path) -> Path:
    """The packaged MiniLM's tokenizer before two small random layers: real texts are as far apart as their words."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from ranksaga.encode.models import locate

    torch.manual_seed(1)
    texts = AutoTokenizer.from_pretrained(locate("minilm"))
    sizes: dict[str, Any] = {**COMMON, "hidden_size": 32, "intermediate_size": 64, "vocab_size": len(texts)}
    network = BertModel(BertConfig(**{**sizes, "max_position_embeddings": 512}))
    with torch.no_grad():
        network.embeddings.word_embeddings.weight.mul_(50)
    network.save_pretrained(folder / "bert")
    texts.save_pretrained(folder / "bert")
    from sentence_transformers.sentence_transformer.modules import Normalize, Transformer

    return save(folder, [*pooled(Transformer(str(folder / "bert"), max_seq_length=256)), Normalize()])


PROMPTS = {"query": "query : ", "document": "search for a : "}
LEFT: dict[str, Any] = {"side": "left", "ends": "$A [SEP]"}
ROTARY = {"num_key_value_heads": 1, "head_dim": 8}


def last_token(folder: Path, name: str = "Qwen3", **texts: Any) -> list[Any]:
    """As of Qwen's embedding models: padded on the left, the last token is the text's."""
    return pooled(transformer(folder, name, ROTARY, tokenizer(**LEFT, **texts)), "lasttoken")


def supported(name: str, folder: Path) -> Path:
    """A model of this name that is scored as sentence-transformers scores it."""
    import torch
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import (
        CNN,
        LSTM,
        Dropout,
        LayerNorm,
        Normalize,
        Pooling,
        WeightedLayerPooling,
    )

    kind, _, option = name.partition(" ")
    if kind in PLAIN:
        return save(folder, [*pooled(transformer(folder, kind, PLAIN[kind])), Normalize()], prompts=PROMPTS)
    if kind in ("pooling", "leaving"):
        mode = tuple(option.split("+")) if "+" in option else option
        modules = pooled(bert(folder), mode, include_prompt=kind == "pooling")
        return save(folder, modules, prompts=PROMPTS)
    if kind == "truncated":
        similarity, *ends = option.split()
        modules = [*pooled(bert(folder)), *([Normalize()] if ends else [])]
        return save(folder, modules, prompts=PROMPTS, truncate_dim=6, similarity_fn_name=similarity)
    special: dict[str, Any] = {
        "t5": lambda: [
            *pooled(transformer(folder, "T5", {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2})),
            dense(8, bias=False, activation_function=torch.nn.Identity()),
        ],
        "gemma": lambda: [*pooled(transformer(folder, "Gemma", ROTARY)), dense(), Normalize()],
        "qwen3": lambda: [*last_token(folder), Normalize()],
        "chat": lambda: last_token(folder, chat=True),
        "gpt2": lambda: pooled(transformer(folder, "GPT2", {}, tokenizer(**LEFT)), "lasttoken"),
        "left-leaving": lambda: pooled(
            transformer(folder, "Qwen3", ROTARY, tokenizer(**LEFT)), "mean", include_prompt=False
        ),
        "dense-normalize": lambda: [*pooled(bert(folder)), dense(8), Normalize()],
        "normalize-dense": lambda: [*pooled(bert(folder)), Normalize(), dense(8)],
        "layer-norm": lambda: [*pooled(bert(folder)), LayerNorm(WIDTH), Dropout(0.5)],
        "token-dense": lambda: [bert(folder), dense(module_input_name="token_embeddings"), Pooling(WIDTH)],
        "layers": lambda: [bert(folder, output_hidden_states=True), WeightedLayerPooling(WIDTH, 2, 1), Pooling(WIDTH)],
        "cnn": lambda: [bert(folder), CNN(WIDTH, 8), Pooling(24)],
        "words": lambda: pooled(words()),
        "words-lstm": lambda: [words(), LSTM(WIDTH, 8), Pooling(WIDTH)],
        "words-cnn": lambda: [words(), CNN(WIDTH, 8), Pooling(24)],
        "static": lambda: [static()],
        "clip": lambda: [clip(folder)],
        "router": lambda: [router(pooled(bert(folder)), pooled(bert(folder, hidden_act="relu"))), Normalize()],
        "router-deep": lambda: [router([*pooled(bert(folder)), dense()], pooled(bert(folder)))],
        "router-second": lambda: [bert(folder), router([Pooling(WIDTH), dense()], [Pooling(WIDTH)]), Normalize()],
        "router-last": lambda: [*pooled(bert(folder)), router([dense()], [LayerNorm(WIDTH)])],
        "router-static": lambda: [router([static()], pooled(bert(folder)))],
        "router-lengths": lambda: [
            router(pooled(transformer(folder, "Bert", {}, load={"max_seq_length": 9})), pooled(bert(folder)))
        ],
        "router-strict": lambda: [
            router(pooled(bert(folder)), [*pooled(bert(folder)), dense()], default_route=None, allow_empty_key=False)
        ],
        "router-mapped": lambda: [
            Router(
                {"left": pooled(bert(folder)), "right": [*pooled(bert(folder)), dense()]},
                route_mappings={("query", "text"): "left", (None, None): "right"},
            )
        ],
        "router-one": lambda: [Router({"text": pooled(bert(folder))}, route_mappings={(None, "text"): "text"})],
        "query-length": lambda: pooled(transformer(folder, "Bert", {}, load={"query_length": 7})),
        "text-length": lambda: pooled(
            transformer(folder, "Bert", {}, load={"processing_kwargs": {"text": {"max_length": 9}}})
        ),
        "lower-case": lambda: pooled(transformer(folder, "Bert", {}, load={"do_lower_case": True})),
    }
    return save(folder, special[kind](), prompts=PROMPTS, similarity_fn_name=option or None)


PLAIN: dict[str, dict[str, Any]] = {
    "Bert": {},
    "XLMRoberta": {},
    "MPNet": {},
    "Roberta": {},
    "DistilBert": {},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "ModernBert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "Albert": {"embedding_size": 8},
    "Gemma3Text": {**ROTARY, "use_bidirectional_attention": True},
}


def clip(folder: Path) -> Any:
    """A model of images and texts."""
    import torch
    import transformers
    from sentence_transformers.sentence_transformer.modules import Transformer

    torch.manual_seed(8)
    shape = {"hidden_size": WIDTH, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    text = {**shape, "vocab_size": SIZE, "max_position_embeddings": 32, "eos_token_id": 3, "pad_token_id": 0}
    image = {**shape, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=12)
    transformers.CLIPModel(config).save_pretrained(folder / "clip")
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    both = transformers.CLIPProcessor(image_processor=processor, tokenizer=tokenizer())  # type: ignore[no-untyped-call]
    both.save_pretrained(folder / "clip")
    return Transformer(str(folder / "clip"))
