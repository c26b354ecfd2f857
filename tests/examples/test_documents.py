"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/running.md",
    "docs/deploy.md",
]


def test_every_test_that_the_security_table_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 30
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if "node_modules" not in path.parts:
            defined.update(
                re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
            )
    assert sorted(named - defined) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_links_to_exists(name):
    path = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)\)", path.read_text())
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_that_a_document_names_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / name).read_text()
    named = set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", text, re.MULTILINE))
    assert sorted(named - targets) == []


def test_every_metric_is_in_the_table_and_the_table_has_no_other():
    from mcpx.services import exposition, metrics

    source = Path(metrics.__file__).read_text() + Path(exposition.__file__).read_text()
    table = set(
        re.findall(r"^\| `(mcpx_\w+)` ", (ROOT / "docs/running.md").read_text(), re.MULTILINE)
    )
    families = set(re.findall(r'"(mcpx_[a-z_]+)"', source))
    assert {name.removesuffix("_total") for name in table} == families


def test_every_error_code_is_in_the_table_with_its_statuses():
    from mcpx import errors

    text = (ROOT / "docs/running.md").read_text()
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.GatewayError):
            row = re.search(rf"^\| `{kind.code}` \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)
            assert row is not None, kind.code
            assert str(kind.status) in row[1]
            assert str(kind.rpc_code) in row[2]


def test_every_outcome_of_an_error_is_in_the_table():
    from mcpx import errors

    text = (ROOT / "docs/running.md").read_text()
    outcomes = {
        kind.outcome
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.GatewayError)
    }
    told = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^(\| `[a-z_`, ]+) \|", text, re.MULTILINE)))
    )
    assert sorted(outcomes - told) == []
