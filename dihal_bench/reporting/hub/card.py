"""The model card of a trained bridge, as the Hugging Face hub reads it: metadata, then Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import short_hash, write_text
from dihal_bench.core.markdown import block, escaped, one_line
from dihal_bench.reporting.hub import scores
from dihal_bench.reporting.hub.scores import hub_dataset, hub_model, without_paths
from dihal_bench.reporting.writers import text
from dihal_bench.results.record import Record, validate
from dihal_bench.results.table import Table, numbers, words

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD = "README.md"
_MARK = "<!-- dihal-bench card"  # begins the last line, which holds a digest of what is above


def card_of(record: Record, *, local_backbone: bool = False) -> str:
    """Return the text of a run's model card; the same record gives the same text.

    Absolute paths are cut to their last part.

    Args:
        record: of a complete run.
        local_backbone: the backbone is a folder, although its name is spelled like a hub id.

    Raises:
        UserError: the record is not valid, a likelihood in it has no passed leak gate, or it lacks
            what every run writes.
    """
    from huggingface_hub import ModelCardData

    validate(record.as_written, "the record")
    try:
        public = Record(without_paths(record.data))
        model = None if local_backbone else hub_model(record.data)
        dataset = hub_dataset(record.data)
        source = record.data["backbone"].get("source", {})
        metadata = ModelCardData(
            model_name=one_line(public.data["run"]),
            library_name="dihal-bench",
            base_model=model,
            base_model_relation="adapter" if model else None,
            datasets=[dataset] if dataset else None,
            license=source["licence"] if source.get("notice") else None,
            tags=["dihal-bench", *map(one_line, _tags(public))],
            eval_results=scores.eval_results(public),
        )
        sections = _sections(public, model)
    except KeyError as error:
        raise UserError(
            f"the record of {one_line(record.data['run'])} lacks {error}; a card is made of a "
            "record that dihal-bench run wrote."
        ) from error
    card = f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n\n"
    return card + _mark(card)


def _mark(text: str) -> str:
    return f"{_MARK} {short_hash(text)} -->\n"


def write_card(run: Path, out: Path | None = None) -> Path:
    """Write a run's model card; return its path.

    Args:
        run: folder of a complete run.
        out: the file; by default README.md in the run's folder.

    Raises:
        UserError: there is no complete run, its record makes no card, something else lies where it
            goes, or the file cannot be written.
    """
    path, card = out or run / CARD, card_of_run(run)
    if (path.exists() or path.is_symlink()) and not _is_card(path):
        raise UserError(
            f"{path} was not written by this command, or has been edited since; move it away, and "
            "write the card again."
        )
    write_text(path, card)
    return path


def _is_card(path: Path) -> bool:
    """Whether a file is a card as it was written here, of whatever record."""
    try:
        content = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    text, mark, _ = content.rpartition(_MARK)
    return not path.is_symlink() and bool(mark) and content == text + _mark(text)


def card_of_run(run: Path) -> str:
    """Return the model card of the run in a folder; a backbone that lies here is no hub's.

    Raises:
        UserError: there is no complete run, or its record makes no card.
    """
    record = record_of_run(run)
    return card_of(record, local_backbone=is_here(record.data["backbone"].get("name", "")))


def record_of_run(run: Path) -> Record:
    """Read the record of the run in a folder.

    Raises:
        UserError: there is no complete run.
    """
    path = run / "record.json"
    if not path.is_file():
        raise UserError(
            f"{run} holds no complete run (there is no record.json); give the folder that "
            "dihal-bench run named, or finish that run first."
        )
    return Record.read(path)


def is_here(name: str) -> bool:
    """Return whether a name is that of a file or folder of this machine."""
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, RuntimeError):  # too long a name, no such home
        return False


def _tags(record: Record) -> list[str]:
    data = record.data
    sampled = any(score.kind == "ensemble" for score in record.own_scores)
    return [*(["diffusion"] if sampled else []), data["interface"]["name"], data["regime"]]


def _sections(record: Record, model: str | None) -> list[str]:
    data = record.data
    return [
        f"# {escaped(data['interface']['name'])} at layer {data['layer']} of "
        f"{escaped(data['backbone']['name'])}",
        _what(data, model),
        "## Load it",
        *_loading(data),
        "## Scores",
        *scores.tables(record),
        "## What diffusion gains",
        scores.gains(record),
        "## What was spent",
        *_spent(data),
        "## Leak gate",
        *_gates(data),
        "## Limits",
        _limits(data),
        "## Reproduce it",
        *_origin(data),
    ]


def _what(data: Mapping[str, Any], model: str | None) -> str:
    own, backbone = data["interface"], data["backbone"]
    cost = data["costs"][own["name"]]
    where = f"on the hub as {escaped(model)}" if model else "not named by a hub id"
    name, denoiser = escaped(own["name"]), escaped(data["config"]["denoiser"]["name"])
    return (
        f"The interface {name} ({escaped(data['regime'])} regime, denoiser {denoiser}) stands in "
        f"for {own['replaced']} of the {backbone['blocks']} blocks of "
        f"{escaped(backbone['name'])}, those above layer {own['from']} up to layer "
        f"{data['layer']}; whatever the backbone has above stays as it is, frozen. The backbone is "
        f"a {escaped(backbone['architecture'])} of {backbone['parameters']:,} parameters, {where}, "
        f"with the fingerprint {escaped(backbone['fingerprint'])}. The bridge has "
        f"{cost['trunk_parameters']:,} trunk, {cost['recovery_parameters']:,} recovery and "
        f"{cost['other_parameters']:,} other parameters; at S={cost['steps']} network evaluations "
        f"a token costs {cost['ratio']:.2f} times the FLOPs of the replaced blocks."
    )


def _loading(data: Mapping[str, Any]) -> list[str]:
    name = one_line(data["interface"]["name"])
    code = (
        "from pathlib import Path\n\n"
        "from dihal_bench.runs.finished import FinishedRun\n"
        "from huggingface_hub import snapshot_download\n\n"
        'run = FinishedRun(Path(snapshot_download("OWNER/NAME", local_dir="bridge")))\n'
        f"bridge = run.interface({name!r})"
    )
    commands = (
        "hf download OWNER/NAME --local-dir bridge\n"
        'dihal-bench generate bridge --prompt "The function returns"'
    )
    included = [escaped(Path(path).name) for path in data["config"]["include"]]
    own_code = (
        f"It needs the code in {', '.join(included)}, which is not here: get it from whom you "
        "trust, for it is run, and start the commands where it lies. Its content is compared."
    )
    return [
        "OWNER/NAME is this repository. It is a run's folder without what training alone needs.",
        block(code, "python"),
        block(commands, "bash"),
        *([own_code] if included else []),
        "The backbone is looked for by the name in the record; where yours is elsewhere, name the "
        "place with `--backbone`. Its fingerprint is compared.",
    ]


def _spent(data: Mapping[str, Any]) -> list[str]:
    budget, spent = data["budget"], data["spent"]
    table = Table.of(
        [(name, phase, own) for name in spent for phase, own in spent[name].items()],
        (words("row"), lambda row: row[0]),
        (words("phase"), lambda row: row[1]),
        (numbers("tokens", type="tokens"), lambda row: row[2]["tokens"]),
        (numbers("steps", type="integer"), lambda row: row[2]["steps"]),
        (numbers("FLOPs", type="flops"), lambda row: row[2]["flops"]),
        (numbers("seconds", type="integer"), lambda row: row[2]["seconds"]),
        (numbers("trained parameters", type="tokens"), lambda row: row[2]["trainable_parameters"]),
    )
    within = "within it" if budget["within"] else "OUTSIDE it: not for matched tables"
    said = f"Budget {escaped(budget['name'])}, matched by {escaped(budget['matched'])}; {within}."
    return [f"{said} Rows that are not named were fitted in closed form.", text(table, "github")]


_ANEW = ((max, "disagreement"), (min, "places"))


def _gates(data: Mapping[str, Any]) -> list[str]:
    change = numbers("largest change before the changed token", type="significant", digits=2)
    table = Table.of(
        data["gates"]["leak"].items(),
        (words("row"), lambda gate: gate[0]),
        (words("verdict"), lambda gate: gate[1]["verdict"]),
        (change, lambda gate: gate[1]["future"]),
        (numbers("tolerance", type="significant", digits=2), lambda gate: gate[1]["tolerance"]),
        (words("dtype"), lambda gate: gate[1]["dtype"]),
    )
    said = ["Tokens were changed in turn; no logit before the changed one may move."]
    said.append(text(table, "github"))
    anew = [row for gate in data["gates"]["leak"].values() for row in gate.get("rescored", ())]
    if anew:
        far, places = (f(row[key] for row in anew) for f, key in _ANEW)
        said.append(
            "The scores were computed again by a process that knew only the text before each of "
            f"{places} places: the largest difference is {far:.2g} nats."
        )
    return said


def _limits(data: Mapping[str, Any]) -> str:
    corpus, config = data["corpus"], data["config"]
    limits = [
        "It is no model by itself: the weights are those of the bridge and its controls, and they "
        "need the backbone named above.",
        "A likelihood is the law of the row's own generator: that of ensemble(K) is the mean of K "
        "parallel chains, a normalised model, not the marginal of the diffusion.",
        f"It was trained on text of {escaped(corpus['name'])} (fingerprint "
        f"{escaped(corpus['fingerprint'])}, {corpus['train_tokens']:,} tokens for training) and "
        "scored on the texts that the tables name; of other text nothing is known.",
        f"It is one training with seed {config['seed']}: the intervals are over documents or "
        "samples, not over trainings.",
        "No licence is stated. Those of the backbone and of the corpus may bind it.",
        *_source_limits(data["backbone"].get("source")),
    ]
    return "\n".join(f"- {limit}" for limit in limits)


def _source_limits(source: Mapping[str, Any] | None) -> list[str]:
    """Say what a backbone was unpacked from, and under what terms that is."""
    if source is None:
        return []
    licence = escaped(source["licence"] or "not stated")
    limits = [f"The backbone is {escaped(source['title'])}; its licence: {licence}."]
    notice = source["notice"]
    return (
        [*limits, f"{escaped(notice)}. What was trained here is subject to them."]
        if notice
        else limits
    )


def _origin(data: Mapping[str, Any]) -> list[str]:
    from dihal_bench.config.command_line import alone

    environment = data["environment"]
    commit, processor = environment["git"] or "unknown", environment.get("processor", "")
    device = environment["device"] + (f", {processor}" if processor else "")  # not in older records
    changed = " (+: with changes that are not committed)" if commit.endswith("+") else ""
    versions = Table.of(
        environment["versions"].items(),
        (words("package"), lambda one: one[0]),
        (words("version"), lambda one: one[1]),
    )
    made = one_line(data["command"])
    own = alone(made, data["config"])
    apart = ["It is one of several runs of that command. It alone:", block(own, "bash")]
    return [
        block(made, "bash"),
        *(apart if own else []),
        f"Record {escaped(data['id'])}, created {escaped(data['created'])}; commit "
        f"{escaped(commit)}{changed}; device {escaped(device)}.",
        text(versions, "github"),
    ]
