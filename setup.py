"""The build's hook; everything that can be said without code is in pyproject.toml."""

from setuptools import setup

setup()
