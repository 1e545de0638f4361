"""Scores of weights that were scored before on the same text: read again, not computed again.

Runs of a comparison share trained phases, and with them their scores. What is kept lies beside the
phases, under a digest of all that it depends on: the weights themselves, the text, this code's
version.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.config.identity import interface_identity
from dihal_bench.core import distributed, kept
from dihal_bench.core.files import short_hash
from dihal_bench.evaluation.document_sums import read_sums, write_sums
from dihal_bench.evaluation.likelihood import VERSION, Row, ScoredBatch, Totals, score
from dihal_bench.evaluation.prefixes import tested
from dihal_bench.evaluation.rescoring import Rescored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.data.tokens import Text, Windows
    from dihal_bench.evaluation.rescoring import Prover
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


@dataclass(frozen=True, kw_only=True)
class ScoreCache:
    """What rows are scored on.

    Attributes:
        data: the evaluation text.
        backbone: the teacher.
        windows: indices of the windows.
        batch: windows per pass.
        block: tokens per block in the sequence regime.
        folder: where scores are kept; None: nowhere.
    """

    data: Text
    backbone: Backbone
    windows: Sequence[int]
    batch: int
    block: int = 0
    folder: Path | None = None

    def on(self, windows: Sequence[int]) -> ScoreCache:
        """Return the same on other windows."""
        return replace(self, windows=windows)

    def batch_of(self, index: int) -> Windows:
        """Return the windows of a pass."""
        return self.data.batch(self.windows[index * self.batch : (index + 1) * self.batch])

    def score(
        self,
        rows: Sequence[Row],
        interfaces: Mapping[str, Interface],
        prover: Prover | None = None,
    ) -> dict[Row, Totals]:
        """Return the sums of every row, computed together where they are not kept.

        Args:
            rows: of the score table.
            interfaces: by the names that rows use.
            prover: proves of what is computed that no future is in it, before anything is kept.

        Raises:
            UserError: a row's logits are not finite, or it did not pass.
        """
        of = interfaces.get
        files = {row: self._file("scores", asdict(row), of(row.subject)) for row in rows}
        proofs = {
            row: file.with_name(file.name.replace("scores", "rescored")).with_suffix(".json")
            for row, file in files.items()
            if file and prover and tested(row)
        }

        def usable(row: Row, file: Path) -> bool:
            return kept.usable(file) and (row not in proofs or kept.usable(proofs[row]))

        known = distributed.on_main(lambda: [r for r, f in files.items() if f and usable(r, f)])
        missing = [row for row in rows if row not in known]
        found: dict[Row, Totals] = {}
        proven: dict[Row, Rescored] = {}
        if missing:
            single: list[ScoredBatch] = []
            found = score(
                missing,
                interfaces,
                self.data,
                self.backbone,
                windows=self.windows,
                batch=self.batch,
                block=self.block,
                single=single if prover else None,
            )
            proven = prover.prove(single, interfaces, self) if prover else {}
        for row, file in files.items():
            if file is None:
                continue
            if row in found:
                write_sums(file, {row: found[row]})
            else:
                found |= read_sums(file)
        for row, path in proofs.items():
            if row in proven:
                kept.write_json(path, proven[row].to_dict())
            else:
                plain = distributed.on_main(partial(kept.read_json, path))
                proven[row] = Rescored.from_dict(plain)
        if prover:
            prover.results.update(proven)
        return {row: found[row] for row in rows}

    def facts(
        self, name: str, interface: Interface, compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what ``compute`` measures of an interface: plain values, kept under a name."""
        return self.facts_of(name, {"": interface}, lambda missing: {"": compute()})[""]

    def facts_of(
        self,
        name: str,
        interfaces: Mapping[str, Interface],
        compute: Callable[[Mapping[str, Interface]], Mapping[str, dict[str, Any]]],
    ) -> dict[str, dict[str, Any]]:
        """Return what is measured of every interface, computed together where it is not kept.

        Args:
            name: of what is measured.
            interfaces: by their names.
            compute: takes those of which nothing is kept; returns plain values by their names.
        """
        files = {key: self._file(name, {}, own) for key, own in interfaces.items()}
        paths = {key: file.with_suffix(".json") for key, file in files.items() if file}
        known = distributed.on_main(lambda: [key for key, p in paths.items() if kept.usable(p)])
        missing = {key: own for key, own in interfaces.items() if key not in known}
        found = dict(compute(missing)) if missing else {}
        for key, path in paths.items():
            if key in found:
                kept.write_json(path, found[key])
            found[key] = distributed.on_main(partial(kept.read_json, path))
        return {key: found[key] for key in interfaces}

    def _file(self, name: str, what: dict[str, Any], interface: Interface | None) -> Path | None:
        if self.folder is None:
            return None
        depends = {
            "what": what,
            "interface": fingerprint(interface) if interface is not None else None,
            "backbone": self.backbone.info.fingerprint,
            "dtype": str(self.backbone.model.dtype),
            "text": [self.data.fingerprint, self.data.window],
            "windows": list(self.windows),
            "batch": self.batch,
            "block": self.block,
            "version": VERSION,
        }
        return self.folder / f"{name}-{short_hash(depends)}.safetensors"


def fingerprint(interface: Interface) -> str:
    """Return a digest of an interface: its code, its settings, its weights."""
    own = {**interface_identity(interface), "span": asdict(interface.span)}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name, tensor in sorted(interface.state_dict().items()):
        plain = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
        digest.update(name.encode())
        digest.update(plain.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
