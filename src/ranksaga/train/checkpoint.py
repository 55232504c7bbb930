"""Checkpoints of a training run: all that a resumed run needs to go on as if nothing had happened.

One safetensors file holds the weights, the optimizer's moments and, in its header, the step, the loss scaler, the
identity of the run, and what the files of the epochs before and the loss log are known by. Random draws and the data
position are functions of (seed, step), and the learning rate is one of the step, so the step stands for all three.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranksaga.encode.weight_files import load_weights_and_metadata, save_weights
from ranksaga.errors import StageError
from ranksaga.files import first_changed
from ranksaga.train.process_group import ProcessGroup

if TYPE_CHECKING:
    import torch

__all__ = ["Position", "remove_checkpoints", "restore_latest", "save_checkpoint", "share_state"]

logger = logging.getLogger(__name__)

# The newest, and one more in case the newest cannot be read.
KEPT = 2
PATTERN = "checkpoint-*.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Position:
    """How far a run is, in all its starts together.

    Attributes:
        step: optimizer steps done.
        pairs: examples seen.
        seconds: time spent.
        losses: sum of the steps' losses, by epoch.
        epochs: size and hash of each file with the weights after an epoch, by name.
        log: size and hash of the loss log's lines so far.
    """

    step: int = 0
    pairs: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    epochs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    log: Sequence[Any] = ()


def save_checkpoint(
    folder: Path,
    position: Position,
    identity: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write ``checkpoint-<step>.safetensors``, then remove all but the newest two."""
    header = {
        "position": json.dumps(asdict(position)),
        "identity": identity,
        "scaler": json.dumps(scaler.state_dict()),
    }
    save_weights(folder / f"checkpoint-{position.step:08d}.safetensors", _tensors(model, optimizer), header)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def restore_latest(
    folder: Path,
    identity: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Position:
    """Load the newest checkpoint that can be read into model, optimizer and scaler.

    A file that is cut or damaged goes, with a warning, and so does one whose epochs' files are. Without any, nothing
    is changed and the position is the start.

    Raises:
        StageError: the folder holds a run of other settings or data.
    """
    for path in _newest_first(folder):
        try:
            tensors, header = load_weights_and_metadata(path)
        except StageError as error:
            _pass_over(path, str(error.__cause__ or error))
            continue
        if header.get("identity") != identity:
            raise StageError(
                f"{path}: this checkpoint is of other settings, data or weights (identity {header.get('identity')}, "
                f"expected {identity}); remove the folder or train in another one"
            )
        values = json.loads(header["position"])
        if (damaged := first_changed(folder, values["epochs"])) is not None:
            _pass_over(path, f"{damaged}, which it follows, is missing or damaged")
            continue
        _load(tensors, model, optimizer)
        if scaler_state := json.loads(header["scaler"]):
            scaler.load_state_dict(scaler_state)
        return Position(**{**values, "losses": tuple(values["losses"])})
    return Position()


def _pass_over(path: Path, reason: str) -> None:
    """It must go: were it kept as one of the newest, those that are written now would be taken for old ones."""
    logger.warning("%s cannot be read (%s); the checkpoint before it is tried", path, reason)
    path.unlink(missing_ok=True)


def share_state(
    world: ProcessGroup, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Bring model, optimizer and scaler of every rank to the state of rank 0; only that one needs to see its files."""
    if world.size == 1:
        return
    tensors, scaling = world.on_rank_zero(
        lambda: ({name: value.cpu() for name, value in _tensors(model, optimizer).items()}, scaler.state_dict())
    )
    if not world.leads:
        _load(tensors, model, optimizer)
        if scaling:
            scaler.load_state_dict(scaling)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints: the run is complete."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Weights and moments by name."""
    tensors: dict[str, torch.Tensor] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    return tensors


def _load(tensors: Mapping[str, torch.Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in tensors:
            # The fused optimizer keeps its step counts beside the parameters.
            optimizer.state[parameter] = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in MOMENTS
            }


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN), reverse=True)
