"""What a table's numbers rest on, in words: the model, its text, the budget, what is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import counted
from dihal_bench.leaderboard.site.numbers import number

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARCHITECTURES = {"llama": "Llama", "gpt2": "GPT-2", "gpt_neox": "GPT-NeoX"}
_UNITS = ((1e9, "B"), (1e6, "M"))
SIZES = ("architecture", "blocks", "parameters", "vocabulary", "training_tokens")


def about(table: Mapping[str, Any]) -> str:
    """Return what model a table is of, on how much text, and what its budget and scores are of.

    Args:
        table: of a board; what its facts lack is left out.
    """
    facts = table["facts"]
    sentences = [_model(facts), _budget(facts), _scored(table)]
    return " ".join(f"{one}." for one in sentences if one)


def _model(facts: Mapping[str, Any]) -> str:
    architecture = facts.get("architecture")
    parameters, vocabulary = _count(facts, "parameters"), _count(facts, "vocabulary")
    size = [
        str(_ARCHITECTURES.get(str(architecture), architecture)) if architecture else "",
        counted(_count(facts, "blocks"), "block") if _count(facts, "blocks") else "",
        f"{_short(parameters)} parameters" if parameters else "",
        f"a vocabulary of {number(vocabulary)}" if vocabulary else "",
    ]
    parts = [f"The model {facts.get('backbone')}: {', '.join(filter(None, size))}"]
    tokens = _count(facts, "training_tokens")
    parts += [f"interfaces are trained on {number(tokens)} tokens of text"] if tokens else []
    return "; ".join(parts) if any(size) else ""


def _budget(facts: Mapping[str, Any]) -> str:
    spent = {
        "diffusion": _count(facts, "diffusion_tokens"),
        "recovery": _count(facts, "recovery_tokens"),
    }
    said = [
        f"{number(tokens)} tokens of {phase} training" for phase, tokens in spent.items() if tokens
    ]
    return f"The budget {facts.get('budget')}: {', '.join(said)}" if said else ""


def _scored(table: Mapping[str, Any]) -> str:
    facts = table["facts"]
    tokens, documents = _count(facts, "tokens"), _count(facts, "documents")
    if table.get("kind") != "likelihood" or not tokens or not documents:
        return ""
    return f"Scored are {number(tokens)} tokens of {counted(documents, 'document')}"


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if type(value) is int else 0


def _short(count: int) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return number(count)
