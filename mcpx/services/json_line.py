"""One JSON object on one line that can be shown to people.

What it is: what the audit and the gateway's own log have in common. What it must never
do: let a text end the line, or play tricks on the terminal that shows it. JSON itself
escapes the C0 controls; here go the rest: DEL, the C1 controls, the separators of lines
and paragraphs, the byte order mark and the controls of the direction of writing.

In UTF-8 none of these byte sequences can be part of another character, and in JSON they
can only be inside a string, so an escape may take their place without parsing anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["json_line", "shown"]

_UNSAFE: Final = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]|\xef\xbb\xbf"
)


def json_line(members: Mapping[str, object]) -> bytes:
    """``members`` as compact JSON in UTF-8, the newline included.

    A lone surrogate in a text at the top becomes the text of its escape: it has no UTF-8
    form. Raises what msgspec raises for a value that has no JSON form.
    """
    try:
        text = msgspec.json.encode(members)
    except UnicodeEncodeError:
        text = msgspec.json.encode(
            {
                key: _plain(value) if isinstance(value, str) else value
                for key, value in members.items()
            }
        )
    return shown(text)


def shown(text: bytes) -> bytes:
    """JSON that msgspec made, as a line: with its newline, and safe to show."""
    if text.isascii() and b"\x7f" not in text:
        return text + b"\n"
    return _UNSAFE.sub(_escaped, text) + b"\n"


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode("utf-8"))
