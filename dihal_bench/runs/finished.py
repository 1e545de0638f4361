"""A finished run, ready to be asked for more: its interfaces with their trained weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.config.identity import digest_of_file, version_3_digest
from dihal_bench.config.resolve import included, kept
from dihal_bench.config.schema import keys_of
from dihal_bench.core.errors import UserError
from dihal_bench.core.kept import sha256
from dihal_bench.core.registry import INTERFACES, is_included
from dihal_bench.results.record import Record
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.fresh import prover
from dihal_bench.training.checkpoint import weights_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.evaluation.rescoring import Prover
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.runs.inputs import Inputs


class FinishedRun:
    """What lies in a run's folder.

    Attributes:
        folder: of the run.
        kept: the configuration as it was given.
        config: the same with the layer that was chosen, the device that is used, and the places
            where backbone and text lie by now.
        record: of the run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str | None = None,
        backbone: str | None = None,
        corpus: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Read the folder; backbone, text and weights are loaded when they are asked for.

        Args:
            folder: of a complete run.
            device: another one than it was trained on.
            backbone: where it lies by now, if not where the run was given it.
            corpus: the same of the text.
            say: takes one-line messages for a person.

        Raises:
            UserError: the folder holds no complete run, or not one of this version, or the code
                that the run includes is not to be found.
        """
        self.folder = folder
        if not (folder / "record.json").exists():
            raise UserError(
                f"{folder} holds no complete run (there is no record.json); give the folder that "
                "dihal-bench run named, or finish that run first."
            )
        self.record = Record.read(folder / "record.json")
        self.kept = self._configuration()
        config = replace(
            self.kept,
            device=device or self.kept.device,
            backbone=backbone or self.kept.backbone,
            corpus=corpus or self.kept.corpus,
        )
        if not INTERFACES.get(config.interface).bears_tokens:
            config = replace(config, layer=str(self.record.data["layer"]))
        self.config = config
        self._job = RunContext(self.config, folder, say)

    @property
    def inputs(self) -> Inputs:
        """Backbone and text."""
        return self._job.inputs

    def check(self) -> None:
        """Make sure that the backbone is the one that the run was trained on.

        Raises:
            UserError: what goes by its name now is another one.
        """
        known = self.record.data["backbone"]["fingerprint"]
        if self.inputs.backbone.info.fingerprint != known:
            raise UserError(
                f"{self.folder}: the backbone {self.config.backbone} is not the one that the run "
                "was trained on; put that one back, or name its place with --backbone."
            )

    def check_text(self) -> None:
        """Make sure that the text is the one that the run was trained and scored on.

        Raises:
            UserError: what goes by its name, or lies at its place, now is another one.
        """
        if self.inputs.corpus.fingerprint != self.record.data["corpus"]["fingerprint"]:
            raise UserError(
                f"{self.folder}: the corpus {self.config.corpus} is not the one that the run was "
                "trained on; put that one back, or name its place with --corpus."
            )

    @property
    def name(self) -> str:
        """The benchmarked interface."""
        return self.config.interface

    @property
    def names(self) -> list[str]:
        """The interface and its controls."""
        return [self.name, *self.record.data["interface"]["controls"]]

    @cached_property
    def interfaces(self) -> dict[str, Interface]:
        """All of them, with their weights."""
        return {name: self.interface(name) for name in self.names}

    def interface(self, name: str) -> Interface:
        """Return one of them.

        Raises:
            UserError: it has no part in the run, or its weights do not fit it.
        """
        if name not in self.names:
            raise UserError(
                f"{self.folder}: {name} has no part in this run; choose one of "
                f"{', '.join(self.names)}."
            )
        self.check()
        return self._job.weights(name, self.record)

    def prover(self, names: Sequence[str]) -> Prover:
        """Return what a fresh process needs to score some of them anew."""
        files = {name: weights_file(self.folder, name) for name in names}
        return prover(self._job, {name: sha256(path) for name, path in files.items()})

    def _configuration(self) -> RunConfig:
        data = self.record.data
        self._check_code(included(keys_of(data["config"])))
        return kept(data["config"])

    def _check_code(self, paths: Sequence[str]) -> None:
        """Make sure that included files are here, and have the content that they had in the run.

        They are run, so the folder must not bring them: it may have been downloaded. What somebody
        has included in this process already may lie anywhere.

        Raises:
            UserError: a file is not here, lies in the folder, or has other content.
        """
        for path in map(Path, paths):
            if not path.is_file():
                raise UserError(
                    f"{self.folder} needs the code in {path}, which is not here; start the command "
                    "where it lies, or copy it here."
                )
            brought = path.resolve().is_relative_to(self.folder.resolve())
            if brought and not is_included(path):
                raise UserError(
                    f"{self.folder} brings the code in {path}, which is not run from there; read "
                    "it, and start the command in another folder, into which you copy it."
                )
        files = [Path(path).resolve() for path in paths]
        if files and not self._has_code(files):
            raise UserError(
                f"{self.folder}: the code in {', '.join(map(str, files))} is not that of the run; "
                "put that back, as it was."
            )

    def _has_code(self, files: Sequence[Path]) -> bool:
        """Whether included files are those that the record was made with."""
        data = self.record.data
        digests = data.get("code")
        if digests is None:  # of version 3, which had the digest of everything alone
            digest = version_3_digest(keys_of(data["config"]), files)
            return bool(digest == data["run"].rpartition("-")[2])
        return {digest_of_file(file) for file in files} <= {*digests.values()}
