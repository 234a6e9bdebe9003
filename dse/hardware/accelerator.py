"""An accelerator: its computing modes, each with a specification and the candidates that run there.

Most accelerators have one mode, which is their Timeloop v4 specification. A file of modes names several
(`arch_specs/hybrid.yaml`): each layer of a network runs on one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core.documents import read_yaml
from dse.core.errors import InputError, unknown
from dse.core.expressions import evaluate
from dse.core.schema import CONFIG, UNIQUE, Expression, Name, Text, validated
from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import find_operators, load_candidates
from dse.hardware.instance import Estimate, Instance, find_arch, instance_for, library_for, read_arch
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import Problem

CandidatesLike = Sequence[Candidate] | Path | str | None
"""Candidates, an operators file or the name of a shipped one; None for those that the accelerator has by default."""


_LABEL = re.compile(r"[A-Za-z0-9_-]+")


@validated_dataclass(frozen=True, config=CONFIG)
class ModeEntry:
    """A computing mode of a file of modes."""

    arch: Text
    """Timeloop v4 specification: a file, relative to this one, or the name of a shipped one."""
    operators: Text
    """The operators that run there: an operators file, relative to this one, or the name of a shipped one."""
    candidates: Annotated[tuple[Text, ...], UNIQUE] = ()
    """Those of the operators file that exist, such as MF8; default: all."""
    variables: dict[Name, Expression] = Field(default_factory=dict)
    """Variables of the specification that have another value."""
    tables: tuple[Text, ...] = ()
    """Files of component tables, relative to this one, that answer before the shipped ones."""


@validated_dataclass(frozen=True, config=CONFIG)
class ModesFile:
    """A file of modes as it stands there. Candidates of the first mode keep their names, others end in @MODE."""

    modes: Annotated[dict[Name, ModeEntry], Len(1)]


@dataclass(frozen=True)
class Mode:
    """A computing mode: where layers run, and the candidates that can be chosen there.

    `name` is the `mode` of its candidates, "" for the first mode of an accelerator; `label` is its name in the file.
    """

    name: str
    label: str
    arch: SpecFile
    candidates: tuple[Candidate, ...]
    operators: Path | str | None = None
    chosen: tuple[str, ...] | None = None

    def with_arch(self, arch: SpecFile) -> Mode:
        """The mode on another specification; its candidates are read again, because they may name its variables.

        Raises:
            InputError: a value that an operator cannot have.
        """
        candidates = self.candidates
        if self.chosen is not None:
            found = {c.name: c for c in load_candidates(self.operators, variables_of(arch), self.name)}
            candidates = tuple(found[name] for name in self.chosen)
        return replace(self, arch=arch, candidates=candidates)

    def instances(
        self, problem: Problem, estimate: Estimate | None = None, only: Iterable[Candidate] | None = None
    ) -> list[Instance]:
        """The specification for each candidate, at the dimensions of a layer; arguments as of `instance_for`."""
        library = library_for(self.arch)
        chosen = self.candidates if only is None else only
        return [instance_for(self.arch, candidate, problem, library, estimate) for candidate in chosen]


@dataclass(frozen=True)
class Accelerator:
    """The computing modes of an accelerator, in the order of its file; one of a plain specification."""

    where: str
    modes: tuple[Mode, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, mode by mode.

        Example:
            >>> [c.name for c in read_accelerator("hybrid").candidates][:10]
            ['T8', 'T4', 'T2', 'MF8', 'MF4', 'MF2', 'BC8', 'BC4', 'BC2', 'T8@cim']
        """
        return tuple(candidate for mode in self.modes for candidate in mode.candidates)

    @property
    def document(self) -> Any:
        """All that decides costs, as JSON data: the specification, or one for each mode."""
        first = self.modes[0]
        if not first.label:
            return first.arch.document
        return {mode.label: {**mode.arch.document, "variables": dict(mode.arch.variables)} for mode in self.modes}

    def mode_of(self, candidate: Candidate) -> Mode:
        """The mode that a candidate runs in.

        Raises:
            InputError: the accelerator has no such mode.
        """
        found = next((mode for mode in self.modes if mode.name == candidate.mode), None)
        if found is None:
            labels = [mode.label or "digital" for mode in self.modes]
            raise unknown(self.where, f"computing mode of {candidate.name}", candidate.mode, labels)
        return found

    def instances(self, problem: Problem, estimate: Estimate | None = None) -> list[Instance]:
        """The specification for every candidate, mode by mode; arguments as of `instance_for`."""
        return [instance for mode in self.modes for instance in mode.instances(problem, estimate)]

    def only(self, names: Sequence[str], where: str = "candidate") -> Accelerator:
        """With these candidates only, in the accelerator's order; with all if there are no names.

        Raises:
            InputError: at `where`, for a name that none has.

        Example:
            >>> [c.name for c in read_accelerator("hybrid").only(["BC4@cim", "T8"]).candidates]
            ['T8', 'BC4@cim']
        """
        known = [candidate.name for candidate in self.candidates]
        for name in names:
            if name not in known:
                raise unknown(where, "candidate", name, known)
        if not names:
            return self
        kept = []
        for mode in self.modes:
            of_mode = tuple(candidate for candidate in mode.candidates if candidate.name in names)
            chosen = None if mode.chosen is None else tuple(candidate.name for candidate in of_mode)
            if of_mode:
                kept.append(replace(mode, candidates=of_mode, chosen=chosen))
        return replace(self, modes=tuple(kept))

    def changed(self, change: Callable[[SpecFile], SpecFile]) -> Accelerator:
        """The accelerator with every mode's specification changed.

        Raises:
            InputError: a value that an operator cannot have.
        """
        return replace(self, modes=tuple(mode.with_arch(change(mode.arch)) for mode in self.modes))


AcceleratorLike = Accelerator | SpecFile | Path | str | None
"""An accelerator, a specification, the file of either, the name of a shipped one; None for the default."""


def read_accelerator(arch: AcceleratorLike = None, candidates: CandidatesLike = None) -> Accelerator:
    """The accelerator that a specification or a file of modes describes, with the candidates that run on it.

    Args:
        arch: it, or its file; None takes the shipped specification.
        candidates: candidates, or an operators file; None takes the shipped operators. A file of modes names its own.

    Raises:
        InputError: a file that cannot be read, or is of no form that is known; operators beside a file of modes.

    Example:
        >>> [mode.label for mode in read_accelerator("hybrid").modes]
        ['digital', 'cim']
    """
    if isinstance(arch, Accelerator):
        return _with(arch, candidates)
    if isinstance(arch, SpecFile):
        return _plain(arch, candidates)
    path = find_arch(arch)
    if is_modes_file(path):
        return _with(_read_modes(path), candidates)
    return _plain(SpecFile.read(path), candidates)


def with_tables(
    arch: AcceleratorLike, tables: Iterable[Path | str] = (), *, compute_leakage: bool = False
) -> AcceleratorLike:
    """An accelerator with tables of components that are given beside it; arguments as of `read_arch`.

    Raises:
        InputError: also where a computing mode names tables itself.

    Example:
        >>> _ = Path("ART.yaml").write_text("ART: {version: 0.4, tables: [{name: glb_psum, area: 5000}]}")
        >>> [mode.arch.library.areas_of for mode in read_accelerator(with_tables("hybrid", ["ART.yaml"])).modes]
        [mappingproxy({'glb_psum': 5000.0}), mappingproxy({'glb_psum': 5000.0})]
    """
    files = tuple(tables)
    if not files and not compute_leakage:
        return arch
    if not (isinstance(arch, Accelerator) or (not isinstance(arch, SpecFile) and is_modes_file(find_arch(arch)))):
        return read_arch(arch, files, compute_leakage=compute_leakage)
    accelerator = read_accelerator(arch)
    for mode in accelerator.modes:
        if mode.arch.tables is not None:
            where = f"{accelerator.where}: modes.{mode.label}"
            raise InputError(where, "has its own tables, beside those that are given", hint="name them all there")
    return accelerator.changed(lambda specification: read_arch(specification, files, compute_leakage=compute_leakage))


def is_modes_file(path: Path | str) -> bool:
    """Whether a file names computing modes; its reader says what else is wrong with it.

    Example:
        >>> is_modes_file(find_arch("hybrid")), is_modes_file(find_arch("cim_macros"))
        (True, False)
    """
    try:
        document = read_yaml(path)
    except InputError:
        return False
    return isinstance(document, dict) and "modes" in document and "architecture" not in document


def variables_of(arch: SpecFile) -> dict[str, Any]:
    """The variables of a specification, as numbers and text where they are expressions.

    Example:
        >>> variables_of(read_arch("cim_macros"))["cycles_per_conversion"]
        6
    """
    scope = arch.scope()
    return {name: evaluate(arch.variables[name], scope, f"{arch.where}: variables.{name}") for name in arch.variables}


def _plain(arch: SpecFile, candidates: CandidatesLike) -> Accelerator:
    """An accelerator of one mode."""
    if candidates is None or isinstance(candidates, (str, Path)):
        found = load_candidates(candidates, variables_of(arch))
        mode = Mode("", "", arch, found, candidates, tuple(c.name for c in found))
    else:
        mode = Mode("", "", arch, tuple(candidates))
    return Accelerator(str(arch.where), (mode,))


def _with(accelerator: Accelerator, candidates: CandidatesLike) -> Accelerator:
    """An accelerator with some of its candidates, by themselves."""
    if candidates is None:
        return accelerator
    if isinstance(candidates, (str, Path)):
        raise InputError(accelerator.where, f"has its operators, beside {candidates}",
                         hint="name the operators file in the modes")  # fmt: skip
    return accelerator.only([candidate.name for candidate in candidates])


def _read_modes(path: Path) -> Accelerator:
    file = validated(ModesFile, read_yaml(path), path)
    modes: list[Mode] = []
    for label, entry in file.modes.items():
        where = f"{path}: modes.{label}"
        if not _LABEL.fullmatch(label):
            raise InputError(f"{path}: modes", f"found {label!r}", "names of letters, digits, _ and -")
        name = label if modes else ""
        arch = SpecFile.read(_found(path, entry.arch, f"{where}.arch"))
        if entry.variables:
            arch = _with_variables(arch, entry.variables, f"{where}.variables")
        if entry.tables:
            from dse.hardware.energy.table_files import read_table_files

            arch = arch.with_tables(read_table_files(_beside(path, table) for table in entry.tables))
        operators = find_operators(_beside(path, entry.operators), f"{where}.operators")
        declared = load_candidates(operators, variables_of(arch), name)
        names = {candidate.name.partition("@")[0]: candidate.name for candidate in declared}
        for candidate in entry.candidates:
            if candidate not in names:
                raise unknown(f"{where}.candidates", "candidate", candidate, names)
        wanted = [names[candidate] for candidate in entry.candidates] or list(names.values())
        chosen = tuple(candidate for candidate in declared if candidate.name in wanted)
        modes.append(Mode(name, label, arch, chosen, operators, tuple(c.name for c in chosen)))
    _check_clocks(modes, path)
    return Accelerator(str(path), tuple(modes))


def _beside(path: Path, name: str) -> Path | str:
    """A file relative to the file of modes, or the name of a shipped one."""
    beside = path.parent / name
    return beside if beside.exists() or "/" in name or Path(name).suffix else name


def _found(path: Path, name: str, where: str) -> Path:
    try:
        return find_arch(_beside(path, name))
    except InputError as e:
        raise e.at(where) from None


def _with_variables(arch: SpecFile, variables: Mapping[str, Any], where: str) -> SpecFile:
    for name in variables:
        if name not in arch.variables:
            raise unknown(where, f"variable of {arch.where}", name, sorted(map(str, arch.variables)))
    return SpecFile({**arch.document, "variables": {**arch.variables, **variables}}, arch.where)


def _check_clocks(modes: Sequence[Mode], path: Path) -> None:
    """A table counts the cycles of all modes in one unit.

    Raises:
        InputError: naming two modes of different clocks.
    """
    first = modes[0]
    for mode in modes[1:]:
        clocks = [evaluate(m.arch.variables.get("global_cycle_seconds"), m.arch.variables, path) for m in (first, mode)]
        if clocks[0] != clocks[1]:
            problem = f"{first.label} has a cycle of {clocks[0]} s, {mode.label} of {clocks[1]} s"
            raise InputError(f"{path}: modes", problem, "one global_cycle_seconds",
                             "give the slower mode more `cycles` in its operators file")  # fmt: skip


def shipped_accelerators() -> list[str]:
    """The names of shipped specifications and files of modes.

    Example:
        >>> shipped_accelerators()
        ['cim_macros', 'eyeriss_168', 'hybrid', 'hybrid_published']
    """
    from dse.hardware.candidates import shipped_operators

    return [path.stem for path in sorted(data_dir("arch_specs").glob("*.yaml")) if path.stem not in shipped_operators()]
