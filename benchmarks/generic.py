"""The mapper on architectures of other kinds, most of them hardly constrained: CPU seconds a search.

Maps eleven layers on each architecture of archs/, whose energies are in the .ert.yaml beside it. Every search runs in a
process that is ended after --timeout CPU seconds; loading and compiling the mapper are not counted. `--write FOLDER`
only writes the layers as problem files, for `enos mapper ARCH PROBLEM ERT`.

usage: python benchmarks/generic.py [--arch NAME]... [--layer NAME]... [--objective energy|edp|delay] [--timeout S]
       [--write FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from measure import GIB, own_peak_rss, print_head, print_row

from dse.core.errors import InputError
from dse.hardware.energy.ert import read_ert
from dse.hardware.instance import read_arch, spec_for
from dse.mapper import OBJECTIVES, search
from dse.workload.problem import conv_problem, problem_document

ARCHS = Path(__file__).with_name("archs")
TIMEOUT_S = 120.0


def _layer(g: int, c: int, m: int, p: int, r: int, stride: int = 1) -> dict[str, int]:
    strides = {"Hstride": stride, "Wstride": stride} if stride > 1 else {}
    return {"N": 1, "G": g, "C": c, "M": m, "P": p, "Q": p, "R": r, "S": r, **strides}


LAYERS = {
    "stem7x7_112": _layer(1, 3, 64, 112, 7, 2),
    "conv3x3_56": _layer(1, 64, 64, 56, 3),
    "conv3x3_28": _layer(1, 128, 128, 28, 3),
    "conv3x3_28_stride2": _layer(1, 64, 128, 28, 3, 2),
    "conv3x3_14": _layer(1, 256, 256, 14, 3),
    "conv3x3_7": _layer(1, 512, 512, 7, 3),
    "conv1x1_56": _layer(1, 256, 64, 56, 1),
    "conv1x1_7": _layer(1, 512, 2048, 7, 1),
    "depthwise_56": _layer(144, 1, 1, 56, 3),
    "depthwise_14": _layer(576, 1, 1, 14, 3),
    "fc": _layer(1, 4096, 1000, 1, 1),
}
WARM_UP = _layer(1, 2, 2, 2, 2)
_WARM_UP_S = 300.0  # CPU seconds that loading or compiling the mapper may take


@dataclass(frozen=True)
class Answer:
    """A search in numbers, or what went wrong instead."""

    cpu_s: float = 0.0
    optimal: bool = False
    pj_per_mac: float = 0.0
    problem: str = ""
    peak_rss: int = 0


def main() -> None:
    options = _options()
    if options.write is not None:
        options.write.mkdir(exist_ok=True)
        for name, layer in LAYERS.items():  # JSON is YAML
            (options.write / f"{name}.yaml").write_text(json.dumps(problem_document(layer)) + "\n", encoding="utf-8")
        return
    for arch in options.arch or _archs():
        print(f"\n{arch}:\n", flush=True)
        total, peak = _run(arch, options)
        print(f"\n{total:.2f} CPU s; peak memory {peak / GIB:.3f} GiB", flush=True)


def _run(arch: str, options: argparse.Namespace) -> tuple[float, int]:
    """Prints a row for each layer; CPU seconds of all searches that ended, and the most memory of one process."""
    total, peak = 0.0, 0
    worker: _Worker | None = None
    print_head(["layer", "CPU s", "pJ / MAC", "optimal"])
    for layer in options.layer or LAYERS:
        worker = worker or _Worker(arch, options.objective, options.timeout)
        answer = worker.search(layer)
        total, peak = total + answer.cpu_s, max(peak, answer.peak_rss)
        if answer.problem:
            print_row([layer, "", "", f"**{answer.problem}**"])
            worker.end()
            worker = None
        else:
            optimal = "yes" if answer.optimal else "**no**"
            print_row([layer, f"{answer.cpu_s:.2f}", f"{answer.pj_per_mac:.4f}", optimal])
    if worker:
        worker.end()
    return total, peak


def _archs() -> list[str]:
    return sorted(path.stem for path in ARCHS.glob("*.yaml") if not path.name.endswith(".ert.yaml"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", action="append", choices=_archs(), help="only this one; repeatable")
    parser.add_argument("--layer", action="append", choices=list(LAYERS), help="only this one; repeatable")
    parser.add_argument("--objective", choices=OBJECTIVES, default="energy")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="CPU seconds of a search")
    parser.add_argument("--write", type=Path, help="only write the layers as problem files, to this folder")
    return parser.parse_args()


class _Worker:
    """A process that searches on one architecture, layer by layer."""

    def __init__(self, arch: str, objective: str, timeout: float) -> None:
        self._timeout = timeout
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, arch, objective, timeout), daemon=True)
        self._process.start()
        theirs.close()
        self._unfit = self._answer().problem

    def search(self, layer: str) -> Answer:
        if self._unfit:
            return Answer(problem=self._unfit)
        self._pipe.send(layer)
        return self._answer()

    def _answer(self) -> Answer:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            if self._process.exitcode == -signal.SIGXCPU:
                return Answer(problem=f"over {self._timeout:g} s")
            return Answer(problem=f"process ended with {self._process.exitcode}")
        assert isinstance(answer, Answer)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, arch: str, objective: str, timeout: float) -> None:
    """Answers the warm-up, then one layer after the other, until it is killed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow(_WARM_UP_S)
    pipe.send(_search(arch, WARM_UP, objective))
    while True:
        layer = LAYERS[pipe.recv()]
        _allow(timeout)
        pipe.send(_search(arch, layer, objective))


def _allow(seconds: float) -> None:
    """Ends this process when it has run for so much longer; a signal's handler would wait for the compiled loops."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), resource.RLIM_INFINITY))


def _search(arch: str, layer: dict[str, int], objective: str) -> Answer:
    try:
        problem = conv_problem(layer)
        spec = spec_for(read_arch(ARCHS / f"{arch}.yaml"), problem)
        ert = read_ert(ARCHS / f"{arch}.ert.yaml")
        start = time.process_time()
        found = search(spec, problem, ert, objective, remainders=False)
        seconds = time.process_time() - start
    except (InputError, AssertionError) as e:
        return Answer(problem=f"{type(e).__name__}: {e}", peak_rss=own_peak_rss())
    if found.evaluation is None:
        return Answer(seconds, problem=f"no mapping: {found.reason}", peak_rss=own_peak_rss())
    energy = found.evaluation.energy_pj / problem.macs
    return Answer(seconds, found.optimal, energy, peak_rss=own_peak_rss())


if __name__ == "__main__":
    main()
