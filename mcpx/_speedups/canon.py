"""Canonical JSON and its hashes, from the fastest twin that is there.

What it is: the names of ``canon_py``, the specification. What it must never do: add
anything of its own.
"""

from mcpx._speedups.canon_py import MAX_DEPTH, canonical, digest, key

__all__ = ["MAX_DEPTH", "canonical", "digest", "key"]
