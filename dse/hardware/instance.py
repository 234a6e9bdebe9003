"""An accelerator specification as an instance for one candidate, with the energies of its components."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dse.core.documents import readable
from dse.core.errors import InputError, unknown
from dse.core.fields import shown
from dse.core.shipped import data_dir
from dse.hardware.attributes import BLOCK, DEPTH, MEMORY, WIDTH
from dse.hardware.candidate import WORDS, Candidate
from dse.hardware.candidates import shipped_operators
from dse.hardware.energy.area import Areas, areas_of
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.ert import Ert
from dse.hardware.energy.table_files import read_table_files
from dse.hardware.spec import Compute, Spec, Storage
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import Problem

DEFAULT_ARCH = "eyeriss_168.yaml"
_COUNTED = frozenset(MEMORY) - {*WIDTH, *DEPTH, *BLOCK, "entries", "sizeKB"}
"""Attributes of a memory that decide numbers of accesses and cycles, not the energy of an access."""

SET_BY_OPERATORS = "set_by_operators"
"""A variable of a specification that names others, which every operator must set."""

ArchLike = SpecFile | Path | str | None

Estimate = Callable[[Spec, ComponentLibrary, object, Iterable[tuple[str, float]]], Ert]
"""Energies of a specification's components: the parameters of `embedded_energies`, in their order."""


@dataclass(frozen=True)
class Instance:
    """The hardware for a candidate; `ert` has the energies of every level of `spec` and of one operation.

    Its leakage is that of the clock cycles that an operation of the array takes, `cycles`.
    """

    candidate: Candidate
    spec: Spec
    ert: Ert
    areas: Areas = field(default_factory=Areas)
    cycles: float = 1.0

    @property
    def uncounted_leakage_pj(self) -> float:
        """Leakage of a compute unit in pJ per cycle that is not charged, as in Timeloop."""
        return self.ert.compute_leakage(self.spec.compute.name) / self.cycles

    @property
    def e_op_pj(self) -> float:
        """Energy of one operation, E_OP of Eq. 2, in pJ."""
        return self.ert.compute(self.spec.compute.name)


def read_arch(arch: ArchLike = None, tables: Iterable[Path | str] = (), *, compute_leakage: bool = False) -> SpecFile:
    """The parsed specification: `arch` itself, or the content of the file that `find_arch` gives.

    Args:
        tables: files of component tables that answer before the shipped ones, see
            `dse.hardware.energy.table_files.read_table_files`.
        compute_leakage: leakage of compute units is charged, too, which Timeloop leaves out.

    Raises:
        InputError: a file that cannot be read, or is of no form that is known.

    Example:
        >>> Path(read_arch("eyeriss_168").where).name
        'eyeriss_168.yaml'
    """
    specification = arch if isinstance(arch, SpecFile) else SpecFile.read(find_arch(arch))
    paths = tuple(tables)
    if not paths and not compute_leakage:
        return specification
    files = read_table_files(paths, compute_leakage=compute_leakage)
    return specification.with_tables(files)


def find_arch(name: Path | str | None = None) -> Path:
    """The file of a specification given as a path or as the name of a shipped one; None takes `DEFAULT_ARCH`.

    Raises:
        InputError: neither a file nor a shipped name; it lists the shipped names.

    Example:
        >>> find_arch("eyeriss_168").name
        'eyeriss_168.yaml'
    """
    if name is None:
        return data_dir("arch_specs") / DEFAULT_ARCH
    operators = shipped_operators()
    files = sorted(data_dir("arch_specs").glob("*.yaml"))
    shipped = {file.stem: file for file in files if file.stem not in operators}
    path = shipped.get(str(name), Path(name))
    if path.suffix not in (".yaml", ".yml") and not readable(path, Path.exists):
        raise unknown("arch", "file or shipped architecture", str(name), [*shipped, "a path to a .yaml file"])
    return path  # its reader says what is wrong with it


def instance_for(
    arch: SpecFile,
    candidate: Candidate,
    problem: Problem,
    library: ComponentLibrary,
    estimate: Estimate | None = None,
) -> Instance:
    """The specification at the candidate's word widths, its compute unit replaced by the candidate's.

    Args:
        problem: the layer; it gives the names of dimensions and tensors, the length of its sums, and whether its inputs
            can be negative.
        library: see `library_for`.
        estimate: function that returns the energies, `Engine.energies`; None for the embedded estimator.

    Raises:
        InputError: a specification without the candidate's variables, a component without an energy.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.workload.problem import conv_problem
        >>> arch, problem = read_arch(), conv_problem({"C": 16, "M": 32})
        >>> instance = instance_for(arch, load_candidates()[0], problem, library_for(arch))
        >>> round(instance.e_op_pj, 4)  # of an 8-bit multiplication and a 20-bit addition
        1.1688
    """
    spec = candidate_spec(arch, candidate, problem)
    return with_energies(spec, candidate, problem, library, arch.where, estimate)


def candidate_spec(arch: SpecFile, candidate: Candidate, problem: Problem) -> Spec:
    """The specification at the candidate's word widths for a layer; InputError as `SpecFile.instance`.

    Bandwidths are those of a step of the array, which takes the clock cycles of the candidate's operation.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.workload.problem import conv_problem
        >>> spec = candidate_spec(read_arch(), load_candidates()[-1], conv_problem({"C": 16, "M": 32}))
        >>> spec.compute.component
        'binary_connect_mac'
    """
    candidate = candidate.at(problem.reduction, problem.signed)
    for name in candidate.variables:
        if name not in arch.variables:
            hint = (
                f"declare {', '.join(WORDS)} and use them as the datawidth of its memories: candidates "
                "set them; enos mapper maps a layer on a specification without them"
            )
            if name not in WORDS:
                hint = f"operator {candidate.operator} sets it; declare it, or take the specification of this operator"
            raise InputError(f"{arch.where}: variables", f"{name} is not declared", hint=hint)
    for name in str(arch.variables.get(SET_BY_OPERATORS, "")).replace(",", " ").split():
        if name not in candidate.variables:
            where = f"{arch.where}: variables.{name}"
            raise InputError(where, f"operator {candidate.operator} does not set it",
                             hint="take operators that are made for this specification (operators_cim)")  # fmt: skip
    spec = spec_for(arch, problem, candidate.variables)
    attributes = {**spec.compute.attributes, **dict(candidate.compute_attributes)}
    spec = spec.with_step(candidate.cycles_at(problem.signed))
    return spec.with_compute(Compute(spec.compute.name, candidate.compute_class, attributes, spec.compute.energy_scale))


def with_energies(
    spec: Spec,
    candidate: Candidate,
    problem: Problem,
    library: ComponentLibrary,
    where: object,
    estimate: Estimate | None = None,
) -> Instance:
    """The instance for a candidate's specification of a layer; `estimate` and errors as in `instance_for`.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.workload.problem import conv_problem
        >>> arch, candidate = read_arch(), load_candidates()[0]
        >>> problem = conv_problem({"C": 16, "M": 32})
        >>> spec = candidate_spec(arch, candidate, problem)
        >>> list(with_energies(spec, candidate, problem, library_for(arch), arch.where).ert.tables)
        ['dram_weights', 'dram_ofmap', 'dram_ifmap', 'glb_psum', 'glb_ifmap',
         'ifmap_spad', 'weights_spad', 'psum_spad', 'mac']
    """
    ert = (estimate or embedded_energies)(spec, library, where, candidate.compute_actions)
    cycles = candidate.cycles_at(problem.signed)
    return Instance(candidate, spec, ert.with_leakage_times(cycles), areas_of(spec, library, where), cycles)


def check_given(instances: Iterable[Instance], library: ComponentLibrary) -> None:
    """Refuses an ERT for several accelerators whose components differ: it has one energy of each.

    Raises:
        InputError: naming table, component, and the attribute with two of its values.

    Example:
        >>> check_given([], ComponentLibrary.shipped())  # no ERT is given
    """
    seen: dict[str, Mapping[str, object]] = {}
    for instance in instances:
        components: list[Storage | Compute] = [*instance.spec.storages, instance.spec.compute]
        for component in components:
            if component.name not in library.energies_of:
                continue
            own = {"class": component.component, **component.attributes}
            first = seen.setdefault(component.name, own)
            for name in (*first, *(key for key in own if key not in first)):
                if name not in _COUNTED and first.get(name) != own.get(name):
                    raise InputError(
                        f"{library.where}: {component.name}",
                        f"has one energy for accelerators that differ: {name} is {shown(first.get(name))} and "
                        f"{shown(own.get(name))}",
                        hint="map one candidate (--candidate) or point alone, or give tables of the class, not an ERT",
                    )


def spec_for(arch: SpecFile, problem: Problem, variables: Mapping[str, object] | None = None) -> Spec:
    """The specification for problems with this one's dimensions and tensors.

    Example:
        >>> from dse.workload.problem import conv_problem
        >>> widths = {"act_bits": 4, "weight_bits": 4, "psum_bits": 20}
        >>> spec = spec_for(read_arch(), conv_problem({"C": 16, "M": 32}), widths)
        >>> [storage.name for storage in spec.storages]
        ['dram_weights', 'dram_ofmap', 'dram_ifmap', 'glb_psum', 'glb_ifmap', 'ifmap_spad', 'weights_spad', 'psum_spad']
    """
    return arch.instance(variables, problem=problem)


def library_for(arch: SpecFile) -> ComponentLibrary:
    """The shipped component classes, and those of the specification.

    Example:
        >>> "typical_mac" in library_for(read_arch()).classes
        True
    """
    return arch.library


def embedded_energies(
    spec: Spec,
    library: ComponentLibrary,
    where: object,
    compute_actions: Iterable[tuple[str, float]] = (("compute", 1),),
) -> Ert:
    """Energies of a specification's components from an ERT that the library has, else from the embedded estimator.

    Args:
        where: the specification's file, for errors.
        compute_actions: how often each action of the compute unit happens in one operation.

    Raises:
        InputError: an unknown class or action, or a value outside the tables.

    Example:
        >>> from dse.workload.problem import conv_problem
        >>> arch, widths = read_arch(), {"act_bits": 8, "weight_bits": 8, "psum_bits": 20}
        >>> spec = spec_for(arch, conv_problem({"C": 16, "M": 32}), widths)
        >>> ert = embedded_energies(spec, library_for(arch), arch.where)
        >>> {action: round(energy, 3) for action, energy in ert.storage("weights_spad").items()}
        {'read': 0.789, 'write': 1.301, 'update': 1.301, 'leak': 0.0}
    """
    given = library.energies_of
    tables = {s.name: given[s.name] if s.name in given else _energies(s, library, where) for s in spec.storages}
    tables[spec.compute.name] = _operation(spec.compute, library, where, compute_actions)
    lacks = None if any(s.name in given for s in spec.storages) else functools.partial(_lacks, library, where)
    ert = Ert(tables, str(where), lacks)
    return ert.with_compute_leakage(spec) if library.compute_leakage else ert


def _energies(component: Storage | Compute, library: ComponentLibrary, where: object) -> dict[str, float]:
    """Energies of a component's class, times what its node scales them by."""
    found = library.energies(component.component, component.attributes, f"{where}: {component.name}")
    return {action: energy * component.energy_scale for action, energy in found.items()}


def _operation(
    compute: Compute, library: ComponentLibrary, where: object, compute_actions: Iterable[tuple[str, float]]
) -> dict[str, float]:
    """The energy of an operation, and the leakage of the unit in a cycle where it has some."""
    at, uses = f"{where}: {compute.name}", list(compute_actions)
    if compute.name in library.energies_of:
        actions: Mapping[str, float] = library.energies_of[compute.name]
        at = f"{library.where}: {compute.name}"
        if uses == [("compute", 1)]:  # Timeloop knows other names of it
            actions = {**actions, "compute": Ert(library.energies_of, library.where).compute(compute.name)}
    else:
        actions = _energies(compute, library, where)
    operation = 0.0
    for action, times in uses:
        if action not in actions:
            raise InputError(at, f"class {compute.component} has no action {action!r}", actions)
        operation += times * actions[action]
    leak = actions.get("leak", 0.0)
    return {"compute": operation, **({"leak": leak} if leak else {})}


def _lacks(library: ComponentLibrary, where: object, storage: Storage) -> str:
    """Why a memory has no energies; "" if it has them."""
    try:
        library.energies(storage.component, storage.attributes, f"{where}: {storage.name}")
    except InputError as e:
        return str(e)
    return ""
