"""The compiled twins; everything that can be said without code is in pyproject.toml.

What it is: each ``mcpx/_speedups/*_c.pyx`` becomes an extension. They are optional: where
one can't be compiled, the build goes on without it, and mcpx runs that twin in pure
Python and says so. What it must never do: leave an extension in place that is older than
its source, or take a fault in a source for a missing compiler.

Three variables of the environment; each is ``1``, ``0`` or not set:

* ``MCPX_NO_EXTENSIONS=1``: compile none;
* ``MCPX_REQUIRE_EXTENSIONS=1``: fail where one can't be compiled;
* ``MCPX_SANITIZE=1``: for ``make sanitize`` alone, never for use: with AddressSanitizer and
  UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = "mcpx/_speedups/*_c.pyx"


def switch(name: str) -> bool:
    """Whether the variable ``name`` is on."""
    value = os.environ.get(name, "")
    if value not in {"", "0", "1"}:
        sys.exit(f"{name} is {value!r}: it must be 1, 0 or not set")
    return value == "1"


NO = switch("MCPX_NO_EXTENSIONS")
REQUIRE = switch("MCPX_REQUIRE_EXTENSIONS")
SANITIZE = switch("MCPX_SANITIZE")
if NO and REQUIRE:
    sys.exit(
        "MCPX_NO_EXTENSIONS=1 and MCPX_REQUIRE_EXTENSIONS=1 contradict each other: "
        "set one of them, or none"
    )

# Nothing here depends on the machine that builds: a wheel must run on every machine of its
# kind, so there is no -march=native.
# -O3: the scan's loops are what the twins are for. Hidden: each offers its start function
# and nothing else. The stack protector: they read what strangers send. What is for a
# debugger would be five sixths of each file.
COMPILE = ["-O3", "-fvisibility=hidden", "-fstack-protector-strong", "-g0"]
LINK: list[str] = []
if SANITIZE:
    COMPILE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
    # Undefined behaviour ends the program as a bad address does, and is not only printed.
    COMPILE += ["-fno-sanitize-recover=undefined"]
    LINK = ["-fsanitize=address,undefined"]


class BuildExtensions(build_ext):
    """Cython's step and the compiler's, one extension at a time."""

    def run(self) -> None:
        """Build all of them, in place if that was asked for."""
        # setuptools builds elsewhere even then, and copies what there is at the end.
        self.into_sources = bool(self.inplace)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile ``ext`` anew; whatever was built of it before is gone even if this fails."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)
        if self.into_sources:
            beside = Path(*ext.name.split(".")).with_name(target.name)
            beside.unlink(missing_ok=True)
        try:
            from Cython.Build import cythonize
        except ImportError as exc:
            raise CompileError(f"Cython is needed to build {ext.name}: {exc}") from exc
        (source,) = Path().glob(f"{ext.name.replace('.', '/')}.pyx")
        # The C goes where what is temporary goes, so none of it gets into the sources or
        # the source distribution. Cython's own errors are no CompileError of setuptools:
        # a fault in a source ends the build, also of an extension that is optional.
        (made,) = cythonize(
            [Extension(ext.name, [str(source)])],
            build_dir=self.build_temp,
            force=True,
            quiet=True,
            compiler_directives={"language_level": 3, "freethreading_compatible": True},
        )
        ext.sources = made.sources
        self.force = True
        super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildExtensions},
    # Sorted, so that one checkout always gives the same build.
    ext_modules=[]
    if NO
    else [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            extra_compile_args=COMPILE,
            extra_link_args=LINK,
            optional=not REQUIRE,
        )
        for source in sorted(Path().glob(SOURCES))
    ],
)
