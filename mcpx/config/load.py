"""From the text of a configuration to what runs, or to every reason why not.

The stages, each of which gives all its problems at once::

    bytes --yaml_text--> plain values --expand--> variables filled in
          --shape--> Config --snapshot (validate, compile)--> Snapshot

A stage that finds faults is the last one, save that ``expand`` and ``shape`` are told
together: what a later stage would say about a value that is already known to be wrong
would only mislead. Every problem is one line that starts with ``file:line:column``.

The caller passes the environment. Only ``read_file`` touches the system, and a reload
that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mcpx.config.expand import expand
from mcpx.config.faults import Fault, Faulty, render_all
from mcpx.config.model import Config
from mcpx.config.shape import Shape
from mcpx.config.snapshot import Snapshot, compile_snapshot
from mcpx.config.validate import validate
from mcpx.config.yaml_text import MAX_BYTES, Document, YamlError, read_yaml
from mcpx.errors import ConfigError

__all__ = ["load_snapshot", "parse", "read_file"]

_CHUNK: Final = 64 * 1024


def parse(text: str | bytes, *, filename: str, environ: Mapping[str, str]) -> Config:
    """The configuration in ``text``, checked, and not yet compiled.

    Raises ``ConfigError`` with all problems, and nothing else.
    """
    config, document = _read(text, filename, environ)
    faults = validate(config)
    if faults:
        raise _refused(faults, document, filename)
    return config


def load_snapshot(
    text: str | bytes, *, filename: str, environ: Mapping[str, str], generation: int
) -> Snapshot:
    """The configuration in ``text``, checked and compiled.

    Raises ``ConfigError`` with all problems, those of the policies included.
    """
    config, document = _read(text, filename, environ)
    try:
        return compile_snapshot(config, generation=generation)
    except Faulty as error:
        raise _refused(error.faults, document, filename) from None


def read_file(filename: str) -> bytes:
    """What ``filename`` holds, one byte past the largest size at the most. Blocks.

    Raises ``ConfigError`` where it can't be read.
    """
    content = bytearray()
    try:
        with open(filename, "rb") as file:
            while len(content) <= MAX_BYTES and (more := file.read(_CHUNK)):
                content += more
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError([f"{filename}: can't be read: {reason}"]) from None
    return bytes(content[: MAX_BYTES + 1])


def _read(text: str | bytes, filename: str, environ: Mapping[str, str]) -> tuple[Config, Document]:
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise ConfigError(render_all(error.problems, filename)) from None
    expansion = expand(document.value, environ)
    shape = Shape(document, expansion)
    if shape.config is None:
        # What became of a text whose variable is missing says nothing about the text.
        known = {fault.path for fault in expansion.faults}
        rest = [fault for fault in shape.faults if fault.path not in known]
        raise _refused([*expansion.faults, *rest], document, filename)
    return shape.config, document


def _refused(faults: Iterable[Fault], document: Document, filename: str) -> ConfigError:
    placed = [(document.locate(fault.path, at_key=fault.at_key), fault) for fault in faults]
    return ConfigError(render_all(placed, filename))
