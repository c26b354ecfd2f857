"""Refusals of single texts as faults."""

from __future__ import annotations

from mcpx.config import forms
from mcpx.config.form_faults import form_faults, list_faults, meant, of_server
from mcpx.config.model import ServerConfig

SERVER = ServerConfig(name="files")


def test_a_text_of_the_right_form_has_no_fault():
    assert list(form_faults(("x",), forms.check_method, "GET")) == []


def test_a_refusal_keeps_its_words_its_hint_and_its_place():
    (fault,) = form_faults(("x", 1), forms.check_method, "a b")
    assert (fault.path, fault.message) == (("x", 1), "is no name of a method")
    assert fault.hint
    (fault,) = form_faults(("x",), forms.check_method, "", SERVER)
    assert fault.message == 'server "files": is no name of a method'


def test_each_text_of_a_list_is_told_with_its_index():
    def use(text):
        if text == "PUT":
            raise ValueError("can't be used")

    faults = list(list_faults(("m",), ["GET", "a b", "PUT"], forms.check_method, use))
    assert [fault.path for fault in faults] == [("m", 1), ("m", 2)]
    assert faults[1].message == "can't be used"


def test_what_has_the_wrong_form_is_not_used():
    def use(text):
        raise AssertionError(text)

    assert len(list(list_faults((), [""], forms.check_method, use))) == 1


def test_the_name_of_a_server_is_quoted():
    assert of_server(ServerConfig(name="a\nb"), "x") == 'server "a\\nb": x'


def test_the_name_that_was_probably_meant_is_told():
    assert meant("fils", ["files", "mail"]) == "did you mean files?"
    assert meant("zzz", ["files", "mail"]) == "known here: files, mail"
    assert meant("zzz", []) == ""
    assert meant("zzz", [f"name{n}" for n in range(50)]).count(",") == 9
