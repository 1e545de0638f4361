"""Which records may stand in one table: the same model, text, regime and budget."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.config import RunConfig
from dihal_bench.leaderboard.verify import own_task, within_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dihal_bench.records import Record

_SHARED = (  # keys that a setting has in common, and what never tells two rows apart
    *("seed", "backbone", "corpus", "regime", "block", "dtype", "interface"),
    *("layer", "from_layer"),  # the blocks that they come to are told
    *("budget.name", "budget.diffusion_tokens", "budget.recovery_tokens", "budget.matched"),
)
_LONGEST = 60  # letters of a value in a label


@dataclass(frozen=True, order=True, kw_only=True)
class Setting:
    """What all rows of a table have in common.

    Attributes:
        backbone: name.
        backbone_fingerprint: of its weights.
        corpus: name.
        corpus_fingerprint: of its text.
        task: what is scored.
        regime: "causal" or "sequence".
        block: tokens per block; 0 in the causal regime.
        diffusion_tokens: of the budget.
        recovery_tokens: of the budget.
        matched: "diffusion" or "total".
        dtype: of the backbone's arithmetic.
        documents: digest of the tokens scored per document.
        within: whether the runs kept to the budget.
    """

    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    task: str
    regime: str
    block: int
    diffusion_tokens: int
    recovery_tokens: int
    matched: str
    dtype: str
    documents: str
    within: bool

    @classmethod
    def of(cls, record: Record) -> Setting:
        """Return the setting that a record belongs to."""
        data = record.data
        config, budget = data["config"], data["config"]["budget"]
        return cls(
            backbone=public(data["backbone"]["name"]),
            backbone_fingerprint=data["backbone"]["fingerprint"],
            corpus=public(data["corpus"]["name"]),
            corpus_fingerprint=data["corpus"]["fingerprint"],
            task=public(own_task(data)),
            regime=data["regime"],
            block=data["interface"]["args"]["block"],
            diffusion_tokens=budget["diffusion_tokens"],
            recovery_tokens=budget["recovery_tokens"],
            matched=budget["matched"],
            dtype=config["dtype"],
            documents=_digest(list(data["sums"]["tokens"])),
            within=within_budget(data) and data["budget"]["within"] is True,
        )


@dataclass(frozen=True)
class Group:
    """The records of one table.

    Attributes:
        setting: what they have in common.
        name: for titles and files: no other group has it.
        records: label of the interface -> records, one per seed.
    """

    setting: Setting
    name: str
    records: Mapping[str, list[Record]]

    @property
    def all(self) -> list[tuple[str, Record]]:
        """All records with their labels."""
        return [(label, record) for label, own in self.records.items() for record in own]


def grouped(records: Iterable[Record]) -> list[Group]:
    """Sort records into tables, matched ones first.

    Runs of one interface that differ in their settings are rows of their own, and labelled with
    what they differ in.
    """
    settings: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        settings[Setting.of(record)].append(record)
    ordered = sorted(settings, key=lambda setting: (not setting.within, setting))
    names = _names(ordered)
    return [Group(own, names[own], _labelled(settings[own])) for own in ordered]


def public(name: str) -> str:
    """Return a name as the leaderboard shows it: of a path on somebody's machine the last part."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", "~")) else name


def _names(settings: list[Setting]) -> dict[Setting, str]:
    """Return a name for each setting that is safe for files; equal ones get a digest."""
    plain = {own: _plain_name(own) for own in settings}
    common = [name for name in plain.values() if list(plain.values()).count(name) > 1]
    return {
        own: f"{name}-{_digest(asdict(own))}" if name in common else name
        for own, name in plain.items()
    }


def _plain_name(own: Setting) -> str:
    block = f"{own.regime}-{own.block}" if own.block else own.regime
    backbone = own.backbone.rstrip("/").rpartition("/")[2]
    parts = [backbone, block, f"{own.matched}-{own.diffusion_tokens}"]
    parts += [] if own.within else ["unmatched"]
    return safe("-".join(parts))


def safe(name: str) -> str:
    """Return a name for a file."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "unnamed"


def _labelled(records: list[Record]) -> dict[str, list[Record]]:
    """Return the records by interface and what its runs differ in, the reference first."""
    by_interface: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda own: (own.data["created"], own.data["id"])):
        by_interface[record.data["interface"]["name"]].append(record)
    found: dict[str, list[Record]] = defaultdict(list)
    for name in sorted(by_interface, key=lambda name: (name != "hidden", name)):
        for label, record in sorted(_labels(name, by_interface[name]), key=_order):
            found[label].append(record)
    return dict(found)


def _order(item: tuple[str, Record]) -> tuple[str, int, str]:
    label, record = item
    return label, record.data["config"]["seed"], record.data["id"]


def _labels(name: str, records: list[Record]) -> list[tuple[str, Record]]:
    traits = [_traits(record) for record in records]
    keys = sorted({key for own in traits for key in own})
    telling = [key for key in keys if len({repr(own.get(key)) for own in traits}) > 1]
    usual = _flat(RunConfig().to_dict())
    found, taken = [], set()
    for record, own in zip(records, traits, strict=True):
        parts = [f"{k}={_short(own[k])}" for k in telling if k in own and own[k] != usual.get(k)]
        seed = record.data["config"]["seed"]
        if (tuple(parts), seed) in taken:  # other code of the same name and settings
            parts.append(f"run={record.data['run']}")
        taken.add((tuple(parts), seed))
        found.append((f"{name} ({', '.join(parts)})" if parts else name, record))
    return found


def _traits(record: Record) -> dict[str, Any]:
    """Return what tells a run from others of its interface: settings, the span, its code."""
    data = record.data
    own = {key: value for key, value in _flat(data["config"]).items() if key not in _SHARED}
    return {**own, "blocks": f"{data['interface']['from']}-{data['layer']}"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _short(value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
