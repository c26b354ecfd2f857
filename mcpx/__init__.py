"""mcpx: a gateway for the Model Context Protocol.

It stands between MCP clients and MCP servers; every message that passes is
understood, decided, limited, recorded and forwarded. ``mcpx.app`` is the
composition root, ``mcpx.gateway.pipeline`` the one place where the parts meet.
"""

__version__ = "0.1.0"
