"""Templates of Timeloop's front end: YAML files with Jinja2, which include others and look for them on a path.

Rendered with the library itself, in its sandbox: a template computes text and reads files, and nothing else. What it
may call is what the front end offers: `include`, `include_all`, `include_text`, `add_to_path`, `cwd`, `find_path`,
`find_paths`, `path_exists`. Source of their meaning: ``accelergy/utils/yaml.py`` of Accelergy 6911d15.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.core.documents import JINJA, MAX_YAML, parse_yaml, read_text
from dse.core.errors import InputError
from dse.core.fields import shown

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

MAX_INCLUDES = 2000
"""Files that a template includes, those of included files counted too."""

MAX_DEPTH = 20
"""Files that include one another."""

MAX_ROUNDS = 100_000
"""Values of all `range` of a template together."""


def read_template(path: Path | str, data: Mapping[str, Any] | None = None) -> Any:
    """The document in a YAML file, which may be a Jinja2 template with includes, and may merge mappings by ``<<<``.

    Args:
        data: values of names that the template uses: ``{"architecture": "eyeriss_like"}``.

    Raises:
        InputError: the template or a file that it includes cannot be read, with the name and the line of the file; a
            name without a value; a file that is found nowhere; an element of an included document that it lacks.

    Example:
        >>> _ = Path("sizes.yaml").write_text("sizes: {pes: 12}")
        >>> _ = Path("top.yaml").write_text("columns: {{ n }}\\nsizes: {{ include('sizes.yaml', 'sizes') }}")
        >>> read_template("top.yaml", {"n": 14})
        {'columns': 14, 'sizes': {'pes': 12}}
    """
    budget = _Budget()
    document = _Reading(dict(data or {}), budget).document(Path(path), [])
    if not budget.functions or not isinstance(document, dict):
        return document
    settings = {**(document.get("globals") or {}), "expression_custom_functions": list(budget.functions)}
    return {**document, "globals": settings}


@dataclass
class _Budget:
    """What a template and all files that it includes may still do."""

    files: int = 0
    rounds: int = 0
    functions: dict[str, None] = field(default_factory=dict)
    """Programs that any of the files names in `globals.expression_custom_functions`, as whole paths."""

    def range(self, *bounds: int) -> range:
        values = range(*bounds)
        self.rounds += len(values)
        if self.rounds > MAX_ROUNDS:
            raise ValueError(f"more than {MAX_ROUNDS:,} values of range")
        return values


@dataclass
class _Reading:
    """Reads files with the same data; `within` are the files around the present one."""

    data: dict[str, Any]
    budget: _Budget
    within: tuple[Path, ...] = ()

    def document(self, path: Path, folders: Sequence[Path]) -> Any:
        places = list(folders)
        text, included = self.text(path, places)
        document = parse_yaml(text, path, included)
        for name in _functions(document):
            # Only here the folders are known in which the file is looked for.
            beside = [path.resolve().parent, *places]
            found = next((str(folder / name) for folder in beside if (folder / name).is_file()), name)
            self.budget.functions[found] = None
        return document

    def text(self, path: Path, folders: list[Path]) -> tuple[str, dict[str, Any]]:
        """A file's text, rendered, and the documents that it includes, by the names that stand for them."""
        if len(self.within) > MAX_DEPTH:
            raise InputError(
                path, f"is included by {MAX_DEPTH} files within one another", "no file that includes itself"
            )
        self.budget.files += 1
        if self.budget.files > MAX_INCLUDES:
            raise InputError(self.within[0] if self.within else path, f"includes more than {MAX_INCLUDES:,} files")
        text = read_text(path)
        if not JINJA.search(text):
            return text, {}
        file = _File(_Reading(self.data, self.budget, (*self.within, path)), path, folders)
        return file.render(text), file.included


@dataclass
class _File:
    """One template, and the functions it may call."""

    reading: _Reading
    path: Path
    folders: list[Path]
    included: dict[str, Any] = field(default_factory=dict)

    def render(self, text: str) -> str:
        import jinja2  # most specifications are no templates

        environment = _environment(self.path.parent)
        environment.globals.update(
            cwd=lambda: str(self.path.resolve().parent),
            include=lambda name, element="": self._include([self._one(name)], element, single=True),
            include_all=lambda name, element="": self._include(self._all(name), element, single=False),
            include_text=self._include_text,
            find_path=lambda name: str(self._one(name)),
            find_paths=lambda name: [str(found) for found in self._all(name)],
            path_exists=lambda name: next(self._found(name), None) is not None,
            add_to_path=self._add_to_path,
            range=self.reading.budget.range,
        )
        try:
            pieces, length = [], 0
            for piece in environment.from_string(text).generate(self.reading.data):
                length += len(piece)
                if length > MAX_YAML:
                    raise InputError(self.path, f"renders to more than {MAX_YAML:,} characters")
                pieces.append(piece)
            return "".join(pieces)
        except jinja2.TemplateSyntaxError as e:
            raise InputError(
                f"{self.path}: line {e.lineno}", f"not readable as a Jinja2 template: {e.message}"
            ) from None
        except jinja2.UndefinedError as e:
            hint = "give its value with --jinja NAME=VALUE"
            raise InputError(f"{self.path}: line {_line(e)}", f"{e.message}", hint=hint) from None
        except InputError:
            raise
        except RecursionError:
            raise InputError(self.path, "not readable as a Jinja2 template: nested too deeply") from None
        except Exception as e:  # whatever a template's own expressions raise
            text = " ".join(str(e).split()) or type(e).__name__
            raise InputError(f"{self.path}: line {_line(e)}", f"the template fails: {text}") from None

    def _found(self, name: Any) -> Iterator[Path]:
        """The files of this name or pattern: beside the file first, then in the folders of `add_to_path`."""
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(self.path, f"found {shown(name)}", "the name of a file")
        beside = [self.path.resolve().parent, *self.folders]
        for folder in [Path()] if Path(name).is_absolute() else beside:
            yield from (Path(found) for found in sorted(glob.glob(str(folder / name))))  # noqa: PTH207 - a pattern may be absolute

    def _all(self, name: Any) -> list[Path]:
        found = list(dict.fromkeys(path.resolve() for one in self._names(name) for path in self._found(one)))
        if not found:
            places = [str(self.path.resolve().parent), *map(str, self.folders)]
            raise InputError(self.path, f"includes {shown(name)}, which is in none of its folders", places)
        return found

    def _names(self, name: Any) -> list[Any]:
        return list(name) if isinstance(name, (list, tuple)) else [name]

    def _one(self, name: Any) -> Path:
        return self._all(name)[0]

    def _include(self, paths: list[Path], element: Any, single: bool) -> str:
        """The tag that stands for the element (``architecture.nodes``) of the documents."""
        key = f"{re.sub(r'[^A-Za-z0-9]', '', self.path.stem)}_{len(self.included)}"
        found = [_element(self.reading.document(path, self.folders), element, path) for path in paths]
        self.included[key] = found[0] if single or len(found) == 1 else found
        return f"!include_loaded {key}"

    def _include_text(self, name: Any) -> str:
        texts = []
        for path in self._all(name):
            text, included = self.reading.text(path, list(self.folders))
            renamed = {key: f"{key}_{len(self.included) + i}" for i, key in enumerate(included)}
            for key, new in renamed.items():
                text = re.sub(rf"(!include_loaded ){key}\b", rf"\g<1>{new}", text)
            self.included.update((renamed[key], document) for key, document in included.items())
            texts.append(text)
        return "\n".join(texts)

    def _add_to_path(self, name: Any) -> str:
        self.folders += [path for path in self._all(name) if path not in self.folders]
        return ""


def _functions(document: Any) -> list[str]:
    """The programs that a document's `globals` name; none where they are not a list of names."""
    settings = document.get("globals") if isinstance(document, dict) else None
    files = settings.get("expression_custom_functions") if isinstance(settings, dict) else None
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def _environment(folder: Path) -> SandboxedEnvironment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Environment(SandboxedEnvironment):
        """As the sandbox, without operations whose result can be huge."""

        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            small = all(isinstance(x, (int, float)) and abs(x) <= 1e9 for x in (left, right))
            if not small or (operator == "**" and abs(right) > 64):
                raise ValueError(f"{operator} of {shown(left)} and {shown(right)} is not computed")
            return super().call_binop(context, operator, left, right)

    return Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined)


def _element(document: Any, element: Any, path: Path) -> Any:
    """What is at ``a.b`` of a document."""
    for key in [key for key in str(element).split(".") if key]:
        if not isinstance(document, dict) or key not in document:
            keys = [k for k in document if isinstance(k, str)] if isinstance(document, dict) else None
            raise InputError(path, f"has no {element!r}, which another file includes", keys)
        document = document[key]
    return document


def _line(error: BaseException) -> int | str:
    """The line of the template at which an expression failed."""
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
