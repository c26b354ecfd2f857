"""The house keeps its own rules: a test beside each module, a head on each file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "mcpx").rglob("*.py"))
MODULES = [path for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]
LONG = 500
UNDONE = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_has_its_test(path):
    inside = path.relative_to(ROOT / "mcpx")
    test = ROOT / "tests" / inside.parent / f"test_{inside.name}"
    if inside.parent.name == "_speedups" and not test.is_file():
        # A face has nothing of its own: the tests of its twins are its tests.
        test = test.with_name(f"test_{inside.stem}_py.py")
    assert test.is_file(), f"{name(path)} has no {name(test)}"
    assert "def test_" in test.read_text()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_opens_with_what_it_is(path):
    head = ast.get_docstring(ast.parse(path.read_text()))
    assert head, f"{name(path)} has no docstring at its head"
    assert len(head) > 40


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_long_file_says_at_its_head_why_it_is_one(path):
    text = path.read_text()
    if len(text.splitlines()) > LONG:
        head = (ast.get_docstring(ast.parse(text)) or "").lower()
        said = ("long", "one file", "one place", "together", "500")
        assert any(word in head for word in said), f"{name(path)} does not say why it is long"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_left_to_be_done_later(path):
    text = path.read_text()
    assert [word for word in UNDONE if word in text] == []
