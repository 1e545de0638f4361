"""Trainable tensors that an interface uses without having registered them: nobody counts those."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dihal_bench.interfaces.base import Interface

_OPAQUE = (type, str, bytes, int, float, torch.dtype, torch.device, types.ModuleType)


def hidden_tensors(interface: Interface) -> dict[str, Tensor]:
    """Return what hangs on an interface, outside registration, and requires a gradient; by path.

    Lists, dictionaries and objects of any kind are looked into; the teacher is not.
    """
    known = {id(p) for p in interface.parameters()}
    return {
        inner: tensor
        for path, value in _reachable(interface, {id(interface.backbone)})
        for inner, tensor in _tensors(path, value)
        if tensor.is_leaf and tensor.requires_grad and id(tensor) not in known
    }


def leaves(values: Iterable[Tensor]) -> list[Tensor]:
    """Return the tensors that gradients of ``values`` end in."""
    ahead: list[Any] = [value.grad_fn for value in values if value.grad_fn is not None]
    seen: set[Any] = set()
    found: dict[int, Tensor] = {}
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found[id(variable)] = variable
        ahead += [following for following, _ in node.next_functions if following is not None]
    return list(found.values())


def _reachable(root: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield everything that hangs on ``root``, each thing once, with the way to it."""
    ahead = [(type(root).__name__, root)]
    while ahead:
        path, value = ahead.pop()
        if id(value) in seen or isinstance(value, _OPAQUE):
            continue
        seen.add(id(value))
        yield path, value
        ahead += _parts(path, value)


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Tensor):
        return []
    if isinstance(value, dict):
        return [(f"{path}[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, types.FunctionType | types.MethodType):
        return _enclosed(path, value)
    return [(f"{path}.{name}", item) for name, item in getattr(value, "__dict__", {}).items()]


def _enclosed(path: str, value: Any) -> list[tuple[str, Any]]:
    """Return what a function keeps in its closure and defaults, and a method is bound to."""
    function = getattr(value, "__func__", value)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [(f"{path}()", item) for item in (*cells, *(function.__defaults__ or ()))]


def _tensors(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, nn.Module):
        for name, parameter in value.named_parameters():
            yield f"{path}.{name}", parameter
