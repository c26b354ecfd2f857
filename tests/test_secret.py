"""A secret shows itself to nobody who does not ask by name."""

import copy
import json
import logging
import pickle
import pprint
import traceback

import msgspec
import pytest

from mcpx.secret import Secret

TEXT = "correct-horse-battery"


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        ascii,
        "{}".format,
        "{:>40}".format,
        "{!r}".format,
        "%s".__mod__,
        "%r".__mod__,
        pprint.pformat,
        lambda secret: str([secret]),
        lambda secret: str({"key": secret}),
        lambda secret: f"{secret}{secret!s}{secret!r}{secret=}",
    ],
)
def test_no_way_of_printing_shows_it(show):
    shown = show(Secret(TEXT))
    assert TEXT not in shown
    assert "***" in shown


@pytest.mark.parametrize("write", [json.dumps, msgspec.json.encode, pickle.dumps, copy.deepcopy])
def test_it_is_not_serialised(write):
    with pytest.raises(TypeError):
        write(Secret(TEXT))


def test_a_log_line_does_not_show_it(caplog):
    logging.getLogger("test").warning("the key is %s", Secret(TEXT))
    assert TEXT not in caplog.text


def test_a_traceback_does_not_show_it():
    try:
        raise ValueError(Secret(TEXT))
    except ValueError as exc:
        assert TEXT not in "".join(traceback.format_exception(exc))


def test_it_is_revealed_to_who_asks():
    assert Secret(TEXT).reveal() == TEXT


def test_secrets_compare_by_their_text_and_to_nothing_else():
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret("other")
    assert Secret(TEXT) != TEXT
    assert Secret("ä") == Secret("ä")
    assert len({Secret(TEXT), Secret(TEXT)}) == 1


def test_its_hash_is_not_that_of_its_text():
    assert hash(Secret(TEXT)) != hash(TEXT)


def test_an_empty_secret_is_false():
    assert not Secret("")
    assert Secret("x")


def test_it_holds_nothing_else():
    assert not hasattr(Secret(TEXT), "__dict__")
    with pytest.raises(AttributeError):
        Secret(TEXT).other = 1
