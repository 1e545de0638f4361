"""``dihal-bench generate``: text from a trained run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.cli.common import JSON, place_flags, places
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.evaluation.samples.sampling import Drawing, Samples
    from dihal_bench.runs.finished import FinishedRun

_TEACHER = "teacher"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("generate", help="text from the interface of a finished run")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run")
    add("--interface", help="the run's own by default; one of its controls, or teacher")
    add("--prompt", action="append", help="text to continue (repeatable; default: none)")
    add("--prompts", type=Path, help="file with one prompt a line")
    add("--count", type=int, default=1, help="samples per prompt (default: 1)")
    add("--tokens", type=int, default=128, help="tokens to add, at most (default: 128)")
    add("--temperature", type=float, default=1.0, help="of the tokens (default: 1; 0: likeliest)")
    add("--top-p", type=float, default=1.0, help="nucleus (default: 1)")
    add("--steps", type=int, help="network evaluations per chain (default: the run's most)")
    add("--chains", type=int, default=1, help="chains whose mean is drawn from (default: 1)")
    add("--batch", type=int, default=32, help="samples at a time; none depends on it")
    add("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    place_flags(parser)
    add("--out", type=Path, help="write JSON lines to this file instead")
    add("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    texts = _prompts(arguments)
    from dihal_bench.evaluation.generation import Choice
    from dihal_bench.evaluation.samples.sampling import Drawing
    from dihal_bench.runs.finished import FinishedRun

    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed} must be 0 or more.")
    run = FinishedRun(arguments.run, say=say, **places(arguments))
    choice = Choice(temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed)
    drawing = Drawing(
        tokens=arguments.tokens,
        choice=choice,
        steps=run.config.score.steps[-1] if arguments.steps is None else arguments.steps,
        chains=arguments.chains,
        batch=arguments.batch,
    )
    samples = _draw(run, drawing, arguments.interface or run.name, texts)
    lines = [
        {"prompt": prompt, "text": text, "tokens": len(ids), **samples.about}
        for prompt, text, ids in zip(samples.prompts, samples.texts, samples.ids, strict=True)
    ]
    if arguments.out:
        from dihal_bench.core.files import atomic_path

        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with atomic_path(arguments.out) as path:
            path.write_text(content, encoding="utf-8")
        say(f"{len(lines)} samples: {arguments.out}")
    elif arguments.json:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False))
    else:
        print("\n---\n".join(p + t for p, t in zip(samples.prompts, samples.texts, strict=True)))
    return 0


def _draw(run: FinishedRun, drawing: Drawing, name: str, texts: list[str]) -> Samples:
    from dihal_bench.data.tokens import document_prefix

    run.check()
    backbone = run.inputs.backbone
    if name not in (_TEACHER, *run.names):
        raise UserError(
            f"--interface {name} has no part in this run; choose one of "
            f"{', '.join((*run.names, _TEACHER))}."
        )
    source = backbone if name == _TEACHER else run.interface(name)
    prefix = document_prefix(backbone.tokenizer)
    prompts = [prefix + backbone.tokenizer.encode(t, add_special_tokens=False) for t in texts]
    longest, window = max(map(len, prompts)) + drawing.tokens, run.config.text.window
    if longest > window and name != _TEACHER:
        say(f"{longest} tokens exceed the {window} that interfaces of this run were trained on")
    return drawing.draw(source, prompts)


def _prompts(arguments: argparse.Namespace) -> list[str]:
    """Return the prompts, each as often as it is to be continued; an empty one begins a text."""
    if arguments.count < 1:
        raise UserError(f"--count {arguments.count}: 0 samples make no text; give 1 or more.")
    texts: list[str] = list(arguments.prompt or [])
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:  # bytes that the terminal could not decode
        raise UserError("--prompt is not in UTF-8; write it in UTF-8.") from error
    if arguments.prompts:
        try:
            source = sys.stdin if str(arguments.prompts) == "-" else None
            content = source.read() if source else arguments.prompts.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--prompts {arguments.prompts}: {error}; give a text file in UTF-8."
            ) from error
        texts += [line for line in content.splitlines() if line.strip()]
        if not texts:
            raise UserError(f"--prompts {arguments.prompts}: there is no prompt in it.")
    return [text for text in texts or [""] for _ in range(arguments.count)]
