"""The strict front door's scan, from the twin that this process runs.

What it is: the names of ``frames_py``, the specification. What it must never do: add
anything of its own.
"""

from typing import TYPE_CHECKING

from mcpx._speedups import twin

__all__ = ["Frame", "elements", "members", "scan", "string"]

if TYPE_CHECKING:
    from mcpx._speedups.frames_py import Frame, elements, members, scan, string
else:
    _chosen = twin("frames")
    Frame = _chosen.Frame
    elements = _chosen.elements
    members = _chosen.members
    scan = _chosen.scan
    string = _chosen.string
