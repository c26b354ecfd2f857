"""The hot path's parsers. Each is a pair: ``<name>_py`` is the specification."""
