"""The text of a Liberty file as nested groups, without a meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dse.core.documents import read_text
from dse.core.errors import InputError

_TOKEN = re.compile(r'"((?:\\\n|[^"])*)"|([{}();:,\n])|((?:\\\r?\n|[ \t\r])+)|([^\s{}();:,"\\]+(?:\[[^\]]*\])?)')
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


@dataclass
class Group:
    """``kind (arguments) { attributes and groups }``."""

    kind: str
    arguments: tuple[str, ...]
    line: int
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def of(self, kind: str) -> list[Group]:
        """Its groups of a kind, in order."""
        return [group for group in self.groups if group.kind == kind]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of an attribute."""
        return self.attributes[name][0] if self.attributes.get(name) else default


def parse_liberty(text: str, where: str) -> Group:
    """The group ``library`` of a Liberty text.

    Raises:
        InputError: the text is not Liberty: `where` and the line.

    Example:
        >>> library = parse_liberty('library (l) { nom_voltage : 1.1; cell (INV) { area : 0.5; } }', "l.lib")
        >>> library.get("nom_voltage"), library.of("cell")[0].arguments
        ('1.1', ('INV',))
    """
    blank = _COMMENT.sub(lambda found: "\n" * found.group().count("\n"), text)
    parser = _Parser(list(_tokens(blank, where)), where)
    top = Group("", (), 0)
    parser.statements(top)
    libraries = top.of("library")
    if len(libraries) != 1:
        raise InputError(where, f"has {len(libraries)} groups 'library'", "a Liberty file with one")
    return libraries[0]


def read_liberty(path: Path) -> Group:
    """`parse_liberty` of a file, which may be compressed (.gz).

    Raises:
        InputError: the file cannot be read or is not Liberty.

    Example:
        >>> _ = Path("small.lib").write_text("library (small) { }")
        >>> read_liberty(Path("small.lib")).arguments
        ('small',)
    """
    if path.suffix == ".gz":
        import gzip

        try:
            return parse_liberty(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"), str(path))
        except (OSError, EOFError) as error:
            raise InputError(path, f"cannot be read: {error}") from error
    return parse_liberty(read_text(path), str(path))


def _tokens(text: str, where: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, line): kind is `"` for a string, `w` for a word, else the character itself."""
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise InputError(f"{where}: line {line}", f"found {text[at]!r}", "Liberty")
        string, mark, _, word = match.groups()
        if string is not None:
            yield '"', re.sub(r"\\\s*\n", " ", string), line
        elif mark is not None:
            yield mark, mark, line
        elif word is not None:
            yield "w", word, line
        line += match.group().count("\n")
        at = match.end()


class _Parser:
    def __init__(self, tokens: list[tuple[str, str, int]], where: str) -> None:
        self.tokens, self.where, self.at = tokens, where, 0

    def _next(self) -> tuple[str, str, int]:
        if self.at == len(self.tokens):
            raise InputError(self.where, "ends within a group", "a `}` for every `{`")
        self.at += 1
        return self.tokens[self.at - 1]

    def statements(self, group: Group) -> None:
        while self.at < len(self.tokens):
            kind, text, line = self._next()
            if kind in ";\n":
                continue
            if kind == "}" and group.kind:
                return
            if kind not in 'w"':
                raise InputError(f"{self.where}: line {line}", f"found {text!r}", "an attribute or a group")
            self._statement(group, text, line)
        if group.kind:
            raise InputError(f"{self.where}: line {group.line}", f"the group '{group.kind}' has no end", "`}`")

    def _statement(self, group: Group, name: str, line: int) -> None:
        kind, text, _ = self._next()
        if kind == ":":
            words = []
            while (token := self._next())[0] not in ";\n}":
                words.append(token[1])
            if token[0] == "}":
                self.at -= 1
            group.attributes[name] = (" ".join(words),)
            return
        if kind != "(":
            raise InputError(f"{self.where}: line {line}", f"found {text!r} after {name!r}", "`:` or `(`")
        arguments = []
        while (token := self._next())[0] != ")":
            if token[0] not in ",\n":
                arguments.append(token[1])
        start = self.at
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "\n":
            self.at += 1
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "{":
            self.at += 1
            child = Group(name, tuple(arguments), line)
            group.groups.append(child)
            self.statements(child)
        else:
            self.at = start
            group.attributes[name] = tuple(arguments)
