"""State of training and trained interfaces on disk: safetensors only, nothing is unpickled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.core import distributed, kept
from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.training.trainee import TrainState


_RETRAIN = "put it back as it was, or train anew in another folder"


def save_training(path: Path, trainees: Sequence[TrainState], step: int) -> None:
    """Write everything that ``step`` steps of training have produced into one file, atomically."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"step": step, "trainees": {}}
    for trainee in trainees:
        tensors |= {f"{trainee.name}/{key}": value for key, value in _tensors(trainee).items()}
        facts["trainees"][trainee.name] = {"spent": trainee.spent.to_dict(), "curve": trainee.curve}
    kept.write_tensors(path, tensors, {"training": facts})


def load_training(path: Path, trainees: Sequence[TrainState]) -> int:
    """Restore the trainees from a checkpoint, bit for bit; return the next step (0 without one).

    Raises:
        UserError: the file belongs to other trainees.
    """
    if not distributed.on_main(partial(kept.usable, path)):
        return 0
    found = kept.read_tensors(path)
    try:
        facts = found.facts["training"]
        for trainee in trainees:
            _restore(trainee, found.tensors, facts["trainees"][trainee.name])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint {path} cannot be continued ({error}); delete it to start over."
        ) from error
    return int(facts["step"])


def weights_file(folder: Path, name: str) -> Path:
    """Return where the weights of an interface lie in the folder of its run."""
    return folder / "weights" / f"{name}.safetensors"


def save_interface(path: Path, interface: Interface, near: Path | None = None) -> None:
    """Write a trained or fitted interface: trunk and closed-form tables.

    Args:
        path: of the file.
        interface: as it is to be loaded again.
        near: a folder where its tables may lie already.
    """
    state = {name: value.contiguous() for name, value in interface.state_dict().items()}
    kept.write_tensors(path, state, common=_tables(interface, state), near=near)


def load_interface(path: Path, interface: Interface) -> None:
    """Restore an interface saved by ``save_interface``.

    Raises:
        UserError: the file is not intact, or its tensors do not fit the interface.
    """
    device = str(interface.backbone.device)
    found = kept.read_tensors(path, device=device, remedy=_RETRAIN)
    try:
        interface.load_state_dict(found.tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the interface ({error}); {_RETRAIN}.") from error


def check_weights(path: Path, known: str | None) -> None:
    """Make sure that a file of weights is the one that a record speaks of.

    Args:
        path: of the file.
        known: its SHA-256 by the record; None: the record is of version 3 and says nothing.

    Raises:
        UserError: it is another file, or not there.
    """
    if known is not None and kept.sha256(path, remedy=_RETRAIN) != known:
        raise UserError(f"{path} is not the file that the run's record speaks of; {_RETRAIN}.")
    if known is not None:
        kept.check(path, remedy=_RETRAIN)  # what lies beside it is in its digest


def save_phase(path: Path, interface: Interface, phase: str, facts: dict[str, Any]) -> None:
    """Write an interface as a phase has left it, and facts about the phase.

    A recovery serves trunks of any shape: they are no part of it.
    """
    state = {
        name: value.contiguous()
        for name, value in interface.state_dict().items()
        if phase == "diffusion" or not name.startswith("trunk.")
    }
    kept.write_tensors(path, state, {"phase": facts}, common=_tables(interface, state))


def load_phase(path: Path, interface: Interface) -> dict[str, Any]:
    """Restore what ``save_phase`` wrote; return the facts.

    Raises:
        UserError: the file is not intact, or its tensors do not fit the interface.
    """
    found = kept.read_tensors(path, device=str(interface.backbone.device))
    try:
        facts: dict[str, Any] = found.facts["phase"]
        interface.load_state_dict({**interface.state_dict(), **found.tensors})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path} does not fit the interface ({error}); delete it.") from error
    return facts


def _tables(interface: Interface, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of what no gradient trains: files of one run have it in common."""
    return [name for name, _ in interface.named_buffers() if name in state]


def _tensors(trainee: TrainState) -> dict[str, Tensor]:
    found = {f"weight/{i}": p.detach() for i, p in enumerate(trainee.parameters)}
    found |= {f"average/{i}": a for i, a in enumerate(trainee.average)}
    for o, optimizer in enumerate(trainee.optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{o}/{i}/{k}": torch.as_tensor(v) for k, v in state.items()}
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


@torch.no_grad()
def _restore(trainee: TrainState, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    prefix = f"{trainee.name}/"
    mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    for i, parameter in enumerate(trainee.parameters):
        parameter.copy_(mine[f"weight/{i}"])
        trainee.average[i].copy_(mine[f"average/{i}"])
    for o, optimizer in enumerate(trainee.optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in mine.items():
            if key.startswith(f"optimizer/{o}/"):
                _, _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    for name, value in facts["spent"].items():
        setattr(trainee.spent, name, value)
    trainee.curve = facts["curve"]
