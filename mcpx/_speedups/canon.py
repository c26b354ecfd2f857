"""Canonical JSON and its hashes, from the twin that this process runs.

What it is: the names of ``canon_py``, the specification. What it must never do: add
anything of its own.
"""

from typing import TYPE_CHECKING

from mcpx._speedups import twin

__all__ = ["MAX_DEPTH", "canonical", "digest", "key"]

if TYPE_CHECKING:
    from mcpx._speedups.canon_py import MAX_DEPTH, canonical, digest, key
else:
    _chosen = twin("canon")
    MAX_DEPTH = _chosen.MAX_DEPTH
    canonical = _chosen.canonical
    digest = _chosen.digest
    key = _chosen.key
