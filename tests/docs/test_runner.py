"""What runs the pages finds what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.arithmetic import shown_as, value
from tests.docs.blocks import anchors, blocks, links, table
from tests.docs.runner import PageError, Runner, compare, edit

PAGE = """# A page: `two` words

```python title="hello.py"
print("one 1\\ntwo 2\\nthree 3")
```

```sh
python hello.py | cat
```

```text
one 1
...
three    3
```

[link](other.md#there) ![image](image.png) [web](https://example.org)

| a | b |
|---|---|
| `x` | 1,000 |
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr("tests.docs.runner.ROOT", tmp_path)
    (tmp_path / "tools").mkdir()
    return Runner(tmp_path, tmp_path / "tools")


def written(runner: Runner, text: str) -> Path:
    path = runner.folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_page_that_is_right(runner: Runner) -> None:
    assert runner.page(written(runner, PAGE)) == 3


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("three    3", "three 4", "page.md:12: the commands before do not print this line here:\nthree 4"),
        ("one 1\n...\nthree    3", "three 3\none 1", "do not print this line here:\none 1"),
        ("hello.py |", "holla.py |", "page.md:8: exit code 2, not 0"),
        ("```sh", "```sh exit=2", "exit code 0, not 2"),
    ],
)
def test_a_page_that_is_wrong(runner: Runner, right: str, wrong: str, message: str) -> None:
    with pytest.raises(PageError) as raised:
        runner.page(written(runner, PAGE.replace(right, wrong)))
    assert message in str(raised.value)


def test_timeloop_commands_need_timeloop(runner: Runner) -> None:
    page = written(runner, "```sh timeloop\nfalse\n```\n```text timeloop\nnothing\n```\n")
    assert runner.page(page) == 0
    runner.timeloop = True
    with pytest.raises(PageError):
        runner.page(page)


def test_numbers_that_vary() -> None:
    compare("all T8  0  96.9%\n---- ---\n", "all T8 0 8.1%\n------  -----\n", "page", numbers_vary=True)
    for printed in ("all T4 0 8.1%", "all T8 8.1%"):
        with pytest.raises(PageError):
            compare("all T8 0 96.9%", printed, "page", numbers_vary=True)


def test_an_edit_needs_the_lines_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("a\nb\nc\n", encoding="utf-8")
    edit(file, " a\n-b\n+x\n+y\n", "page")
    assert file.read_text(encoding="utf-8") == "a\nx\ny\nc\n"
    with pytest.raises(PageError, match="0 times"):
        edit(file, "-b\n+x\n", "page")


def test_what_is_read_of_a_page() -> None:
    assert [(b.language, b.title, b.line) for b in blocks(PAGE)] == [
        ("python", "hello.py", 4), ("sh", None, 8), ("text", None, 12)
    ]  # fmt: skip
    assert links(PAGE) == ["other.md#there", "image.png"]
    assert anchors(PAGE) == {"a-page-two-words"}
    assert table(PAGE, "[link]") == [{"a": "x", "b": "1,000"}]
    assert value("16 x (1,000 - 2)^2 / ln(2)") == pytest.approx(16 * 998**2 / 0.6931471805599453)
    assert shown_as(0.26549, "0.265") and not shown_as(0.2656, "0.265")
    with pytest.raises(AssertionError, match="no arithmetic"):
        value("16 PEs")
