"""The processes that train together: as many as torch.distributed has joined, one where it is not in use.

The sums are the same on every rank bit for bit, so ranks that start alike stay alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ranksaga.errors import RankSagaError

if TYPE_CHECKING:
    import torch

__all__ = ["ProcessGroup"]

T = TypeVar("T")
BUCKET = 1 << 24  # gradients that are summed at once


class ProcessGroup:
    """This process among those that train; rank 0 leads: it alone reads and writes files."""

    def __init__(self) -> None:
        import torch.distributed as distributed

        joined = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if joined else 0
        self.size = distributed.get_world_size() if joined else 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> None:
        """Put the sum over all ranks into each rank's tensor."""
        if self.size > 1:
            import torch.distributed as distributed

            distributed.all_reduce(tensor)

    def least(self, value: int) -> int:
        """The least value of any rank."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as distributed

        told = torch.tensor([value], dtype=torch.int64)
        distributed.all_reduce(told, distributed.ReduceOp.MIN)
        return int(told)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients; one that has none on any rank keeps none."""
        if self.size == 1:
            return
        import torch

        found = list(parameters)
        present = torch.tensor([float(one.grad is not None) for one in found])  # on the CPU: no GPU is waited for
        self.sum(present)
        reached = [one for one, count in zip(found, present.tolist(), strict=True) if count]
        for one in reached:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        for bucket in _buckets([one.grad for one in reached if one.grad is not None]):
            flat = torch.nn.utils.parameters_to_vector(bucket)
            self.sum(flat)
            torch.nn.utils.vector_to_parameters(flat, bucket)

    def on_rank_zero(self, function: Callable[[], T]) -> T:
        """What the function gives on rank 0, where alone it is called, or the error that it raises there."""
        if self.size == 1:
            return function()
        import torch.distributed as distributed

        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = function()
            except RankSagaError as error:
                told[1] = error
        distributed.broadcast_object_list(told, device=_cpu())
        if told[1] is not None:
            raise told[1]
        result: T = told[0]
        return result


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors in their order, so many at a time that their sum needs little memory of its own."""
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")
