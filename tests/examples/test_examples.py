"""Every shipped configuration loads, and says what its comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpx.config.load import load_snapshot

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "docs" / "mcpx.schema.json"

# Every configuration in the repository, with the variables that it reads.
ENVIRONMENT = {
    "examples/claude-desktop/mcpx.yaml": ["MCPX_TOKEN_CLAUDE"],
    "examples/demo/mcpx.yaml": [],
    "examples/filesystem/mcpx.yaml": [],
    "examples/minimal/mcpx.yaml": [],
    "examples/production/mcpx.yaml": [
        "MCPX_TOKEN_SUPPORT",
        "MCPX_TOKEN_BUILD",
        "MCPX_TOKEN_PROMETHEUS",
        "MCPX_SESSIONS_KEY",
    ],
    "deploy/compose/mcpx.yaml": ["MCPX_AUTH_TOKEN"],
    "deploy/container/mcpx.yaml": ["MCPX_AUTH_TOKEN"],
}


def environ_of(name):
    return {
        variable: f"a-value-for-tests-of-{variable.lower()}-{'0' * 16}".replace("_", "-")
        for variable in ENVIRONMENT[name]
    }


def load(name, environ=None):
    return load_snapshot(
        (ROOT / name).read_bytes(),
        filename=name,
        environ=environ_of(name) if environ is None else environ,
        generation=1,
    )


def decide(snapshot, server, tool, arguments=None, client=""):
    from mcpx.core.policy import Kind

    policy = snapshot.routes[server].policy_for(client)
    return policy.decide("tools/call", Kind.TOOL, tool, arguments).allowed


def test_every_shipped_configuration_is_tested_here():
    shipped = {
        str(path.relative_to(ROOT))
        for folder in ("examples", "deploy")
        for path in (ROOT / folder).rglob("*.yaml")
    }
    assert shipped == set(ENVIRONMENT)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_it_loads_without_a_warning(name):
    assert load(name).warnings == ()


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_its_first_line_names_the_schema_for_editors(name):
    first = (ROOT / name).read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert ((ROOT / name).parent / first.split("=", 1)[1]).resolve() == SCHEMA


@pytest.mark.parametrize("name", [name for name, variables in ENVIRONMENT.items() if variables])
def test_it_does_not_load_without_its_variables_and_names_them_all(name):
    from mcpx.errors import ConfigError

    with pytest.raises(ConfigError) as refused:
        load(name, environ={})
    for variable in ENVIRONMENT[name]:
        assert any(variable in problem for problem in refused.value.problems)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_who_listens_beyond_this_machine_asks_for_a_credential(name):
    snapshot = load(name)
    if not snapshot.config.listen.startswith("127.0.0.1:"):
        assert snapshot.authenticator is not None


def test_the_demo_lets_all_but_the_dangerous_tool_through():
    snapshot = load("examples/demo/mcpx.yaml")
    assert snapshot.config.listen == "127.0.0.1:8080"
    assert decide(snapshot, "demo", "echo")
    assert decide(snapshot, "demo", "read_file")
    assert not decide(snapshot, "demo", "dangerous_delete")


@pytest.mark.parametrize(
    ("tool", "arguments", "allowed"),
    [
        ("read_text_file", b'{"path":"/srv/projects/a/b.txt"}', True),
        ("read_text_file", b'{"path":"/srv/shared/../projects/b"}', True),
        ("read_text_file", b'{"path":"/srv/projects/../../etc/passwd"}', False),
        ("read_text_file", b'{"path":"/srv/projects-of-others/b"}', False),
        ("read_text_file", b"{}", False),
        ("read_multiple_files", b'{"paths":["/srv/shared/a","/srv/projects/b"]}', True),
        ("read_multiple_files", b'{"paths":["/srv/shared/a","/etc/passwd"]}', False),
        ("write_file", b'{"path":"/srv/projects/notes.md","content":"x"}', True),
        ("write_file", b'{"path":"/srv/projects/run.sh","content":"x"}', False),
        ("write_file", b'{"path":"/srv/shared/notes.md","content":"x"}', False),
        ("move_file", b'{"source":"/srv/projects/a","destination":"/srv/projects/b"}', False),
    ],
)
def test_the_filesystem_example_fences_paths_in(tool, arguments, allowed):
    snapshot = load("examples/filesystem/mcpx.yaml")
    assert decide(snapshot, "files", tool, arguments) is allowed


@pytest.mark.parametrize(
    ("client", "server", "tool", "arguments", "allowed"),
    [
        ("support-agent", "tickets", "get_ticket", b'{"id":"OPS-17"}', True),
        ("support-agent", "tickets", "get_ticket", b'{"id":"OPS-17; DROP"}', False),
        ("support-agent", "tickets", "close_ticket", b"{}", False),
        ("support-agent", "tickets", "add_comment", b'{"visibility":"internal"}', True),
        ("support-agent", "tickets", "add_comment", b'{"visibility":"public"}', False),
        ("support-agent", "deploys", "status", b"{}", False),
        ("build-agent", "deploys", "status", b"{}", True),
        ("build-agent", "deploys", "roll_out_production", b"{}", False),
        ("build-agent", "tickets", "get_ticket", b'{"id":"OPS-17"}', False),
        ("prometheus", "deploys", "status", b"{}", False),
    ],
)
def test_the_production_example_gives_each_client_its_own(client, server, tool, arguments, allowed):
    snapshot = load("examples/production/mcpx.yaml")
    assert decide(snapshot, server, tool, arguments, client) is allowed


def test_the_production_example_lets_its_monitor_send_no_message_at_all():
    snapshot = load("examples/production/mcpx.yaml")
    for route in snapshot.routes.values():
        for method in ("initialize", "ping", "tools/list", "resources/list"):
            assert not route.policy_for("prometheus").decide(method, None, None, None).allowed
