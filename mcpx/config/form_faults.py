"""Refusals of single texts as faults: what the checking modules have in common.

What it is: the bridge from ``forms``, which says what is wrong with a text, to faults,
which say where it is. What it must never do: quote a value; the forms decide what may
be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mcpx.config import forms
from mcpx.config.faults import Fault, Path, nearest, quote
from mcpx.config.model import ServerConfig

__all__ = ["form_faults", "list_faults", "meant", "of_server"]

_LISTED: Final = 10  # names in a hint


def form_faults(
    path: Path, check: Callable[[str], object], text: str, server: ServerConfig | None = None
) -> Iterator[Fault]:
    """The fault of ``text`` if ``check`` raises FormError, told of ``server`` if one is given."""
    try:
        check(text)
    except forms.FormError as error:
        message = error.message if server is None else of_server(server, error.message)
        yield Fault(path, message, error.hint)


def list_faults(
    path: Path,
    texts: Sequence[str],
    check: Callable[[str], object],
    use: Callable[[str], object],
) -> Iterator[Fault]:
    """The form of each text; where it is right, what the code that will use it says.

    ``use`` raises ValueError, whose text may be shown.
    """
    for index, text in enumerate(texts):
        faults = list(form_faults((*path, index), check, text))
        if not faults:
            try:
                use(text)
            except ValueError as error:
                faults = [Fault((*path, index), str(error))]
        yield from faults


def of_server(server: ServerConfig, message: str) -> str:
    """``message`` with the server's name, since list positions say little."""
    return f"server {quote(server.name)}: {message}"


def meant(name: str, known: Sequence[str]) -> str:
    """A hint at the known name that ``name`` is probably for, or at all of them."""
    found = nearest(name, known)
    if found is not None:
        return f"did you mean {found}?"
    return f"known here: {', '.join(known[:_LISTED])}" if known else ""
