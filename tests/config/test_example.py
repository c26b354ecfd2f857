"""The example in the reference."""

from __future__ import annotations

import re

import msgspec

from mcpx.config.example import EXAMPLE
from mcpx.config.load import load_snapshot

VARIABLES = {name: f"a-value-of-sufficient-length-{name.lower()}".replace("_", "-")
             for name in re.findall(r"\$\{([A-Z_]+)\}", EXAMPLE)}  # fmt: skip


def example():
    return load_snapshot(EXAMPLE, filename="example", environ=VARIABLES, generation=1)


def test_the_example_loads_without_a_warning():
    assert example().warnings == ()


def test_the_example_asks_for_a_credential_and_uses_what_it_explains():
    snapshot = example()
    assert snapshot.authenticator is not None
    assert set(snapshot.routes) == {"files", "database"}
    assert "ci" in snapshot.routes["database"].client_policies


def test_the_example_shows_most_sections():
    shown = [name for name in msgspec.structs.asdict(example().config) if f"\n{name}:" in EXAMPLE]
    assert len(shown) >= 12
