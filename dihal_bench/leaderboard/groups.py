"""Which records may stand in one table: the same model, text, regime and budget."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.config.choices import with_new_names
from dihal_bench.config.resolve import default_values
from dihal_bench.core.files import safe
from dihal_bench.core.markdown import one_line
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.leaderboard.verify import within_budget
from dihal_bench.results.fields import LEAST_SEEDS
from dihal_bench.results.metrics import BRIER1, NLL
from dihal_bench.results.record import own_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dihal_bench.results.record import Record

_SHARED = (  # keys that a setting has in common, and what never tells two rows apart
    *("seed", "backbone", "corpus", "regime", "block", "dtype", "interface", "device"),
    *("layer", "from_layer"),  # the blocks that they come to are in the label
    *("budget.name", "budget.diffusion_tokens", "budget.recovery_tokens", "budget.matched"),
)
_OVERSPENT = "spent more or less than the budget gives, or has a trunk of another size"
_APART = 0.01  # nats, or shares: further than arithmetic of another machine moves a teacher
_ROW = ("subject", "steps", "chains", "signal")
_LONGEST = 60  # letters of a value in a label
_BRIEF = 24  # letters of a value in a title
_TELLING = {  # fields of a setting that tell tables of one title apart, in words
    "backbone_fingerprint": "weights",
    "corpus": "text",
    "corpus_fingerprint": "text",
    "task": "scored on",
    "diffusion_tokens": "diffusion tokens",
    "recovery_tokens": "recovery tokens",
    "dtype": "in",
    "documents": "scored tokens",
    "teacher": "teacher's NLL",
}
_MOST = 4  # settings that a label names


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
        teacher: "": the teacher's scores are those of most; else what they are.
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
    teacher: str = ""

    @property
    def reason(self) -> str:
        """Why runs may not be compared with others; empty: they may."""
        if self.teacher:
            return f"their teacher scores otherwise on the same text: {self.teacher}"
        return "" if self.within else _OVERSPENT

    @property
    def title(self) -> str:
        """What a person calls it; others may be called the same."""
        regime = f"{self.regime}, blocks of {self.block}" if self.block else self.regime
        total = self.diffusion_tokens + self.recovery_tokens
        budget = (
            f"{self.diffusion_tokens:,} diffusion tokens"
            if self.matched == "diffusion"
            else f"{total:,} tokens in total"
        )
        return f"{self.backbone}, {regime}, {budget}"

    @classmethod
    def of(cls, record: Record) -> Setting:
        """Return the setting that a record belongs to."""
        data = record.data
        config, budget = data["config"], data["config"]["budget"]
        return cls(
            backbone=_backbone(data["backbone"]),
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
        name: for files: no other group has it.
        title: for people: no other group has it.
        records: label of the interface -> records, one per seed.
    """

    setting: Setting
    name: str
    title: str
    records: Mapping[str, list[Record]]

    @property
    def all(self) -> list[tuple[str, Record]]:
        """All records with their labels."""
        return [(label, record) for label, own in self.records.items() for record in own]


def grouped(records: Iterable[Record]) -> list[Group]:
    """Sort records into tables: matched ones first, of these the ones with most to compare.

    Runs of one interface that replace other blocks or differ in their settings are rows of their
    own, and labelled with the blocks and what they differ in.
    """
    settings: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        settings[Setting.of(record)].append(record)
    apart = {
        replace(setting, teacher=teacher): _labelled(own)
        for setting, some in settings.items()
        for teacher, own in _by_teacher(some).items()
    }
    ordered = sorted(apart, key=lambda own: (bool(own.reason), _size(apart[own]), own))
    titles = _titles(ordered)
    return [Group(own, _name(own), titles[own], apart[own]) for own in ordered]


def _size(labelled: Mapping[str, list[Record]]) -> tuple[int, int]:
    """Return how many rows have a rank, and how many runs there are, in descending order."""
    ranked = sum(len(own) >= LEAST_SEEDS for own in labelled.values())
    return -ranked, -sum(map(len, labelled.values()))


def _by_teacher(records: list[Record]) -> dict[str, list[Record]]:
    """Return the records by the scores of their teacher, those of most of them under no name."""
    means = {own.data["id"]: _of_teacher(own) for own in records}
    clusters: list[list[str]] = []
    for name in sorted(means, key=lambda name: (*means[name].values(), name)):
        alike = [own for own in clusters if _alike(means[own[0]], means[name])]
        if alike:
            alike[0].append(name)
        else:
            clusters.append([name])
    most = max(clusters, key=len)
    told = {
        name: "" if own is most else _told(means[own[0]], means[most[0]])
        for own in clusters
        for name in own
    }
    found: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda own: own.data["id"]):
        found[told[record.data["id"]]].append(record)
    return found


def _of_teacher(record: Record) -> dict[str, float]:
    """Return every sum of the teacher's row per token: its NLL first, by which they are sorted."""
    sums = record.data["sums"]
    (row,) = [row["sums"] for row in sums["rows"] if row["subject"] == TEACHER]
    names = sorted(row, key=lambda name: (name != NLL.at(1), name))
    return {name: float(sum(row[name]) / sum(sums["tokens"])) for name in names}


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one[name] - other[name]) < _APART for name in one.keys() & other.keys())


def _told(means: Mapping[str, float], usual: Mapping[str, float]) -> str:
    """Return as text the NLL, the Brier-1, and whatever else is not as usual."""
    names = [n for n in means if n in (NLL.at(1), BRIER1.key) or means[n] != usual.get(n)]
    return ", ".join(f"{name} {means[name]:.3f}" for name in names)


def public(name: str) -> str:
    """Return a name as the leaderboard shows it: of a path on somebody's machine the last part."""
    plain = one_line(name)
    return plain.rstrip("/").rpartition("/")[2] if plain.startswith(("/", "~")) else plain


def _backbone(own: Mapping[str, Any]) -> str:
    """Return a backbone's name; of a quantised one what it is."""
    source = own.get("source")
    return public(source["title"] if source else own["name"])


def _name(own: Setting) -> str:
    """Return a name for files, which does not depend on what other settings there are."""
    block = f"{own.regime}-{own.block}" if own.block else own.regime
    backbone = own.backbone.rstrip("/").rpartition("/")[2]
    parts = [backbone, block, f"{own.matched}-{own.diffusion_tokens}"]
    parts += ["unmatched"] if own.reason else []
    return f"{safe('-'.join(parts))}-{_digest(asdict(own))}"


def _titles(settings: list[Setting]) -> dict[Setting, str]:
    """Return a title for each setting, with what tells it from others of the same."""
    alike: dict[str, list[Setting]] = defaultdict(list)
    for own in settings:
        alike[own.title].append(own)
    titles = {}
    for title, some in alike.items():
        told = [asdict(own) for own in some]
        apart = [key for key in told[0] if len({own[key] for own in told}) > 1]
        for own, values in zip(some, told, strict=True):
            said = [
                f"{_TELLING[key]} {_short(values[key])[:_BRIEF]}"
                for key in apart
                if key in _TELLING and values[key] != ""
            ]
            said += ["outside its budget"] if "within" in apart and not own.within else []
            titles[own] = ", ".join([title, *said])
    return titles


def _labelled(records: list[Record]) -> dict[str, list[Record]]:
    """Return the records by interface and what its runs differ in, the reference first."""
    by_interface: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=_first_come):
        by_interface[record.data["interface"]["name"]].append(record)
    found: dict[str, list[Record]] = defaultdict(list)
    for name in sorted(by_interface, key=lambda name: (name != "hidden", name)):
        for label, record in sorted(_labels(name, by_interface[name]), key=_order):
            found[label].append(record)
    return dict(found)


def _first_come(record: Record) -> tuple[datetime, str]:
    """When a record was made, as it says itself: what else is there of its kind comes after."""
    return datetime.fromisoformat(record.data["created"]), record.data["id"]


def _order(item: tuple[str, Record]) -> tuple[int, int, str, int, str]:
    """From the first block upwards, whatever the blocks' numbers look like as text."""
    label, record = item
    data = record.data
    return data["interface"]["from"], data["layer"], label, data["config"]["seed"], data["id"]


def _labels(name: str, records: list[Record]) -> list[tuple[str, Record]]:
    traits = [_traits(record) for record in records]
    keys = sorted({key for own in traits for key in own})
    telling = [key for key in keys if len({repr(own.get(key)) for own in traits}) > 1]
    rows: dict[str, str] = {}  # what tells a row from others -> its label
    taken: set[tuple[str, Any]] = set()
    found = []
    for record, own in zip(records, traits, strict=True):
        usual = default_values(own)
        what = {key: own[key] for key in telling if key in own and own[key] != usual.get(key)}
        place = f"{name} {_span(record)}"
        row = json.dumps([place, what], sort_keys=True)
        label = ", ".join([place, *_named(what)])
        if row not in rows:
            rows[row] = f"{label} #{_digest(what)}" if label in rows.values() else label
        label, seed = rows[row], record.data["config"]["seed"]
        drawn = _drawn(record)
        if (label, seed) in taken or (label, drawn) in taken:  # no further training of that row
            label += f" #{record.data['id'].rpartition('-')[2]}"
        taken |= {(label, seed), (label, drawn)}
        found.append((label, record))
    return found


def _named(what: Mapping[str, Any]) -> list[str]:
    """Return settings as a label names them: not more than a reader takes in."""
    named = [f"{_short(key)}={_short(value)}" for key, value in list(what.items())[:_MOST]]
    more = len(what) - _MOST
    return [*named, f"{more:,} more settings #{_digest(what)}"] if more > 0 else named


def _span(record: Record) -> str:
    """Return the blocks that a run replaces, as everything writes them: (a, b]."""
    return f"({record.data['interface']['from']}, {record.data['layer']}]"


def _traits(record: Record) -> dict[str, Any]:
    """Return what tells a run from others of its interface and blocks: settings, its code."""
    data = record.data
    config = with_new_names(_flat(data["config"]))
    own = {key: value for key, value in config.items() if key not in _SHARED}
    sums = [[row[k] for k in _ROW] + sorted(row["sums"]) for row in data["sums"]["rows"]]
    subject = data["interface"]["name"]
    return {
        **own,
        # wherever they lay
        "include": [Path(path).name for path in data["config"].get("include", ())],
        "code": data["interface"]["origin"],
        "version": data["environment"]["versions"]["dihal-bench"],
        "sums": _digest([row for row in sums if row[0] == subject]),
    }


def _drawn(record: Record) -> str:
    """Return a digest of what came of the interface's noise, or of the record if none has a part.

    Two trainings of one row do not come out the same: the second is a copy.
    """
    drawn = [
        [list(values) for _, values in sorted(row["sums"].items())]
        for row in record.data["sums"]["rows"]
        if row["chains"] > 1
    ]
    return _digest(drawn) if drawn else str(record.data["id"])


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
    text = one_line("+".join(map(str, value)) if isinstance(value, list) else value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
