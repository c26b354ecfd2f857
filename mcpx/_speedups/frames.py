"""The strict front door's scan, from the fastest twin that is there.

What it is: the names of ``frames_py``, the specification. What it must never do: add
anything of its own.
"""

from mcpx._speedups.frames_py import Frame, elements, members, scan, string

__all__ = ["Frame", "elements", "members", "scan", "string"]
