"""One model for queries and documents, or a tower for each.

A tower of its own for queries can learn without moving a single document vector, so an index that
stands stays valid; a tower of its own for documents adds what only documents can learn. Two towers
are saved as sentence-transformers' ``Router``, which ``encode_query`` and ``encode_document`` of a
plain sentence-transformers installation know how to use.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ranksaga.errors import ModelError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = [
    "DOCUMENT",
    "QUERY",
    "arguments",
    "has_two_towers",
    "in_two_towers",
    "query_tower_state",
    "state_in_two_towers",
    "towers",
]

# The tasks of ``encode_query`` and ``encode_document``, by which a Router chooses.
QUERY, DOCUMENT = "query", "document"
# Where a tower's weights are in the state of a model that ``in_two_towers`` made.
PREFIX = "0.sub_modules."


def has_two_towers(model: SentenceTransformer) -> bool:
    """Whether queries and documents go through different modules."""
    if not any(_is_router(module) for module in model):
        return False
    query, document = _flat(model, QUERY), _flat(model, DOCUMENT)
    return [module for module, _ in query] != [module for module, _ in document]


def towers(model: SentenceTransformer) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The models that encode queries and documents, sharing ``model``'s weights; twice the same where it is one.

    A Router may stand anywhere among the modules, and its routes may differ in depth: a tower has all modules
    that its texts go through, in their order.

    Raises:
        ModelError: a Router without a route for queries and one for documents, or routes of different dimensions.
    """
    if not any(_is_router(module) for module in model):
        return model, model
    query = like(model, _flat(model, QUERY))
    if not has_two_towers(model):
        return query, query
    document = like(model, _flat(model, DOCUMENT))
    sizes = query.get_embedding_dimension(), document.get_embedding_dimension()
    if None not in sizes and sizes[0] != sizes[1]:
        raise ModelError(
            f"the model's vectors have {sizes[0]} dimensions for queries and {sizes[1]} for documents; "
            "expected the same for both: nothing can score them"
        )
    return query, document


def in_two_towers(model: SentenceTransformer) -> SentenceTransformer:
    """A model that begins with a Router of two routes, all that queries go through and all that documents do.

    Both are copies, so they share no weight. Prompts, similarity, truncation and the default route are kept.
    """
    from sentence_transformers.base.modules import Router

    query, document = towers(model)
    router = Router.for_query_document(
        query_modules=list(copy.deepcopy(query)),
        document_modules=list(copy.deepcopy(document)),
        default_route=_default_route(model),
    )
    return like(model, [(router, ())])


def arguments(tower: SentenceTransformer, task: str) -> list[dict[str, str]]:
    """What each module's forward is given beside its features, as sentence-transformers gives it."""
    asked = tower.module_kwargs or {}
    return [
        {"task": task} if "task" in {*asked.get(name, ()), *getattr(module, "forward_kwargs", ())} else {}
        for name, module in tower.named_children()
    ]


def state_in_two_towers(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The state of :func:`in_two_towers` of the model; of one without a Router no copy, but its own tensors twice."""
    if any(_is_router(module) for module in model):
        return dict(in_two_towers(model).state_dict())
    state: dict[str, torch.Tensor] = model.state_dict()
    return {f"{PREFIX}{route}.{name}": tensor for route in (QUERY, DOCUMENT) for name, tensor in state.items()}


def query_tower_state(state: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """Names of the weights in the state of a model that :func:`in_two_towers` made that only queries go through."""
    return frozenset(name for name in state if name.startswith(f"{PREFIX}{QUERY}."))


def like(model: SentenceTransformer, modules: Sequence[tuple[Any, Sequence[str]]]) -> SentenceTransformer:
    """A model of these modules, each with the names of the arguments it asks for, and all other settings of another."""
    from sentence_transformers import SentenceTransformer

    made = SentenceTransformer(
        modules=[module for module, _ in modules],
        device=str(model.device),
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
    )
    made.module_kwargs = {str(place): list(asked) for place, (_, asked) in enumerate(modules) if asked}
    return made


def _is_router(module: Any) -> bool:
    from sentence_transformers.base.modules import Router

    return isinstance(module, Router)


def _flat(model: SentenceTransformer, task: str) -> list[tuple[Any, Sequence[str]]]:
    """Modules that a task's texts go through, Routers resolved, with the arguments that each asks for."""
    flat: list[tuple[Any, Sequence[str]]] = []
    for name, module in model.named_children():
        if _is_router(module):
            flat += [(one, ()) for one in _route(module, task)]
        else:
            flat.append((module, (model.module_kwargs or {}).get(name, ())))
    return flat


def _route(router: Any, task: str) -> list[Any]:
    try:
        name = router._resolve_route(task=task, modality="text")
    except ValueError:
        raise ModelError(
            f"the model routes {', '.join(router.sub_modules)}; expected a route for each of {QUERY} and {DOCUMENT} "
            "(sentence_transformers' Router.for_query_document)"
        ) from None
    modules: list[Any] = []
    for module in router.sub_modules[name]:
        modules += _route(module, task) if _is_router(module) else [module]
    return modules


def _default_route(model: SentenceTransformer) -> str:
    """Where texts without a task go: to the route that they went to before, documents' where there was none."""
    for module in model:
        if _is_router(module):
            default = module.sub_modules[module.default_route] if module.default_route is not None else None
            return QUERY if default is not None and list(default) == _route(module, QUERY) else DOCUMENT
    return DOCUMENT
