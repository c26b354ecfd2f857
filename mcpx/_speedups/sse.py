"""The framing of event streams, from the twin that this process runs.

What it is: the names of ``sse_py``, the specification. What it must never do: add
anything of its own.
"""

from typing import TYPE_CHECKING

from mcpx._speedups import twin

__all__ = ["Event", "EventParser"]

if TYPE_CHECKING:
    from mcpx._speedups.sse_py import Event, EventParser
else:
    _chosen = twin("sse")
    Event = _chosen.Event
    EventParser = _chosen.EventParser
