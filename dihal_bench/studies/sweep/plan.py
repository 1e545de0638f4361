"""What is swept: candidates along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.geometry.score import resolve_layer
from dihal_bench.interfaces.transform import Transform
from dihal_bench.studies.study import Candidate
from dihal_bench.studies.sweep.predictors import POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

IDENTITY = "identity"  # what every other transform is compared with
_SCALE = "scale:4"  # what "scale" alone means: a power of two, which changes no digit


@dataclass(frozen=True, kw_only=True)
class SweepCandidate(Candidate):
    """One place, or one setting, that is tried.

    Attributes:
        settings: "key=value" strings that make it.
        layer: upper end of the replaced span; None where layers are not what is swept.
        transform: of the coordinates that are generated; none unless they are swept.
    """

    settings: tuple[str, ...]
    layer: int | None = None
    transform: str | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is swept.

    Attributes:
        name: of the files that are written.
        title: for people.
        candidates: in the order of the tables.
    """

    name: str
    title: str
    candidates: tuple[SweepCandidate, ...]

    @property
    def layers(self) -> list[int]:
        """The layers of all candidates, ascending."""
        return sorted({c.layer for c in self.candidates if c.layer is not None})


def layer_axis(layers: Sequence[int], *, start: int, span: int | None) -> Axis:
    """Return one candidate per layer l: (a, l] replaced, or with a span g (l - g, l].

    Args:
        layers: upper ends of the spans.
        start: a, the lower end, where there is no span.
        span: g, the number of replaced blocks: compute is the same at every layer.

    Raises:
        UserError: g is not positive, or fewer than g blocks lie below a layer.
    """
    if span is not None and span < 1:
        raise UserError(f"--span {span} replaces nothing; give the number of blocks, 1 or more.")
    for layer in layers:
        if span is not None and span > layer:
            raise UserError(
                f"--span {span} does not fit below layer {layer}; give a span of {layer} at most, "
                "or leave the lowest layers out with --layers."
            )
    ends = {layer: start if span is None else layer - span for layer in layers}
    return Axis(
        name="layers" if span is None else f"span-{span}",
        title=f"one bridge per layer l, blocks ({start}, l] replaced"
        if span is None
        else f"one bridge per layer l, blocks (l - {span}, l] replaced",
        candidates=tuple(
            SweepCandidate(
                label=str(layer), settings=(f"layer={layer}", f"from_layer={a}"), layer=layer
            )
            for layer, a in ends.items()
        ),
    )


def transform_axis(layers: Sequence[int], transforms: Sequence[str]) -> Axis:
    """Return one candidate per layer and transform of what is generated there."""
    candidates = [
        SweepCandidate(
            label=f"{layer} {transform}",
            settings=(f"layer={layer}", f"hidden.transform={transform}"),
            layer=layer,
            transform=transform,
        )
        for layer in layers
        for transform in transforms
    ]
    return Axis(
        name="transform",
        title="one bridge per layer and change of coordinates",
        candidates=tuple(candidates),
    )


def setting_axis(key: str, values: Sequence[str]) -> Axis:
    """Return one candidate per value of a configuration key.

    Raises:
        UserError: the key is no setting of one comparison.
    """
    if key == "seed":
        raise UserError("--over seed: seeds are what every candidate is trained with; use --seeds.")
    if key.startswith("budget."):
        raise UserError(
            f"--over {key}: runs of different budgets cannot be ranked; sweep them in separate "
            f"folders, each with its own --set {key}."
        )
    return Axis(
        name=f"over-{key}",
        title=f"one run per {key}",
        candidates=tuple(SweepCandidate(label=v, settings=(f"{key}={v}",)) for v in values),
    )


def chosen_layers(text: str, blocks: int) -> list[int]:
    """Read "all", "1,2,5-7", "early,middle" and the like.

    Raises:
        UserError: a part is no layer of 1..N-1.
    """
    if text == "all":
        return list(range(1, blocks))
    found: set[int] = set()
    for part in (p.strip() for p in text.split(",")):
        first, dash, last = part.partition("-")
        try:
            if part in POLICIES:
                first = str(resolve_layer(part, blocks, None))
            found |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            found.add(0)
        if not found or not 1 <= min(found) <= max(found) < blocks:
            raise UserError(
                f"--layers {text}: {part or 'an empty part'} names no layer from 1 to "
                f"{blocks - 1}; write all, {', '.join(POLICIES)}, or numbers and ranges such as "
                "1,2,5-7."
            )
    return sorted(found)


def chosen_transforms(text: str) -> list[str]:
    """Read "rotate,scale,spectrum:0,0.5,1": a number alone goes on with the name before it.

    The identity comes first, whatever was asked for.

    Raises:
        UserError: one of them is unknown.
    """
    found, name = [IDENTITY], ""
    for part in (p.strip() for p in text.split(",")):
        one = part if not part or part[0].isalpha() else f"{name}:{part}"
        name = one.partition(":")[0]
        one = _SCALE if one == "scale" else one
        if Transform.parse(one).name == "none":
            raise UserError("--transform none: what it is compared with is identity; leave it out.")
        found.append(one)
    return list(dict.fromkeys(found))


SWEEPS: dict[str, dict[str, Any]] = {
    "tiny": {
        "budget.name": "tiny-sweep",
        "budget.diffusion_tokens": 262_144,
        "budget.recovery_tokens": 131_072,
        "score.tokens": 12_288,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
    "small": {
        "budget.name": "small-sweep",
        "budget.diffusion_tokens": 12_500_000,
        "budget.recovery_tokens": 6_250_000,
        "score.tokens": 100_000,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
    "paper": {  # DiHAL, section 4.1: one epoch on nine tenths of 150K sequences
        "budget.name": "paper-sweep",
        "budget.diffusion_tokens": 69_120_000,
        "budget.recovery_tokens": 34_560_000,
        "score.tokens": 250_000,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
}
