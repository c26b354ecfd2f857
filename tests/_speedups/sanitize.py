"""Run the tests of the twins against extensions in which nothing can go wrong unseen.

What it is: a program that copies what the tests need to ``build/sanitize``, compiles the
extensions there with AddressSanitizer and UndefinedBehaviorSanitizer and with Cython's
bounds checks on, whatever the sources say, and runs ``tests/_speedups`` there; the corpus
is among them. What it must never do: pass because nothing was watched. So it compiles one
extension more, which reads outside of a text, and sees that this is caught.

The memory of Python's own objects must come from the watched allocator as well, or reading
past the end of a message would be reading somebody else's memory and no error.

    .venv/bin/python tests/_speedups/sanitize.py [arguments for pytest]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "sanitize"
NEEDED = ("mcpx", "tests/_speedups", "tests/support", "pyproject.toml", "setup.py", "README.md",
          "LICENSE")  # fmt: skip
PACKAGE = FOLDER / "mcpx" / "_speedups"

#: What a source may switch off for itself, at its head or before a function.
UNCHECKED = re.compile(r"\b(boundscheck|initializedcheck|overflowcheck)(\s*[=(]\s*)False\b")

#: How long something takes says nothing here, and the twins in Python are not watched.
CHOSEN = "not times_the_time and not python"

CANARY = PACKAGE / "canary_c.pyx"
CANARY_SOURCE = """
def over(bytes text, Py_ssize_t at):
    cdef const unsigned char *bytes_of_it = text
    return bytes_of_it[at]


def shifted(int by):
    return 1 << by
"""
CALL = "from mcpx._speedups import canary_c; print(canary_c.{})"


def main(arguments: list[str]) -> int:
    if sys.platform != "linux":
        sys.exit("The sanitized run needs Linux.")
    copy()
    environ = build()
    prove(environ)
    options = ["-p", "no:cacheprovider", "--hypothesis-profile=ci", "-k", CHOSEN, *arguments]
    return python(environ, "-m", "pytest", *options, "tests/_speedups").returncode


def copy() -> None:
    """The checkout's files as they are now, and the canary."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    for name in NEEDED:
        source, target = ROOT / name, FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=unwanted)
        else:
            shutil.copyfile(source, target)
    for source in PACKAGE.glob("*.p[yx][xd]"):
        text = source.read_text("utf-8")
        source.write_text(UNCHECKED.sub(r"\1\2True", text), "utf-8")
    CANARY.write_text(CANARY_SOURCE, "utf-8")


def build() -> dict[str, str]:
    """Compile; gives the environment in which the extensions can be loaded."""
    switches = ("MCPX_NO_EXTENSIONS", "PYTHONPATH")
    environ = {name: value for name, value in os.environ.items() if name not in switches}
    environ |= {"MCPX_REQUIRE_EXTENSIONS": "1", "MCPX_SANITIZE": "1"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=FOLDER, env=environ, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"{built.stdout}{built.stderr}\nThe extensions can't be compiled.")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC")).split()[0]
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return environ | {
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        # Python itself leaves things behind when it ends.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def prove(environ: dict[str, str]) -> None:
    """See that the watch is on, and that it is kept over these very files."""
    harmless = python(environ, "-c", CALL.format("over(b'a' * 99, 98)"), quiet=True)
    if harmless.stdout != "97\n":
        sys.exit(f"{harmless.stderr}\nThe sanitized build does not run at all.")
    for call, complaint in (
        ("over(b'a' * 99, 150)", "heap-buffer-overflow"),
        ("shifted(70)", "shift exponent 70 is too large"),
    ):
        caught = python(environ, "-c", CALL.format(call), quiet=True)
        if caught.returncode == 0 or complaint not in caught.stderr:
            sys.exit(f"{caught.stderr}\nThe fault in {call} was not caught: nothing is watched.")
    where = "import mcpx._speedups as s; print(*s.__path__, s.BACKEND)"
    used = python(environ, "-c", where, quiet=True).stdout.strip()
    if used != f"{PACKAGE} compiled":
        sys.exit(f"The tests would run against {used}, not against {PACKAGE}.")
    for library in PACKAGE.glob("*.so"):
        if b"__asan_report_load" not in library.read_bytes():
            sys.exit(f"{library} is not watched.")
    # The tests look at what is in the package, and it is none of them.
    for path in PACKAGE.glob("canary_c.*"):
        path.unlink()


def python(
    environ: dict[str, str], *arguments: str, quiet: bool = False
) -> subprocess.CompletedProcess[str]:
    """Python in the copy."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=FOLDER,
        env=environ,
        capture_output=quiet,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
