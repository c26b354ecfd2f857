"""A small MCP server to try a gateway with: three tools, no state, no effect.

``python -m examples.mock_mcp --addr :3001`` starts it.
"""
