"""Do a model's weights fit its architecture? Where they do not, the loaders fill in random ones and go on."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from ranksaga.errors import ModelError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["LoadReport", "check_weights", "loading_reports"]

SHOWN = 3  # names in a message
# Buffers that older versions of transformers stored and that follow from the config.
DERIVED = re.compile(r"(inv_freq|position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias)$")
# Prefixes that a wrapper leaves on every name: data parallelism, torch.compile, a head's class.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# A table of token types is all zero where a model of another kind was written as BERT; an adapter starts at zero.
MAY_BE_ZERO = re.compile(r"token_type|segment|lora_|bias$")
NOT_FINITE, ALL_ZERO = "with NaN or infinite values", "all zero"
_patching = Lock()


@dataclass(frozen=True)
class LoadReport:
    """What transformers says of the weights that it put into ``network``.

    ``reshaped`` has, of each tensor whose shape does not fit, the shape in the file and the one in the model.
    """

    network: torch.nn.Module
    missing: frozenset[str]
    unexpected: frozenset[str]
    reshaped: Mapping[str, tuple[Sequence[int], Sequence[int]]]


@contextmanager
def loading_reports() -> Iterator[list[LoadReport]]:
    """A list that gets a report on every transformer that is loaded meanwhile.

    ``from_pretrained`` gives its report on request only, and sentence-transformers, which calls it, does not ask.
    """
    from transformers import PreTrainedModel

    reports: list[LoadReport] = []
    plain = PreTrainedModel.__dict__["from_pretrained"]
    log = logging.getLogger("transformers.modeling_utils")  # its table of the same tensors, which no report needs

    def asking(cls: type, *values: Any, **options: Any) -> Any:
        wanted = options.pop("output_loading_info", False)
        options["ignore_mismatched_sizes"] = True  # refused by check_weights, which names them
        try:
            network, found = plain.__get__(None, cls)(*values, output_loading_info=True, **options)
        except RuntimeError as error:
            if not unconverted:
                raise
            raise RuntimeError(
                f"{len(unconverted)} tensors cannot be put together from those in the file ({_few(unconverted)})"
            ) from error
        reshaped = {name: (tuple(stored), tuple(own)) for name, stored, own in found["mismatched_keys"]}
        missing = frozenset(_without_meta(network, found["missing_keys"]))
        reports.append(LoadReport(network, missing, frozenset(found["unexpected_keys"]), reshaped))
        return (network, found) if wanted else network

    unconverted: list[str] = []

    def other(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        unconverted.extend(re.findall(r"^(\S+) +\|[^|\n]*CONVERSION", text, re.MULTILINE))  # this is said nowhere else
        return "LOAD REPORT" not in text

    with _patching:
        log.addFilter(other)
        setattr(PreTrainedModel, "from_pretrained", classmethod(asking))  # noqa: B010
        try:
            yield reports
        finally:
            setattr(PreTrainedModel, "from_pretrained", plain)  # noqa: B010
            log.removeFilter(other)


def check_weights(name: str, model: SentenceTransformer, reports: Sequence[LoadReport]) -> None:
    """Refuse a model whose vectors would come from weights that are not its own.

    A tensor that the file lacks and no vector depends on (BERT's pooler) becomes 0, so that the model is the same at
    every load.

    Raises:
        ModelError: tensors are missing, have another shape or no place in the model, are all zero or hold NaN.
    """
    transformers = {id(part.model): part for part in model.modules() if hasattr(part, "preprocess") and _network(part)}
    faults: dict[str, list[str]] = {}
    for report in reports:
        transformer = transformers.get(id(report.network))
        lacking = report.missing | report.reshaped.keys()
        used = _used(transformer, lacking)
        _zero(report.network, lacking - used)
        for key in sorted(used):
            if key in report.reshaped:
                stored, own = report.reshaped[key]
                faults.setdefault("of another shape than the config says", []).append(f"{key} {stored}, not {own}")
            else:
                faults.setdefault("missing", []).append(key)
        if strange := _strange(report):
            faults["that the config has no place for"] = strange
    faults.update(_broken(model, transformers))
    if faults:
        texts = [f"{len(names)} tensors {kind} ({_few(names)})" for kind, names in faults.items()]
        raise ModelError(
            f"{name}: the weights do not fit the model: {', '.join(texts)}; save the model anew as it was trained, or "
            "mend its config.json"
        )


def _network(part: Any) -> bool:
    import torch

    return isinstance(getattr(part, "model", None), torch.nn.Module)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _used(transformer: Any, names: Collection[str]) -> set[str]:
    """Those of a transformer's tensors that its output depends on, as the derivative by them says.

    Where that cannot be asked, all are taken to be; an expert that this text does not reach is one as well.
    """
    import torch

    if transformer is None or not names:
        return set(names)
    network = transformer.model
    state = {key: value for key, value in _tensors(network).items() if key in names and value.is_floating_point()}
    flags = {key: value.requires_grad for key, value in state.items()}
    try:
        transformer.eval()
        texts = transformer.preprocess(["a short text"])
        inputs = {key: v.to(network.device) if isinstance(v, torch.Tensor) else v for key, v in texts.items()}
        with torch.enable_grad():
            for value in state.values():
                value.requires_grad_()
            output = transformer(inputs)[transformer.module_output_name]
            slopes = torch.autograd.grad(output.float().sum(), list(state.values()), allow_unused=True)
    except Exception:  # the network itself fails with what it was given; the tensors are named to the user
        return set(names)
    finally:
        for key, value in state.items():
            value.requires_grad_(flags[key])
    unused = {key for key, slope in zip(state, slopes, strict=True) if slope is None and "expert" not in key}
    counted = {key for key, value in _tensors(network).items() if key in names and not value.is_floating_point()}
    return set(names) - unused - counted


def _tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}


def _without_meta(network: torch.nn.Module, missing: Collection[str]) -> set[str]:
    """Give values to tensors that the loader left without any; those that are still missing.

    transformers patches its own classes while it loads: of two threads that load at once, one may leave tying switched
    off for the whole process. A tied tensor is then on the device ``meta``, which only fails when the model is moved.
    """
    import torch

    tied = getattr(network, "all_tied_weights_keys", None) or {}
    tensors, lacking = _tensors(network), set(missing)
    for key, value in tensors.items():
        if not value.is_meta:
            continue
        source = tensors.get(tied.get(key, ""))
        if source is None or source.is_meta:
            lacking.add(key)
            zeros = torch.zeros_like(value, device="cpu")
            source = torch.nn.Parameter(zeros) if isinstance(value, torch.nn.Parameter) else zeros
        elif tied[key] not in lacking:
            lacking.discard(key)
        parent, _, name = key.rpartition(".")
        setattr(network.get_submodule(parent), name, source)
    return lacking


def _zero(network: torch.nn.Module, names: Collection[str]) -> None:
    for key, value in _tensors(network).items():
        if key in names and value.is_floating_point():
            value.detach().zero_()


def _strange(report: LoadReport) -> list[str]:
    """Unexpected tensors that belong to the network itself, such as a layer more than the config has.

    Heads of other tasks and other networks in the same file lie beside its layers, not in them.
    """
    known = {_pattern(key) for key in report.network.state_dict()}
    layers = {key[: place + 2] for key in known for place in _places(key)}
    wrappers = (*WRAPPERS, f"{getattr(report.network, 'base_model_prefix', '') or 'module'}.")
    strange = []
    for key in sorted(report.unexpected):
        bare = _pattern(key)
        while prefix := next((one for one in wrappers if bare.startswith(one) and bare not in known), ""):
            bare = bare.removeprefix(prefix)
        inside = any(bare.startswith(layer) for layer in layers)
        if (bare in known or inside) and not DERIVED.search(key):
            strange.append(key)
    return strange


def _pattern(key: str) -> str:
    """A tensor's name with # for the number of a layer."""
    return ".".join("#" if part.isdigit() else part for part in key.split("."))


def _places(pattern: str) -> list[int]:
    return [place for place in range(len(pattern)) if pattern.startswith("#.", place)]


def _broken(model: SentenceTransformer, transformers: Mapping[int, Any]) -> dict[str, list[str]]:
    """Names of tensors that no training leaves behind, where vectors depend on them."""
    import torch

    faults: dict[str, list[str]] = {NOT_FINITE: [], ALL_ZERO: _dead_norms(model)}
    networks = {name: part for name, part in model.named_modules() if id(getattr(part, "model", None)) in transformers}
    parameters = dict(model.named_parameters())
    suspects: dict[str, str] = {}
    for key, value in parameters.items():
        # A sum shows NaN without a second copy of the tensor; it may overflow, so a second look decides.
        if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
            suspects[key] = NOT_FINITE
        elif value.dim() > 1 and not MAY_BE_ZERO.search(key) and any(map(_is_zero, _stored(key, value))):
            suspects[key] = ALL_ZERO
    for key, kind in suspects.items():
        owner = next((name for name in networks if key.startswith(f"{name}.model.")), None)
        own = key if owner is None else key.removeprefix(f"{owner}.model.")
        if owner is None or _used(networks[owner], {own}):
            faults[kind].append(own)
    return {kind: names for kind, names in faults.items() if names}


def _is_zero(value: torch.Tensor) -> bool:
    return not value.flatten()[:64].any() and not value.any()


def _stored(key: str, value: torch.Tensor) -> Iterator[torch.Tensor]:
    """The matrices of a tensor: all experts of a layer lie in one, of each perhaps two, above or beside each other."""
    if "expert" not in key or value.dim() != 3:
        yield value
        return
    for expert in value:
        yield from (*expert.chunk(2, 0), *expert.chunk(2, 1))


def _dead_norms(model: SentenceTransformer) -> list[str]:
    """Scales of normalisations that are all zero and give the same for any input (some add 1 to the scale)."""
    import torch

    names = []
    for name, part in model.named_modules():
        scale = getattr(part, "weight", None)
        if "norm" not in type(part).__name__.lower() or not isinstance(scale, torch.Tensor) or scale.any():
            continue
        inputs = torch.linspace(-1, 2, scale.numel(), device=scale.device)[None]
        with torch.inference_mode():
            outputs = part(torch.cat([inputs, inputs.flip(1)]))
        if torch.equal(outputs[0], outputs[1]):
            names.append(f"{name.split('model.', 1)[-1]}.weight")
    return names
