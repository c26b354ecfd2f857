"""Each process runs the twins that its environment asks for, and says which and why."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import mcpx
from mcpx import _speedups
from mcpx._speedups import BACKENDS, REASONS, TWINS, _choose, _shown, _summary, described

PACKAGE = Path(_speedups.__file__).parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SWITCHES = ("MCPX_NO_EXTENSIONS", "MCPX_REQUIRE_EXTENSIONS")
TELL = "from mcpx._speedups import *; print(described())"
FACES = "".join(f"import mcpx._speedups.{name};" for name in TWINS)


def python(program, *, root=PACKAGE.parent.parent, **switches):
    environ = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **switches}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )


def loads_all_but(failures):
    def load(name):
        short = name.removeprefix("mcpx._speedups.").removesuffix("_c")
        if short in failures:
            raise failures[short]
        return ModuleType(name)

    return load


def missing(name):
    return ModuleNotFoundError("no", name=f"mcpx._speedups.{name}_c")


@pytest.fixture
def copied(tmp_path):
    """The package without anything compiled, to put things into."""
    shutil.copytree(
        PACKAGE.parent,
        tmp_path / "mcpx",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    return tmp_path / "mcpx" / "_speedups"


def test_every_pair_is_known_and_whole():
    for ending in ("_c.pyx", "_py.py", ".py"):
        found = {path.name.removesuffix(ending) for path in PACKAGE.glob(f"*{ending}")}
        assert sorted(set(TWINS) - found) == [], ending
    compiled = {path.name.removesuffix("_c.pyx") for path in PACKAGE.glob("*.pyx")}
    assert sorted(compiled) == sorted(TWINS)


def test_this_process_runs_what_its_environment_asks_for():
    if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
        assert dict.fromkeys(TWINS, "c") == BACKENDS
    if os.environ.get("MCPX_NO_EXTENSIONS") == "1":
        assert dict.fromkeys(TWINS, "py") == BACKENDS
        assert dict.fromkeys(TWINS, "MCPX_NO_EXTENSIONS=1") == REASONS
    assert set(BACKENDS) == set(TWINS)
    assert set(REASONS) == {name for name in TWINS if BACKENDS[name] == "py"}


@pytest.mark.parametrize("name", TWINS)
def test_a_face_is_made_of_the_chosen_twin_and_of_nothing_else(name):
    face = __import__(f"mcpx._speedups.{name}", fromlist=["x"])
    specification = __import__(f"mcpx._speedups.{name}_py", fromlist=["x"])
    chosen = _speedups.twin(name)
    assert chosen.__name__ == f"mcpx._speedups.{name}_{BACKENDS[name]}"
    assert sorted(face.__all__) == sorted(specification.__all__)
    for each in face.__all__:
        assert getattr(face, each) is getattr(chosen, each), each


@pytest.mark.parametrize("library", sorted(PACKAGE.glob("*.so")), ids=lambda path: path.name)
def test_no_extension_is_older_than_its_source(library):
    source = PACKAGE / f"{library.name.partition('.')[0]}.pyx"
    assert library.stat().st_mtime >= source.stat().st_mtime, "run `make install`"


def test_a_process_told_to_use_no_extension_loads_none():
    loaded = (
        "import sys; print([n for n in sys.modules if n.startswith('mcpx') and n[-2:] == '_c'])"
    )
    done = python(f"{FACES}{loaded};{TELL}", MCPX_NO_EXTENSIONS="1")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[]",
        "speedups: pure Python",
        *(f"  {name}: MCPX_NO_EXTENSIONS=1" for name in TWINS),
    ]


def test_switches_that_contradict_each_other_stop_the_start():
    done = python("import mcpx._speedups", MCPX_NO_EXTENSIONS="1", MCPX_REQUIRE_EXTENSIONS="1")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: MCPX_NO_EXTENSIONS=1 and MCPX_REQUIRE_EXTENSIONS=1 contra")


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_1_or_0_or_not_set(name):
    load = loads_all_but({})
    assert _choose({name: ""}, load) == _choose({name: "0"}, load) == _choose({}, load)
    for value in ("true", "yes", "2", " 1"):
        with pytest.raises(ImportError, match=f"{name} is .*: it must be 1, 0 or not set"):
            _choose({name: value}, load)


def test_twins_that_load_are_used():
    assert _choose({}, loads_all_but({})) == (dict.fromkeys(TWINS, "c"), {})
    assert _choose({"MCPX_REQUIRE_EXTENSIONS": "1"}, loads_all_but({})) == _choose(
        {}, loads_all_but({})
    )


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (
            ImportError("undefined symbol:\n  x"),
            "can't be loaded: ImportError: undefined symbol: x",
        ),
        (ModuleNotFoundError("no y", name="y"), "can't be loaded: ModuleNotFoundError: no y"),
        (ValueError("size changed"), "can't be loaded: ValueError: size changed"),
        (SystemError("another Python"), "can't be loaded: SystemError: another Python"),
    ],
)
def test_one_that_fails_is_replaced_alone_and_the_reason_is_kept(failure, reason):
    backends, reasons = _choose({}, loads_all_but({"frames": failure}))
    assert backends == {name: "py" if name == "frames" else "c" for name in TWINS}
    assert reasons == {"frames": reason}


def test_a_reason_is_one_line_of_bounded_length():
    reason = _shown(ImportError("a\r\n\tb " * 1000))
    assert len(reason) <= 300
    assert reason.startswith("can't be loaded: ImportError: a b a b")
    assert reason.isprintable()


def test_what_is_required_and_can_not_be_had_stops_the_start():
    load = loads_all_but({"canon": ImportError("too old"), "frames": OSError("no")})
    with pytest.raises(ImportError) as caught:
        _choose({"MCPX_REQUIRE_EXTENSIONS": "1"}, load)
    told = str(caught.value)
    assert "MCPX_REQUIRE_EXTENSIONS=1" in told
    assert "canon: can't be loaded: ImportError: too old" in told
    assert "frames: can't be loaded: OSError: no" in told
    assert "C compiler" in told


def test_an_interrupt_while_one_loads_is_no_reason_to_fall_back():
    with pytest.raises(KeyboardInterrupt):
        _choose({}, loads_all_but({"frames": KeyboardInterrupt()}))


def test_the_summary_says_which_are_missing():
    assert _summary({"a": "c", "b": "c"}) == "compiled"
    assert _summary({"a": "py", "b": "py"}) == "pure Python"
    assert _summary({"b": "py", "c": "c", "a": "py"}) == "compiled but a, b"


def test_the_description_has_one_line_for_each_that_is_missing():
    assert described().splitlines() == [
        f"speedups: {_speedups.BACKEND}",
        *(f"  {name}: {why}" for name, why in REASONS.items()),
    ]


def test_extensions_that_were_never_built_are_told(copied):
    done = python(f"{FACES}{TELL}", root=copied.parent.parent)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "speedups: pure Python",
        *(f"  {name}: not built" for name in TWINS),
    ]


def test_an_extension_for_another_python_is_told(copied):
    (copied / "frames_c.cpython-38-x86_64-linux-gnu.so").touch()
    (copied / "frames_code.so").touch()
    told = python(f"{FACES}{TELL}", root=copied.parent.parent).stdout
    assert (
        "  frames: built for another Python alone (frames_c.cpython-38-x86_64-linux-gnu.so)\n"
        in told
    )
    assert "  canon: not built\n" in told


def test_an_extension_that_is_no_library_is_told_and_replaced(copied):
    (copied / f"frames_c{SUFFIX}").write_bytes(b"not a library")
    works = "from mcpx._speedups.frames import scan; print(scan.__module__)"
    done = python(f"{TELL};{works}", root=copied.parent.parent)
    assert done.stderr == ""
    assert "  frames: can't be loaded: ImportError: " in done.stdout
    assert done.stdout.splitlines()[-1] == "mcpx._speedups.frames_py"


def test_a_gateway_that_requires_extensions_does_not_start_without_them(copied):
    done = python(
        "from mcpx.cli.main import main; import sys; sys.argv[1:] = ['-version']; main()",
        root=copied.parent.parent,
        MCPX_REQUIRE_EXTENSIONS="1",
    )
    assert done.returncode == 1
    assert done.stdout in ("", f"mcpx v{mcpx.__version__}\n")
    assert "not every extension can be used (" in done.stderr.splitlines()[-1]
