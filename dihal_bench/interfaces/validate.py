"""What an interface's methods give, held against the contract before anything is spent on it.

Its author gets one sentence: the file, the method, what was expected and what came.
"""

from __future__ import annotations

import hashlib
import inspect
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.settings import PHASES, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch


@contextmanager
def blamed(*kinds: type) -> Iterator[None]:
    """Turn whatever goes wrong in the code of these classes into one sentence that names it.

    Args:
        kinds: the interface's class, and others whose code it runs.

    Raises:
        UserError: something was raised; the message names file, line and method.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # an author's code may fail in any way; the cause is kept
        said = " ".join(str(error).split()) or "without a message"
        raise UserError(
            f"{_culprit(error, kinds)} raised {type(error).__name__}: {said}"
        ) from error


def validate(interface: Interface, batch: Batch) -> None:
    """Call every method of the contract once and look at what it gives.

    Args:
        interface: built and fitted; it is not changed.
        batch: a few windows of text.

    Raises:
        UserError: a method raises, or gives another shape, another kind of number, or NaN; the
            message names the file, the method and what is expected.
    """
    kind = type(interface)
    declared(interface)
    with blamed(kind, type(interface.trunk)):
        shape, (signal, condition) = tuple(batch.tokens.shape), interface.sizes
        vocabulary = batch.backbone.vocab_size
        with torch.no_grad():
            _check(kind, "condition", interface.condition(batch), (*shape, condition))
            x0 = interface.target(batch)
            _check(kind, "target", x0, (*shape, signal))
            _check(kind, "known", interface.known(batch), shape, torch.bool)
            _check(kind, "recover", interface.recover(x0, batch), (*shape, vocabulary))
        for phase in (phase for phase in PHASES if phase in interface.phases):
            _check_losses(kind, interface, batch, phase)
        with torch.no_grad():
            for x0 in interface.chains(batch, steps=1, count=1):
                _check(kind, "chains", x0, (*shape, signal))


def declared(interface: Interface) -> None:
    """Look at what an interface says of itself, before even its closed-form parts are fitted.

    Raises:
        UserError: sizes, layers or phases are none.
    """
    kind, blocks = type(interface), interface.backbone.blocks
    with blamed(kind):
        sizes, layers = interface.sizes, interface.layers
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise _broken(kind, "sizes", "two whole numbers above 0 (signal, condition)", sizes)
    if not layers or not all(isinstance(n, int) and 0 <= n <= blocks for n in layers):
        raise _broken(kind, "layers", f"layers from 0 to {blocks}, at least one", layers)
    unknown = [phase for phase in interface.phases if phase not in PHASES]
    if unknown:
        raise _broken(kind, "phases", f"some of {', '.join(PHASES)}", interface.phases)


def origin(kind: type) -> str:
    """Return where a class is written, as ``file:line``; its name where that is not known."""
    try:
        file, line = inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
    except (TypeError, OSError):
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{_short(file or '?')}:{line}"


def _check_losses(kind: type, interface: Interface, batch: Batch, phase: str) -> None:
    losses = interface.losses(batch, Step(index=0, phase=phase))
    if not isinstance(losses, dict) or not losses:
        raise _broken(kind, "losses", f"losses by name in the {phase} phase", losses)
    for name, value in losses.items():
        _check(kind, f"losses ({phase}, {name!r})", value, ())


def _check(
    kind: type, method: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    """Refuse what is no tensor of the shape, or of finite numbers.

    Raises:
        UserError: it is not.
    """
    word = "bool" if dtype is torch.bool else "float"
    expected = f"a {word} tensor {list(shape)}" if shape else "a single finite number"
    if not isinstance(value, Tensor):
        raise _broken(kind, method, expected, type(value).__name__)
    right = value.dtype == dtype if dtype else value.is_floating_point()
    if tuple(value.shape) != shape or not right:
        came = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        raise _broken(kind, method, expected, came)
    wrong = int((~torch.isfinite(value)).sum())
    if wrong:
        came = f"{wrong} of {value.numel()} numbers that are NaN or infinite"
        raise _broken(kind, method, f"{expected} of finite numbers" if shape else expected, came)


def _broken(kind: type, method: str, expected: str, came: object) -> UserError:
    return UserError(
        f"{origin(kind)}: {kind.__name__}.{method} must give {expected}, and gave {came}; mend it."
    )


def _culprit(error: Exception, kinds: tuple[type, ...]) -> str:
    """Return the innermost place of the classes' own files that the error went through."""
    files = {inspect.getsourcefile(kind) for kind in kinds if kind.__module__ != "builtins"}
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [item for item in frames if item[0].f_code.co_filename in files]
    if not own:
        return f"{origin(kinds[0])}: {kinds[0].__name__}, in {frames[-1][0].f_code.co_qualname},"
    frame, line = own[-1]
    return f"{_short(frame.f_code.co_filename)}:{line}: {frame.f_code.co_qualname}"


def _short(file: str) -> str:
    """Return a path as a person would type it from here."""
    path, here = Path(file).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def source_hash(kind: type) -> str:
    """Return a hash of the file that an interface is written in: edited, it is another one."""
    file = inspect.getsourcefile(kind)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else ""
