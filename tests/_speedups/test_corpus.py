"""Every file of the corpus, fed to every twin: both say the same, and neither ends the process.

``corpus`` holds texts that are hostile, or at the edge of what is accepted, as bytes; what
a fuzzer finds is put there and stays. A file is fed to the twins of every pair, since what
is odd for one reader is worth a look by the others.
"""

from importlib import import_module
from pathlib import Path

import pytest

from mcpx._speedups import TWINS
from mcpx._speedups.frames_py import Frame
from mcpx.errors import FrameError, LocalProtocolError, RemoteProtocolError

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except FrameError as exc:
        return "refused", str(exc), vars(exc)
    except (LocalProtocolError, RemoteProtocolError) as exc:
        return "refused", str(exc), vars(exc)


def parts(frame):
    return [(name, getattr(frame, name)) for name in Frame.__slots__]


def frames(twin, text):
    for of_server in (False, True):
        for max_depth in (64, 3):
            scanned = outcome(twin.scan, text, max_depth, of_server=of_server)
            if isinstance(scanned, tuple):
                yield scanned
                continue
            yield parts(scanned)
            for span in (scanned.params, scanned.arguments, scanned.meta, scanned.result):
                if span is not None:
                    yield from inside(twin, text, span)


def inside(twin, text, span):
    """What stands in the value at ``span``, to the last leaf."""
    waiting = [span]
    while waiting:
        start, end = waiting.pop()
        yield start, end, outcome(twin.string, text, (start, end))
        found = twin.members(text, start)
        yield found
        spans = twin.elements(text, start)
        yield spans
        waiting += [(begin, close) for _, begin, close in found] + spans


def canon(twin, text):
    for ask in (twin.canonical, twin.digest, twin.key):
        yield outcome(ask, text)
    yield outcome(twin.canonical, text, 0, None, 3)
    yield outcome(twin.canonical, b" " + text + b" ", 1, len(text) + 1)


def pieces(text):
    """Whole, byte by byte, and cut once at places that are spread over it."""
    yield [text]
    yield [text[at : at + 1] for at in range(min(len(text), 2000))] + [text[2000:]]
    for at in range(1, len(text), max(1, len(text) // 16)):
        yield [text[:at], text[at:]]


def fed(parser, chunks, shown):
    for chunk in chunks:
        got = outcome(parser.feed, chunk)
        yield got if isinstance(got, tuple) else [shown(each) for each in got]
        yield parser.held


def event(each):
    return each.raw, each.data, each.event, each.id, each.start


def sse(twin, text):
    for limit in (1 << 20, 40):
        for chunks in pieces(text):
            parser = twin.EventParser(limit)
            yield from fed(parser, chunks, event)
            yield outcome(parser.rest)


def ndjson(twin, text):
    for limit in (1 << 20, 40):
        for chunks in pieces(text):
            parser = twin.LineParser(limit)
            yield from fed(parser, chunks, bytes)
            yield outcome(parser.end)


def heads(twin, text):
    """The text as each part of a head; its words as names, and as what ``Connection`` says."""
    words = text.split()[:50]
    named = [(word.lower(), text[:40]) for word in words]
    for fields in (
        [(b"x", text)],
        [(text, b"x")],
        [(b"mcp-x", b"y"), (b"connection", text), *named],
    ):
        for status, chunked in ((200, False), (200, True), (204, False)):
            framing = {"length": None if chunked else len(text), "chunked": chunked}
            yield outcome(twin.response_head, status, fields, close=chunked, **framing)
        yield outcome(twin.request_head, "POST", b"/", fields, length=len(text))
        yield twin.forwarded_request_headers(fields, frozenset(words[1:]))
        yield twin.forwarded_response_headers(fields)
    yield outcome(twin.request_head, text.decode("latin-1"), b"/", (), length=None)
    yield outcome(twin.request_head, "GET", b"/" + text, (), length=None)
    for chunks in pieces(text):
        yield [twin.after(text, chunks[0]), twin.after(memoryview(chunks[-1]), text)]


DRIVERS = {"canon": canon, "frames": frames, "heads": heads, "ndjson": ndjson, "sse": sse}


def test_every_pair_of_twins_is_fed():
    assert sorted(set(TWINS) - set(DRIVERS)) == []
    assert len(CORPUS) > 20


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_both_twins_say_the_same_of_each_file(name, path):
    text = path.read_bytes()
    compiled = pytest.importorskip(f"mcpx._speedups.{name}_c", exc_type=ImportError)
    specification = import_module(f"mcpx._speedups.{name}_py")
    drive = DRIVERS[name]
    assert list(drive(compiled, text)) == list(drive(specification, text))
