"""A device that stands in for a GPU where there is none: it has the rules of ``cuda:0``, not its speed.

Tensors that are moved to ``cuda`` stay in the CPU's memory and are remembered by their storage. They say that they lie
on ``cuda:0``; an operation that mixes them with tensors of the CPU fails as it does on a GPU; and what makes the
processor wait for a GPU is counted. What NumPy or a kernel of ours would read through a pointer is refused.
"""

from __future__ import annotations

import runpy
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ranksaga.encode import fingerprint

CUDA = torch.device("cuda:0")
GIB = 2**30
# Operations whose result, or its size, the processor has to know before it goes on.
WAITS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
    "aten::bincount",
}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}  # takes indices of the CPU


class Standin:
    """What has happened on the device.

    Attributes:
        waits: times that the processor waited for the device, by what made it wait.
        uploads: bytes of each copy to the device.
        unpinned: how many of them were from memory that is not pinned.
        capability: of the card, as ``torch.cuda.get_device_capability`` gives it.
        memory: bytes of the card, free and in all.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.uploads: list[int] = []
        self.unpinned = 0
        self.capability = (8, 0)
        self.memory = (14 * GIB, 16 * GIB)
        self.emptied = 0
        self._storages: dict[int, StorageWeakRef] = {}
        self._pinned: dict[int, StorageWeakRef] = {}

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor lies on the device."""
        return _key(tensor) in self._storages

    @property
    def waited(self) -> int:
        """Times that the processor waited."""
        return sum(self.waits.values())

    def wait(self, cause: str) -> None:
        """Book that the processor waits, with the line of ours that asked."""
        self.waits[f"{cause} at {_asking()}"] += 1

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Remember the tensor as pinned."""
        _remember(self._pinned, tensor)
        return tensor

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Remember the tensor as one on the device."""
        _remember(self._storages, tensor)
        return tensor

    def upload(self, tensor: torch.Tensor) -> None:
        """Book a copy to the device."""
        self.uploads.append(tensor.numel() * tensor.element_size())
        self.unpinned += _key(tensor) not in self._pinned

    def moved(self, tensor: torch.Tensor, there: bool, *, copy: bool = False, non_blocking: bool = False) -> Any:
        """The tensor on the device, or on the CPU."""
        if self.holds(tensor) == there:
            return tensor.clone() if copy else tensor
        if not there:
            if not non_blocking:
                self.wait("copy to the CPU")
            result = tensor.clone()
            self._storages.pop(_key(result), None)
            return result
        self.upload(tensor)
        return self.put(tensor.clone())


class _Names(TorchFunctionMode):
    """Where tensors say that they lie, and what moves them."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(func)
        if special is not None:
            return special(self._standin, func, args, kwargs)
        device = kwargs.get("device")
        there = device is not None and torch.device(device).type == "cuda"
        if there:
            kwargs["device"] = "cpu"
        pinned = kwargs.pop("pin_memory", False)
        result = func(*args, **kwargs)
        if there and isinstance(result, torch.Tensor):
            self._standin.put(result)
        if pinned:
            self._standin.pin(result)
        return result


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What operations may mix, where their results lie, and which of them are waited for."""

    def __init__(self, standin: Standin) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._standin = standin

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        standin, kwargs = self._standin, kwargs or {}
        given = [*_tensors(args), *_tensors(kwargs.values())]
        there = [one for one in given if standin.holds(one)]
        if not there:
            return func(*args, **kwargs)
        name = func._schema.name
        elsewhere = [one for one in given if one.ndim and not standin.holds(one)]
        if name == "aten::copy_":
            if standin.holds(args[0]):
                standin.upload(args[1])
            elif not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking"):
                standin.wait("copy_ to the CPU")
            return func(*args, **kwargs)
        if name in INDEXED:
            indices = [one for one in args[1] if one is not None]
            for one in indices:
                if not standin.holds(one):
                    standin.upload(one)
                if one.dtype in (torch.bool, torch.uint8):
                    standin.wait("boolean mask")
            elsewhere = [one for one in elsewhere if not any(one is index for index in indices)]
        if elsewhere:
            shapes = ", ".join(str(tuple(one.shape)) for one in elsewhere)
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({name} with {shapes} on the CPU)"
            )
        if name in WAITS:
            standin.wait(name)
        result = func(*args, **kwargs)
        before = {_key(one) for one in given}
        for one in _tensors([result]):
            if _key(one) not in before:
                standin.put(one)
        return result


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for one in values:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, list | tuple):
            yield from _tensors(one)


def _key(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _remember(among: dict[int, StorageWeakRef], tensor: torch.Tensor) -> None:
    """Keep a weak reference to the storage, so that no other one gets its address while it is remembered."""
    if len(among) > 5000:
        for key in [key for key, one in among.items() if one.expired()]:  # type: ignore[no-untyped-call]
            del among[key]
    among[_key(tensor)] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _asking() -> str:
    """The innermost line of the package on the stack."""
    for frame in reversed(traceback.extract_stack(limit=60)):
        if "/ranksaga/" in frame.filename:
            return f"{frame.filename.rsplit('/ranksaga/', 1)[1]}:{frame.name}"
    return "another package"


def _to(standin: Standin, func: Any, args: Any, kwargs: Any) -> Any:
    tensor, *rest = args
    copy = kwargs.pop("copy", False)
    if (rest and isinstance(rest[0], torch.Tensor)) or "other" in kwargs:
        other = rest[0] if rest else kwargs["other"]
        device, kind, later = (CUDA if standin.holds(other) else other.device), other.dtype, False
    else:
        device, kind, later, _ = torch._C._nn._parse_to(*rest, **kwargs)
    result = tensor if kind is None else tensor.to(kind)
    if device is None:
        return result.clone() if copy and result is tensor else result
    return standin.moved(result, device.type == "cuda", copy=copy, non_blocking=later)


def _numpy(standin: Standin, func: Any, args: Any, kwargs: Any) -> Any:
    if standin.holds(args[0]):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
    return func(*args, **kwargs)


def _listed(standin: Standin, func: Any, args: Any, kwargs: Any) -> Any:
    if standin.holds(args[0]):
        standin.wait("tolist")
    return func(*args, **kwargs)


def _number(standin: Standin, func: Any, args: Any, kwargs: Any) -> Any:
    """Also where no operation is seen: in inference mode a number is read past the dispatcher."""
    before = standin.waited
    result = func(*args, **kwargs)
    if standin.holds(args[0]) and standin.waited == before:
        standin.wait("aten::_local_scalar_dense")
    return result


def _alike(standin: Standin, func: Any, args: Any, kwargs: Any) -> Any:
    result = func(*args, **kwargs)
    return standin.put(result) if standin.holds(args[0]) else result


_SPECIAL: dict[Any, Callable[..., Any]] = {
    torch.Tensor.device.__get__: lambda s, f, a, k: CUDA if s.holds(a[0]) else f(*a),
    torch.Tensor.is_cuda.__get__: lambda s, f, a, k: s.holds(a[0]),  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda s, f, a, k: not s.holds(a[0]),  # type: ignore[attr-defined]
    torch.Tensor.get_device: lambda s, f, a, k: 0 if s.holds(a[0]) else -1,
    torch.Tensor.to: _to,
    torch.Tensor.cpu: lambda s, f, a, k: s.moved(a[0], False),
    torch.Tensor.cuda: lambda s, f, a, k: s.moved(a[0], True),
    torch.Tensor.pin_memory: lambda s, f, a, k: s.pin(a[0].clone()),
    torch.Tensor.is_pinned: lambda s, f, a, k: _key(a[0]) in s._pinned,
    torch.Tensor.numpy: _numpy,
    torch.Tensor.__array__: _numpy,
    torch.Tensor.tolist: _listed,
    **dict.fromkeys((torch.Tensor.item, torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__bool__), _number),
    torch.Tensor.__deepcopy__: _alike,
    torch.Tensor.new_tensor: _alike,
}


@contextmanager
def standing_in() -> Iterator[Standin]:
    """A GPU, for as long as this lasts and in this thread."""
    from torch.nn.utils import clip_grad
    from torch.optim import Optimizer

    standin = Standin()
    fingerprint._keys.cache_clear()  # of the stand-in before
    autocast, grouped = torch.autocast, clip_grad._group_tensors_by_device_and_dtype  # type: ignore[attr-defined]

    def by_device(lists: Any, with_indices: bool = False) -> Any:
        """As torch groups them; it asks tensors in C++, where no stand-in is heard."""
        groups = grouped(lists, with_indices)
        there = any(standin.holds(one) for tensors in lists for one in tensors if one is not None)
        return {(CUDA if there else device, kind): group for (device, kind), group in groups.items()}

    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_, **__: standin.capability >= (8, 0),
        "get_device_name": lambda *_: "Stand-in",
        "get_device_capability": lambda *_: standin.capability,
        "mem_get_info": lambda *_: standin.memory,
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "synchronize": lambda *_: standin.wait("synchronize"),
        "empty_cache": lambda: setattr(standin, "emptied", standin.emptied + 1),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "current_stream": lambda *_: SimpleNamespace(
            record_event=lambda: SimpleNamespace(synchronize=lambda: standin.wait("event"))
        ),
    }
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "autocast", lambda kind, *a, **k: autocast("cpu" if kind == "cuda" else kind, *a, **k))
        patch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", by_device)
        patch.setattr(Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(by_device))
        stack.enter_context(_Operations(standin))
        stack.enter_context(_Names(standin))
        yield standin


@pytest.fixture
def gpu() -> Iterator[Standin]:
    """A device that stands in for a GPU."""
    with standing_in() as standin:
        yield standin


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The helpers of ``tiny_training.py``."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "train" / "tiny_training.py")))


@pytest.fixture(scope="session")
def tiny_folder(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT, saved; its words far apart, so that texts of different words are no near-copies."""
    folder: Path = small.build_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))
    model = small.load(folder)
    with torch.no_grad():
        model.transformers_model.get_input_embeddings().weight.mul_(40.0)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
