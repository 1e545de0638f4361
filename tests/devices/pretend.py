"""A device ``acc:0`` that computes on the CPU, and is as strict as a real accelerator about it.

Tensors are wrappers that say they lie on ``acc:0``. An operation between them and tensors of the
CPU is refused where CUDA refuses it, and every wait of the host for the device is counted, as is
every copy to it. Nothing here is fast, and no kernel is different: what is found is code that
mixes devices, or waits where it need not.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten
NAME = "acc"
CPU = torch.device("cpu")
_COPIES = {aten._to_copy.default, aten.copy_.default, aten._to_copy.out}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_INDEXED |= {aten._index_put_impl_.default, aten._unsafe_index.Tensor}
_FACTORIES = (  # operations that make a tensor of nothing
    *("empty.memory_format", "empty_strided", "scalar_tensor", "full", "zeros", "ones", "linspace"),
    *("arange", "arange.start", "arange.start_step", "eye", "eye.m", "tril_indices", "randn"),
    *("rand", "randint", "randint.low", "randperm"),
)
_WAITS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@dataclass
class Traffic:
    """What passed between host and device.

    Attributes:
        waits: how often the host waited for a result of the device, by operation.
        uploads: how often the host waited until something was copied to the device.
        ahead: how often something was copied to it from pinned memory, while the host went on.
        places: where in the code each happened, if ``traced``.
        traced: whether to remember where.
    """

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    ahead: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    traced: bool = False

    def note(self, kind: str, func: Any) -> None:
        getattr(self, kind)[str(func)] += 1
        if self.traced:
            self.places[f"{kind} {func} {_caller()}"] += 1


_watching: list[Traffic] = []


@contextmanager
def traffic(*, traced: bool = False) -> Iterator[Traffic]:
    """Count what passes between host and device meanwhile."""
    own = Traffic(traced=traced)
    _watching.append(own)
    try:
        yield own
    finally:
        _watching.remove(own)


class OnAccelerator(Tensor):
    """A tensor of the device; ``inner`` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnAccelerator:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Say that it is a wrapper: ``module.double()`` then swaps it as a whole."""
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> OnAccelerator:
        return OnAccelerator(inner["inner"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        twin = OnAccelerator(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k != "inner"})
        return memo.setdefault(id(self), twin)

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return where the numbers lie: whoever writes files asks which tensors share memory."""
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        """Return plain numbers, as any device does."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"OnAccelerator({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the numbers; its results lie where a real one's would."""
    target = _target(func, args, kwargs)
    _check(func, args, kwargs)
    inner_args, inner_kwargs = tree_map_only(OnAccelerator, lambda t: t.inner, (args, kwargs))
    if "device" in inner_kwargs:
        inner_kwargs["device"] = CPU
    out = func(*inner_args, **inner_kwargs)
    if target == CPU:
        return out
    out = tree_map_only(Tensor, OnAccelerator, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _target(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device:
    """Return where results lie, and count a copy between the devices."""
    if func is aten.copy_.default:
        there, source = args[0].device, args[1].device
    else:
        source = next(t.device for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        source = torch.device(NAME, 0) if func not in _COPIES else source
        there = kwargs.get("device") or source
    if func in _COPIES and there.type != source.type:
        ahead = any(getattr(t, "pinned", False) for t in args[1:]) and args[-1] is True
        _note("waits" if there.type == "cpu" else "ahead" if ahead else "uploads", func)
    return CPU if there.type == "cpu" else torch.device(NAME, 0)


def _check(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Refuse mixed devices as CUDA does; count what makes the host wait."""
    if func in _COPIES:
        return
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    others = [t for t in tensors if not isinstance(t, OnAccelerator)]
    if func in _INDEXED and isinstance(args[0], OnAccelerator):
        indices = [t for t in args[1] if t is not None]
        if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
            _note("waits", func)  # how many are true decides the shape
        for _ in (t for t in indices if not isinstance(t, OnAccelerator)):
            _note("uploads", func)  # CUDA copies them silently
        others = [t for t in others if not any(t is index for index in indices)]
    scalars = torch.Tag.pointwise in func.tags or func in _INDEXED
    if any(t.ndim or not scalars for t in others):
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, found {NAME}:0 and cpu"
        )
    if func not in _INDEXED and any(tag in func.tags for tag in _WAITS):
        _note("waits", func)


def _note(kind: str, func: Any) -> None:
    for own in _watching:
        own.note(kind, func)


def _caller() -> str:
    """Return the innermost lines of the package that is tested."""
    import traceback

    stack = [f for f in traceback.extract_stack() if "dihal_bench" in f.filename]
    return " < ".join(f"{f.filename.split('dihal_bench/')[-1]}:{f.lineno}" for f in stack[:-4:-1])


class _Module:
    """What torch asks of ``torch.acc``."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """There is no generator of its own."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def device() -> torch.device:
    """Return the device, which exists in this process from here on."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    for name in _FACTORIES:
        library.impl(name, partial(_made, _overload(name)), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    library.impl("_pin_memory", _pinned, "CPU", allow_override=True)
    library.impl("is_pinned", lambda t, device=None: hasattr(t, "pinned"), "CPU")
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # autocast does nothing
    _libraries.extend((library, rest))  # what a library registers ends with it
    return torch.device(NAME, 0)


def _made(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    return OnAccelerator(func(*args, **{**kwargs, "device": CPU}))


def _copy_from(source: Tensor, there: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy where torch calls no ``copy_``: in ``torch.tensor(..., device=...)``."""
    del non_blocking
    _note("uploads", "torch.tensor")
    assert isinstance(there, OnAccelerator)
    there.inner.copy_(source)
    return there


def _pinned(source: Tensor, device: Any = None) -> Tensor:
    del device
    copy = source.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


_libraries: list[torch.library.Library] = []
