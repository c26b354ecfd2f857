"""What `pip install` makes of a checkout, with a compiler and without one.

Each test builds a copy, so that nothing is left behind in the checkout. The tools come from
the environment of the tests and nothing is fetched.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from mcpx._speedups import TWINS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SWITCHES = ("MCPX_NO_EXTENSIONS", "MCPX_REQUIRE_EXTENSIONS", "PYTHONPATH")
OFFLINE = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
NO_COMPILER = "/bin/false"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
ALL = [f"{name}_c" for name in sorted(TWINS)]


def environment(**switches):
    environ = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    return environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | switches


def run(*arguments, cwd, **switches):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**switches),
        capture_output=True,
        text=True,
        timeout=300,
    )


def install(what, target, **switches):
    return run("-m", "pip", "install", *OFFLINE, "--target", target, what, cwd=what.parent,
               **switches)  # fmt: skip


def extensions(target):
    return sorted(path.name.partition(".")[0] for path in target.glob("mcpx/_speedups/*.so"))


def told(target, **switches):
    """What an installed mcpx says of itself, seen from a folder that has no other."""
    program = "import mcpx; from mcpx._speedups import described; print(mcpx.__path__[0], described(), sep='\\n')"
    done = run("-c", program, cwd=target, PYTHONPATH=str(target), **switches)
    assert done.stderr == ""
    where, *lines = done.stdout.splitlines()
    assert where == str(target / "mcpx")
    return lines


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "node_modules")
    for name in ("mcpx", "examples", "deploy", "docs", "tests/_speedups"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A source distribution, and what is installed from it where there is a compiler."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(
        ROOT / "mcpx", folder / "mcpx", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    # What a build in place leaves behind.
    (folder / "mcpx/_speedups/frames_c.c").write_text("#error\n")
    (folder / "mcpx/_speedups/frames_c.so").write_text("old\n")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    made = run("setup.py", "--quiet", "sdist", cwd=folder)
    assert made.returncode == 0, made.stderr
    (archive,) = (folder / "dist").iterdir()
    target = tmp_path_factory.mktemp("installed")
    done = install(archive, target, MCPX_REQUIRE_EXTENSIONS="1")
    assert done.returncode == 0, done.stderr
    return archive, target


def test_the_source_distribution_has_the_sources_and_nothing_that_was_made_of_them(library):
    with tarfile.open(library[0]) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    inside = {name for name in names if name.startswith("mcpx/_speedups/")}
    assert {f"mcpx/_speedups/{name}.pyx" for name in ALL} <= inside
    assert [name for name in names if name.endswith((".c", ".so", ".o", ".pyc"))] == []
    assert [name for name in names if name.startswith("build/")] == []
    assert {"setup.py", "pyproject.toml", "MANIFEST.in"} <= set(names)


def test_what_is_installed_from_it_is_compiled(library):
    _, target = library
    assert extensions(target) == ALL
    assert told(target) == told(target, MCPX_REQUIRE_EXTENSIONS="1") == ["speedups: compiled"]
    assert list(target.glob("mcpx/_speedups/*.c")) == []


def test_the_check_of_the_wheels_passes_on_it_and_fails_without_extensions(library):
    command = PROJECT["tool"]["cibuildwheel"]["test-command"]
    program, *arguments = shlex.split(command)
    assert program == "python"
    _, target = library
    passed = run(*arguments, cwd=target, PYTHONPATH=str(target))
    failed = run(*arguments, cwd=target, PYTHONPATH=str(target), MCPX_NO_EXTENSIONS="1")
    assert (passed.returncode, failed.returncode) == (0, 1), passed.stderr
    assert "AssertionError" in failed.stderr


def test_without_a_compiler_mcpx_is_installed_and_says_that_it_is_not_compiled(checkout, tmp_path):
    done = install(checkout, tmp_path / "here", CC=NO_COMPILER)
    assert done.returncode == 0, done.stderr
    assert extensions(tmp_path / "here") == []
    assert told(tmp_path / "here") == [
        "speedups: pure Python",
        *(f"  {name}: not built" for name in TWINS),
    ]


def test_without_a_compiler_what_was_compiled_before_is_not_installed(checkout, tmp_path):
    assert install(checkout, tmp_path / "first", CC=NO_COMPILER).returncode == 0
    (package,) = checkout.glob("build/lib.*/mcpx/_speedups")
    old = package / f"frames_c{SUFFIX}"
    old.write_bytes(b"of another day")
    assert install(checkout, tmp_path / "second", CC=NO_COMPILER).returncode == 0
    assert extensions(tmp_path / "second") == []


def test_without_a_compiler_required_extensions_end_the_installation(checkout, tmp_path):
    done = install(checkout, tmp_path / "here", CC=NO_COMPILER, MCPX_REQUIRE_EXTENSIONS="1")
    assert done.returncode != 0
    assert NO_COMPILER in done.stdout + done.stderr
    assert not (tmp_path / "here").exists()


def test_without_extensions_the_wheel_is_for_every_machine(checkout, tmp_path):
    done = run("-m", "pip", "wheel", *OFFLINE, "-w", tmp_path / "wheels", ".", cwd=checkout,
               MCPX_NO_EXTENSIONS="1", CC=NO_COMPILER)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith((".so", ".c"))] == []


def test_contradicting_switches_end_the_installation(checkout, tmp_path):
    done = install(checkout, tmp_path / "here", MCPX_NO_EXTENSIONS="1", MCPX_REQUIRE_EXTENSIONS="1")
    assert done.returncode != 0
    assert "contradict each other" in done.stdout + done.stderr


def test_a_fault_in_a_source_is_not_taken_for_a_missing_compiler(checkout, tmp_path):
    (checkout / "mcpx/_speedups/frames_c.pyx").write_text("def scan(:\n")
    done = install(checkout, tmp_path / "here")
    assert done.returncode != 0
    assert "frames_c.pyx" in done.stdout + done.stderr


def test_a_build_in_place_that_fails_leaves_no_older_extension(checkout):
    old = checkout / f"mcpx/_speedups/frames_c{SUFFIX}"
    old.write_bytes(b"of another day")
    done = run("setup.py", "--quiet", "build_ext", "--inplace", cwd=checkout, CC=NO_COMPILER)
    assert done.returncode == 0, done.stderr
    assert not old.exists()


def test_the_environment_of_the_tests_has_what_the_build_asks_for():
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_every_wheel_must_have_the_extensions_and_runs_on_every_machine_of_its_kind():
    wheels = PROJECT["tool"]["cibuildwheel"]
    assert wheels["environment"]["MCPX_REQUIRE_EXTENSIONS"] == "1"
    supported = [
        line.rpartition(" ")[2]
        for line in PROJECT["project"]["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert wheels["build"] == [f"cp{version.replace('.', '')}-*" for version in supported]
    assert "march" not in (ROOT / "setup.py").read_text().replace("no -march=native", "")
