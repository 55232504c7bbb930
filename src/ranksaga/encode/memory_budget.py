"""How many tokens a GPU's free memory holds at once.

A model's own size decides: for vectors alone by its layers' widths, for training by what a graph of it really keeps,
which is measured on the model itself. Where the answer is too large, the pass is halved (see ``Engine`` and ``Step``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["encoding_tokens", "free_memory", "kept_bytes"]

SHARE = 0.8  # of the free memory: the rest is for what passes leave between them
WORKSPACE = 3  # tensors of a layer's widest part that live at once, and of its width twice as many


def free_memory(device: torch.device) -> float:
    """Bytes that tensors may take: what the card has free, and what torch keeps of it without use."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return SHARE * (free + unused)


def encoding_tokens(transformer: Any, device: torch.device, length: int) -> float:
    """Padded tokens, in texts of ``length``, that a pass without a graph may have; any number on a CPU.

    Args:
        transformer: a sentence-transformers ``Transformer``, in the precision that it runs in, or what stands for it.
        device: where it lies.
        length: tokens of the longest text.
    """
    config = getattr(getattr(transformer, "auto_model", None), "config", None)
    width = _size(config, "hidden_size", "d_model")
    if device.type != "cuda" or width is None:
        return float("inf")
    inner = _size(config, "intermediate_size", "d_ff") or 4 * width
    heads = _size(config, "num_attention_heads", "num_heads") or 1
    size = max(one.element_size() for one in transformer.parameters())
    # Scores of every token with every token are kept by plain attention alone; a mask of that shape by all.
    scores = length * (heads + 1 if getattr(config, "_attn_implementation", "") == "eager" else 1)
    return free_memory(device) / float(size * (WORKSPACE * (inner + 2 * width) + scores))


def kept_bytes(embed: Callable[[int], torch.Tensor], weights: Iterable[torch.Tensor]) -> float:
    """Bytes that the graph of each further text keeps for the backward pass.

    Args:
        embed: gives vectors, with a graph, of so many texts of the greatest length.
        weights: the model's, which are kept anyway.
    """
    known = {_storage(one) for one in weights}
    one, two = (_kept(partial(embed, count), known) for count in (1, 2))
    return two - one  # copies of weights in another precision are in both


def _kept(embed: Callable[[], torch.Tensor], known: set[int]) -> float:
    import torch

    seen: dict[int, tuple[int, torch.Tensor]] = {}  # held, so that no other storage gets its address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in known:
            seen[_storage(tensor)] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embed()
    return float(sum(size for size, _ in seen.values()))


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _size(config: Any, *names: str) -> int | None:
    return next((int(value) for name in names if isinstance(value := getattr(config, name, None), int)), None)
