"""The hot path's parsers, each a pair of twins: which of the two runs.

What it is: the one place where a process chooses. ``<name>_py`` is the specification,
``<name>_c`` the compiled twin, and ``<name>`` the face that the rest imports, made of the
one that was chosen here. Each is chosen by itself: the compiled twin where it loads, the
specification otherwise.

What it must never do: fall back without saying why. ``REASONS`` holds one for each twin
that is not compiled; ``mcpx -version`` shows them, and the start line the summary.

Two variables of the environment have a say; each is ``1``, ``0`` or not set:

* ``MCPX_NO_EXTENSIONS=1``: no compiled twin is loaded, also where there is one;
* ``MCPX_REQUIRE_EXTENSIONS=1``: where one can't be loaded, nothing starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Final, Literal

__all__ = ["BACKEND", "BACKENDS", "REASONS", "TWINS", "Backend", "described", "twin"]

Backend = Literal["c", "py"]

#: Every pair of this package, by its name.
TWINS: Final = ("canon", "frames", "heads", "ndjson", "sse")

_NO: Final = "MCPX_NO_EXTENSIONS"
_REQUIRE: Final = "MCPX_REQUIRE_EXTENSIONS"
_REASON_CHARS: Final = 300


def _switch(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "")
    if value not in {"", "0", "1"}:
        raise ImportError(f"{name} is {value[:40]!r}: it must be 1, 0 or not set")
    return value == "1"


def _choose(
    environ: Mapping[str, str], load: Callable[[str], ModuleType]
) -> tuple[dict[str, Backend], dict[str, str]]:
    """The backend of each twin, and the reason of each that is not compiled.

    Raises:
        ImportError: the environment contradicts itself, or asks for what can't be had.
    """
    never, always = _switch(environ, _NO), _switch(environ, _REQUIRE)
    if never and always:
        raise ImportError(
            f"{_NO}=1 and {_REQUIRE}=1 contradict each other: set one of them, or none"
        )
    backends: dict[str, Backend] = {}
    reasons: dict[str, str] = {}
    for name in TWINS:
        why = f"{_NO}=1" if never else _failure(f"{name}_c", load)
        backends[name] = "c" if why is None else "py"
        if why is not None:
            reasons[name] = why
    if always and reasons:
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise ImportError(
            f"{_REQUIRE}=1, and not every extension can be used ({told}). Install mcpx where "
            f"there is a C compiler, or unset {_REQUIRE} to run in pure Python"
        )
    return backends, reasons


def _failure(module: str, load: Callable[[str], ModuleType]) -> str | None:
    """Why the compiled twin can't be loaded; ``None`` if it has been."""
    whole = f"{__name__}.{module}"
    try:
        load(whole)
    except ModuleNotFoundError as exc:
        return _absent(module) if exc.name == whole else _shown(exc)
    except Exception as exc:
        # One that was built against something else can raise anything while it starts.
        return _shown(exc)
    return None


def _absent(module: str) -> str:
    """Python looks at files of its own version and machine alone; tell of the others."""
    try:
        names = [each for folder in __path__ for each in os.listdir(folder)]
    except OSError:
        return "not built"
    others = sorted(
        each for each in names if each.startswith(f"{module}.") and each.endswith(".so")
    )
    return f"built for another Python alone ({', '.join(others)})" if others else "not built"


def _shown(exc: Exception) -> str:
    text = f"can't be loaded: {type(exc).__name__}: {exc}"
    return " ".join(text.split())[:_REASON_CHARS]


def _summary(backends: Mapping[str, Backend]) -> str:
    missing = sorted(name for name, backend in backends.items() if backend != "c")
    if not missing:
        return "compiled"
    return "pure Python" if len(missing) == len(backends) else f"compiled but {', '.join(missing)}"


_chosen = _choose(os.environ, import_module)
#: ``"c"`` or ``"py"`` for each twin; why, for each that is ``"py"``.
BACKENDS: Final = _chosen[0]
REASONS: Final = _chosen[1]
#: All of them in a word or two: "compiled", "pure Python", or which ones are missing.
BACKEND: Final = _summary(BACKENDS)


def twin(name: str) -> ModuleType:
    """The module that was chosen of the pair ``name``."""
    return import_module(f"{__name__}.{name}_{BACKENDS[name]}")


def described() -> str:
    """The summary, and one line for each twin that is not compiled: for people."""
    return "\n".join(
        [f"speedups: {BACKEND}", *(f"  {name}: {why}" for name, why in REASONS.items())]
    )
