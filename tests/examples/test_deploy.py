"""The files of deploy/ and the container's are well-formed and fit each other."""

from __future__ import annotations

import configparser
import json
import plistlib
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from examples.mock_mcp.server import MockServer

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "mcpx.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def unit():
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def instructions(name):
    joined = DOCKERFILE.replace("\\\n", " ")
    return [
        line.split(maxsplit=1)[1].strip()
        for line in joined.splitlines()
        if line.split(maxsplit=1)[:1] == [name]
    ]


def test_compose_mounts_a_configuration_where_the_image_looks_for_one():
    (mount,) = compose()["gateway"]["volumes"]
    source, target, mode = mount.split(":")
    command = json.loads(instructions("CMD")[-1])
    assert (ROOT / source / Path(command[1]).name).is_file()
    assert (target, mode) == (str(Path(command[1]).parent), "ro")


def test_compose_demands_a_token_and_gives_the_gateway_what_its_configuration_reads():
    environment = compose()["gateway"]["environment"]
    text = (ROOT / "deploy/compose/mcpx.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(environment) == {"MCPX_AUTH_TOKEN"}
    assert environment["MCPX_AUTH_TOKEN"].startswith("${MCPX_AUTH_TOKEN:?")


def test_compose_opens_the_gateway_alone_and_to_this_machine_alone():
    services = compose()
    assert services["gateway"]["ports"] == ["127.0.0.1:8080:8080"]
    assert "ports" not in services["mock"]


def test_the_compose_mock_starts_where_the_configuration_expects_it():
    mock = compose()["mock"]
    (server,) = yaml.safe_load((ROOT / "deploy/compose/mcpx.yaml").read_text())["servers"]
    assert server["url"] == "http://mock:3001/mcp"
    assert mock["command"][-2:] == ["--addr", "0.0.0.0:3001"]
    (mount,) = mock["volumes"]
    source, target, _ = mount.split(":")
    assert (ROOT / source / "__main__.py").is_file()
    assert target == f"{mock['working_dir']}/examples/mock_mcp"


def test_both_compose_services_run_without_privileges():
    for service in compose().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_runs_as_a_user_who_is_not_root():
    assert instructions("USER") == ["10001:10001"]
    after = DOCKERFILE.split("USER 10001:10001")[1]
    assert "RUN" not in after


def test_the_image_has_two_stages_and_copies_from_the_first_what_is_built():
    stages = instructions("FROM")
    assert [stage.split()[0].removeprefix("python:${PYTHON_VERSION}") for stage in stages] == [
        "-bookworm",
        "-slim-bookworm",
    ]
    assert "--from=build /opt/mcpx /opt/mcpx" in instructions("COPY")


def test_what_the_dockerfile_copies_exists_and_is_let_through_by_dockerignore():
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for copy in instructions("COPY"):
        *sources, _ = copy.split()
        if sources[0].startswith("--from"):
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            parts = Path(source).parts
            assert any(str(Path(*parts[:n])) in allowed for n in range(1, len(parts) + 1)), source


def health_check():
    (check,) = instructions("HEALTHCHECK")
    return json.loads(check[check.index("CMD") + 3 :])


def test_the_health_check_asks_the_port_of_the_configuration():
    program, flag, code = health_check()
    assert (program, flag) == ("python", "-c")
    listen = yaml.safe_load((ROOT / "deploy/container/mcpx.yaml").read_text())["listen"]
    assert f"http://127.0.0.1:{listen.rpartition(':')[2]}/health/live" in code


@pytest.mark.parametrize(
    "check",
    [health_check()[1:], compose()["mock"]["healthcheck"]["test"][2:]],
    ids=["image", "mock"],
)
def test_a_health_check_succeeds_with_an_answer_alone_and_asks_no_proxy(check):
    with MockServer("127.0.0.1", 0, quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.port}/"
        flag, code = check
        command = [sys.executable, flag, code.replace("http://127.0.0.1:3001/", url)]
        environ = {"MCPX_HEALTH_URL": url, "http_proxy": "http://127.0.0.1:1"}
        answered = subprocess.run(command, env=environ, capture_output=True, text=True)
        server.shutdown()
        thread.join()
    unanswered = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (answered.returncode, answered.stderr) == (0, "")
    assert unanswered.returncode != 0


def test_the_containers_configuration_asks_for_a_credential():
    config = yaml.safe_load((ROOT / "deploy/container/mcpx.yaml").read_text())
    assert config["listen"] == "0.0.0.0:8080"
    assert config["auth"]["enabled"] is True
    assert config["auth"]["token"] == "${MCPX_AUTH_TOKEN}"


def test_the_unit_gives_the_gateway_no_privilege_and_nothing_to_write_but_its_folders():
    service = unit()["Service"]
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["LogsDirectory"] == service["StateDirectory"] == "mcpx"
    assert int(service["LimitNOFILE"]) >= 65536


def test_the_unit_reloads_with_the_signal_that_the_gateway_reloads_on():
    lines = UNIT.read_text().splitlines()
    reloads = [line for line in lines if line.startswith("ExecReload=")]
    assert [line.split()[0].rpartition("/")[2] for line in reloads] == ["mcpx", "kill"]
    assert reloads[-1].endswith("-HUP $MAINPID")


def test_systemd_finds_no_fault_in_the_unit_where_there_is_systemd(tmp_path):
    text = UNIT.read_text()
    assert "ExecStart=/opt/mcpx/bin/mcpx -c /etc/mcpx/mcpx.yaml" in text
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return  # what can be checked without it is checked above
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/mcpx/bin/mcpx", "/bin/true"))
    verified = subprocess.run([analyze, "verify", copy], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_launch_agent_starts_the_gateway_and_starts_it_again_when_it_fails():
    agent = plistlib.loads((ROOT / "deploy/launchd/mcpx.plist").read_bytes())
    assert agent["ProgramArguments"] == ["/opt/mcpx/bin/mcpx", "-c", "/opt/mcpx/etc/mcpx.yaml"]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["Umask"] == 0o077


def test_the_supervisors_wait_longer_than_the_gateway_drains():
    from mcpx.config.model import TimeoutsConfig

    drain_s = float(TimeoutsConfig().drain)
    agent = plistlib.loads((ROOT / "deploy/launchd/mcpx.plist").read_bytes())
    for wait_s in (
        int(unit()["Service"]["TimeoutStopSec"]),
        agent["ExitTimeOut"],
        int(compose()["gateway"]["stop_grace_period"].removesuffix("s")),
    ):
        assert wait_s >= 2 * drain_s
