"""The wheel, installed in a fresh environment, works outside the repository and has all the files it needs."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from dse import __version__

ROOT = Path(__file__).parents[2]
SHIPPED = {"dse": "dse", "search": "search", "arch_specs": "dse/_data/arch_specs", "workloads": "dse/_data/workloads"}
"""Folders of the source tree, and where the wheel has them."""

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]

TINY = """
version: 1
name: tiny
input: [1, 2, 4, 4]
layers:
- {name: only, kind: conv, instance: {N: 1, G: 1, C: 2, M: 2, P: 2, Q: 2, R: 1, S: 1}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without network by the build back end of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT],
        check=True,
        cwd=folder,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of programs of a new virtual environment with the wheel; dependencies are those of this environment.

    They are on the path without their own .pth files, so that an editable installation of the repository is not.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [*PIP, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    dependencies = dict.fromkeys(p for p in [sysconfig.get_path("purelib"), *sys.path] if p.endswith("-packages"))
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder / "bin"


def called(environment: Path, folder: Path, program: str, *arguments: str) -> str:
    """Standard output of a program of the environment, run in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ENOS", "NUMBA"))}
    own = {"ENOS_STORE": str(folder / "store.sqlite"), "NUMBA_DISABLE_JIT": "1"}  # a tiny layer needs no compiled loops
    process = subprocess.run(
        [environment / program, *arguments], cwd=folder, env=kept | own, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        f"{there}/{path.relative_to(ROOT / here)}"
        for here, there in SHIPPED.items()
        for path in (ROOT / here).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - names == set()
    assert {"dse/py.typed", "search/py.typed", "dse/page/page.html", "search/data/digits.npz"} <= names
    assert {name.split("/")[0] for name in names} == {"dse", "search", f"enos_dse-{__version__}.dist-info"}


def test_the_description_has_no_links_that_lead_nowhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    description = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Figure: Accuracy against energy" in description
    assert "](" not in description.replace("](https://", "")


def test_it_is_the_installed_package_that_runs(environment: Path, tmp_path: Path) -> None:
    script = "import dse, search; print(dse.__file__, search.__file__)"
    for path in called(environment, tmp_path, "python", "-c", script).split():
        assert Path(path).is_relative_to(environment.parent)


def test_the_program_says_its_version(environment: Path, tmp_path: Path) -> None:
    assert called(environment, tmp_path, "enos", "--version").split()[-1] == __version__


def test_a_workload_is_mapped_on_the_shipped_architecture_and_shown(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    called(environment, tmp_path, "enos", "map", "tiny.yaml", "--output", "table.csv")
    lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert sum(not line.startswith("#") for line in lines) == 10  # a head and nine candidates
    called(environment, tmp_path, "enos", "report", "table.csv")
    (page,) = tmp_path.glob("*.html")
    assert "<script" in page.read_text(encoding="utf-8")


def test_shipped_workloads_networks_and_digits_are_read(environment: Path, tmp_path: Path) -> None:
    script = (
        "from dse import read_workload; from dse.workload.layers import find_workload; "
        "from dse.workload.networks import load_network; from search.data.datasets import digits; "
        "print(len(read_workload(find_workload('squeezenet_cifar')).layers), load_network('squeezenet').name, "
        "len(digits().train))"
    )
    assert called(environment, tmp_path, "python", "-c", script).split() == ["26", "squeezenet_cifar", "898"]


def test_a_shipped_mixture_is_sampled(environment: Path, tmp_path: Path) -> None:
    assert "64 samples of two_modes" in called(environment, tmp_path, "enos", "sample", "two_modes", "--samples", "64")


def test_type_checkers_see_the_types(environment: Path, tmp_path: Path) -> None:
    lines = [
        "from typing import assert_type",
        "from dse import read_workload",
        "assert_type(read_workload('a').name, str)",
    ]
    (tmp_path / "user.py").write_text("\n".join(lines) + "\n")
    python = environment / "python"
    called(environment, tmp_path, "python", "-m", "mypy", "--python-executable", str(python), "user.py")
