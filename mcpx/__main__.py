"""``python -m mcpx`` is ``mcpx``."""

from mcpx.cli.main import main

if __name__ == "__main__":
    main()
