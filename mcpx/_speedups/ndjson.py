"""The lines of stdio servers, from the twin that this process runs.

What it is: the names of ``ndjson_py``, the specification. What it must never do: add
anything of its own.
"""

from typing import TYPE_CHECKING

from mcpx._speedups import twin

__all__ = ["LineParser"]

if TYPE_CHECKING:
    from mcpx._speedups.ndjson_py import LineParser
else:
    _chosen = twin("ndjson")
    LineParser = _chosen.LineParser
