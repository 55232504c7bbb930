"""One model for queries and documents, or a tower for each.

A tower of its own for queries can learn without moving a single document vector, so an index that
stands stays valid; a tower of its own for documents adds what only documents can learn. Two towers
are saved as sentence-transformers' ``Router``, which ``encode_query`` and ``encode_document`` of a
plain sentence-transformers installation know how to use.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ranksaga.errors import ModelError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["has_two_towers", "in_two_towers", "query_tower_state", "state_in_two_towers", "towers"]

QUERY, DOCUMENT = "query", "document"
# Where a tower's weights are in the state of a model with two.
PREFIX = "0.sub_modules."


def has_two_towers(model: SentenceTransformer) -> bool:
    """Whether queries and documents go through different weights."""
    return type(model[0]).__name__ == "Router"


def towers(model: SentenceTransformer) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The models that encode queries and documents, sharing ``model``'s weights; twice itself where it is one.

    Raises:
        ModelError: a router without a route for queries and one for documents.
    """
    if not has_two_towers(model):
        return model, model
    from sentence_transformers import SentenceTransformer

    router, *rest = model
    if not {QUERY, DOCUMENT} <= set(router.sub_modules):
        raise ModelError(
            f"the model routes {', '.join(router.sub_modules)}; expected the routes {QUERY} and {DOCUMENT} "
            "(sentence_transformers' Router.for_query_document)"
        )
    query, document = (
        SentenceTransformer(
            modules=[*router.sub_modules[route], *rest],
            device=str(model.device),
            prompts=dict(model.prompts),
            similarity_fn_name=model.similarity_fn_name,
        )
        for route in (QUERY, DOCUMENT)
    )
    return query, document


def in_two_towers(model: SentenceTransformer) -> SentenceTransformer:
    """A model with a tower for queries and one for documents, both copies of ``model``; one that has two is copied."""
    if has_two_towers(model):
        return copy.deepcopy(model)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    router = Router.for_query_document(
        query_modules=list(copy.deepcopy(model)), document_modules=list(copy.deepcopy(model))
    )
    return SentenceTransformer(
        modules=[router],
        device=str(model.device),
        prompts=dict(model.prompts),
        similarity_fn_name=model.similarity_fn_name,
    )


def state_in_two_towers(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The state of :func:`in_two_towers` of the model, without a copy: twice the model's own tensors."""
    state: dict[str, torch.Tensor] = model.state_dict()
    if has_two_towers(model):
        return state
    return {f"{PREFIX}{route}.{name}": tensor for route in (QUERY, DOCUMENT) for name, tensor in state.items()}


def query_tower_state(state: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """Names of the weights in a model's state that only queries go through; none where it has one tower."""
    return frozenset(name for name in state if name.startswith(f"{PREFIX}{QUERY}."))
