"""Paths and URIs read in every way that a server might read them.

What it is: two questions that a prefix can't answer. Does a path stay within a folder,
and which resources may a URI mean? A server may decode percent signs once, twice or
not at all, resolve ``..`` before or after, and fold full-width characters; mcpx can't
know. So each reading is made, and the caller asks about all of them: what is forbidden
must match in none, what is allowed in each. A text that does not come to rest after a
bounded number of readings can't be judged.

What it must never do: look at a file system. ``..`` is resolved as text, so a symbolic
link below a folder that is allowed leads where it leads; ``~`` is a letter like others.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from mcpx.core.globs import ANY, ONE, Glob, GlobFault, is_unicode, piles_marks

__all__ = [
    "LONGEST_PATH",
    "LONGEST_URI",
    "PathFault",
    "glob_readings",
    "has_control",
    "path_within",
    "path_within_root",
    "readings",
]

#: Characters. PATH_MAX of Linux, in bytes, is the same.
LONGEST_PATH: Final = 4096
#: Characters. Servers and proxies commonly refuse longer request lines.
LONGEST_URI: Final = 8192
#: Characters. A DNS name has at most 253; the rest is room for a port.
_LONGEST_AUTHORITY: Final = 512
#: How often a text is decoded or normalised anew before it is given up.
_ROUNDS: Final = 5
#: Forms of one path that are looked at before it is given up.
_FORMS: Final = 16
#: Readings of one URI that are looked at before it is given up.
_READINGS: Final = 48

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A path with one reading, itself: printable ASCII without an escape, a backslash, an
# empty segment, or one that begins with a dot. The lookahead is for the empty text.
_PLAIN: Final = re.compile(r"(?=/)(?:/[ -$&-\-0-\[\]-~][ -$&-.0-\[\]-~]*+)*+/?")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# The WHATWG URL standard, "special scheme": any number of slashes, either way, and a port
# that may be left out.
_DEFAULT_PORTS: Final = {"ftp": "21", "http": "80", "https": "443", "ws": "80", "wss": "443"}
_QUERY: Final = re.compile(f"[?#{ONE}]")
_AUTHORITY_END: Final = re.compile(f"[/?#{ONE}]")


class PathFault(ValueError):
    """A folder that can't be a root; the text says why."""


def has_control(text: str) -> bool:
    """Whether the text has a control character, C0, DEL or C1."""
    return _CONTROL.search(text) is not None


# Paths


def path_within_root(folder: str) -> str:
    """The folder as ``path_within`` takes it: resolved, with a slash at its end.

    Raises ``PathFault`` when it is not absolute, or not written plainly: a folder that
    itself reads in two ways can't tell what is within it.
    """
    if not folder.startswith("/"):
        raise PathFault("is not absolute")
    if has_control(folder) or "\\" in folder or not is_unicode(folder):
        raise PathFault("contains a backslash or a control character")
    if unquote(folder) != folder:
        raise PathFault("is percent-encoded")
    if piles_marks(folder) or unicodedata.normalize("NFKC", folder) != folder:
        raise PathFault("is not in Unicode normalisation form NFKC")
    if len(folder) > LONGEST_PATH:
        raise PathFault(f"is longer than {LONGEST_PATH} characters")
    return _slashed(_resolve(folder))


def path_within(value: str, roots: tuple[str, ...]) -> bool:
    """Whether ``value`` is an absolute path that stays within a root, however it is read.

    Within is the root itself or what is below it, by segments: ``/data`` does not hold
    ``/database``. ``roots`` come from ``path_within_root``. ``.``, ``..`` and ``//`` are
    resolved as text; the value, its percent-decoded forms, and their compatibility forms
    (NFKC, which turns a full-width dot into a dot) must all be within. Backslashes,
    control characters, escapes that are not UTF-8, more than a few layers of encoding
    and more than ``LONGEST_PATH`` characters are outside of everything.
    """
    if len(value) > LONGEST_PATH:
        return False
    if _PLAIN.fullmatch(value) is not None:
        # Roots have a slash at their end: what begins with one is below it.
        return value.startswith(roots) or value + "/" in roots
    return _within_however_read(value, roots)


def _within_however_read(value: str, roots: tuple[str, ...]) -> bool:
    """The whole question, for any value of bounded length."""
    if not value.startswith("/") or has_control(value) or not is_unicode(value):
        return False
    seen = {value}
    waiting = [value]
    while waiting:
        form = waiting.pop()
        if not form.startswith("/") or "\\" in form or has_control(form) or piles_marks(form):
            return False
        if not _slashed(_resolve(form)).startswith(roots):
            return False
        try:
            others = (
                unquote_to_bytes(form).decode() if "%" in form else form,
                unicodedata.normalize("NFKC", form),
            )
        except UnicodeDecodeError:
            return False
        for other in others:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
        if len(seen) > _FORMS:
            return False
    return True


def _slashed(path: str) -> str:
    return path if path.endswith("/") else path + "/"


def _resolve(path: str) -> str:
    """An absolute path without ``.``, ``..`` and empty segments; a last slash stays."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if not kept:
        return "/" if path else ""
    # "/a/." and "/a/.." name folders just as "/a/" does (RFC 3986, section 5.2.4).
    return "/" + "/".join(kept) + ("/" if segments[-1] in ("", ".", "..") else "")


# URIs


def readings(uri: str) -> tuple[str, ...] | None:
    """Every text that the URI may be taken for, itself first; None when there is no end to it.

    At each layer of percent-encoding: the text itself, and the text made plain. Plain is:
    backslashes are slashes, scheme and host fold their case, user information and the
    scheme's own port go, empty and dotted segments are resolved, and ``file:`` has its
    three slashes. It is made with the query apart and with the query taken for a part of
    the path; and, where the scheme has no rules that all know, with what follows ``://``
    taken for a host and taken for a path. None as well for control characters, heaps of
    combining marks, and bytes that are not UTF-8, when they come out of the encoding.

    Each reading of a reading is among them.
    """
    found = {uri: None}
    layer = [uri]
    for _ in range(_ROUNDS):
        following: list[str] = []
        for text in layer:
            if has_control(text) or piles_marks(text):
                return None
            try:
                decoded = unquote(text, errors="strict") if "%" in text else text
            except UnicodeDecodeError:
                return None
            for candidate in (
                _plain(text, query=True, host=True),
                _plain(text, query=False, host=True),
                _plain(text, query=True, host=False),
                _plain(text, query=False, host=False),
                decoded,
            ):
                if candidate is None:
                    return None
                if candidate not in found:
                    found[candidate] = None
                    following.append(candidate)
        if not following:
            return tuple(found)
        if len(found) > _READINGS:
            return None
        layer = following
    return None


def glob_readings(glob: Glob) -> tuple[Glob, ...]:
    """The same for a glob of URIs, whose wildcards stay what they are.

    Raises ``GlobFault`` when there is no end to them, or a wildcard would come out of an
    escape.
    """
    found = readings(glob)
    if found is None:
        raise GlobFault("is encoded too often to be judged")
    if any(text.count(mark) > glob.count(mark) for text in found for mark in (ANY, ONE)):
        raise GlobFault("contains an escaped code point that is no character")
    return tuple(map(Glob, found))


def _plain(uri: str, *, query: bool, host: bool) -> str | None:
    """The URI made plain; None when its authority can't be one.

    ``query`` sets what follows ``?`` or ``#`` apart, ``host`` takes what follows ``://``
    for an authority.
    """
    text = uri.strip(" ")
    tail = ""
    if query and (end := _QUERY.search(text)) is not None:
        text, tail = text[: end.start()], text[end.start() :]
    text = text.replace("\\", "/")
    match = _SCHEME.match(text)
    if match is None:
        return _segments(text) + tail
    scheme = match[1].lower()
    rest = text[match.end() :]
    if scheme in _DEFAULT_PORTS:
        host = True
        rest = "//" + rest.lstrip("/")
    elif scheme == "file" and not rest.startswith("//"):
        rest = "///" + rest.lstrip("/")
    if not rest.startswith("//"):
        return f"{scheme}:{_segments(rest)}{tail}"
    rest = rest[2:]
    if not host:
        return f"{scheme}://{_segments(rest)}{tail}"
    end = _AUTHORITY_END.search(rest)
    path_start = len(rest) if end is None else end.start()
    authority = _authority(rest[:path_start], scheme)
    if authority is None:
        return None
    return f"{scheme}://{authority}{_segments(rest[path_start:])}{tail}"


def _authority(text: str, scheme: str) -> str | None:
    """Host and port as they are compared; None when the text is too long to be a host."""
    if len(text) > _LONGEST_AUTHORITY:
        return None
    host = unicodedata.normalize("NFKC", text.rpartition("@")[2]).casefold()
    port = _DEFAULT_PORTS.get(scheme)
    if port is not None:
        host = host.removesuffix(":").removesuffix(":" + port)
    host = host.removesuffix(".")
    return "" if scheme == "file" and host == "localhost" else host


def _segments(path: str) -> str:
    """``_resolve``, also for what does not begin with a slash."""
    return _resolve(path) if path.startswith("/") else _resolve("/" + path)[1:]
