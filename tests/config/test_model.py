"""The structs themselves."""

from __future__ import annotations

import msgspec
import pytest

from mcpx.config.model import Config, Duration
from mcpx.config.schema import structs


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.cls.__name__)
def test_every_section_is_frozen_and_knows_its_keys(kind):
    config = kind.cls.__struct_config__
    assert config.frozen
    assert config.forbid_unknown_fields
    assert config.kw_only if hasattr(config, "kw_only") else True


def test_every_section_is_optional():
    assert msgspec.convert({}, Config) == Config()


def test_two_configurations_share_no_list_that_one_could_change():
    assert Config().servers is not Config().servers


def test_a_duration_is_seconds():
    assert Duration(30) == 30.0
    assert Config().timeouts.total == 600.0
