"""Sealed session ids: theirs alone, in one spelling, with no table."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mcpx.core.sessions import LONGEST_SEALED_ID, SessionSealer, key_from_secret
from mcpx.errors import RemoteProtocolError
from mcpx.secret import Secret

SEALER = SessionSealer(b"k" * 32)
VISIBLE = bytes(range(0x21, 0x7F))

upstream_ids = st.lists(st.sampled_from(VISIBLE), min_size=1, max_size=80).map(bytes)
names = st.text(max_size=20)


@given(upstream_id=upstream_ids, principal=names, endpoint=names)
@example(upstream_id=b"a.b..", principal="", endpoint="\ud800")
def test_what_was_sealed_opens_for_the_same_principal_and_endpoint(
    upstream_id, principal, endpoint
):
    sealed = SEALER.seal(upstream_id, principal, endpoint)
    assert SEALER.open(sealed, principal, endpoint) == upstream_id
    assert not sealed.translate(None, VISIBLE)
    assert len(sealed) <= LONGEST_SEALED_ID


@given(upstream_id=upstream_ids, place=st.integers(0, 200), letter=st.integers(0, 255))
def test_no_character_of_a_sealed_id_can_be_changed(upstream_id, place, letter):
    sealed = bytearray(SEALER.seal(upstream_id, "alice", "files"))
    place %= len(sealed)
    assume(sealed[place] != letter)
    sealed[place] = letter
    assert SEALER.open(bytes(sealed), "alice", "files") is None


def test_the_mac_has_one_spelling_though_its_last_letter_has_spare_bits():
    sealed = SEALER.seal(b"id", "alice", "files")
    mac = base64.urlsafe_b64decode(sealed[-22:] + b"==")
    letters = (string.ascii_letters + string.digits + "-_").encode()
    same = [
        sealed[:-1] + bytes([letter])
        for letter in letters
        if base64.urlsafe_b64decode(sealed[-22:-1] + bytes([letter]) + b"==") == mac
    ]
    assert len(same) == 16
    assert [one for one in same if SEALER.open(one, "alice", "files")] == [sealed]


@given(upstream_ids, names, names, names, names)
def test_another_principal_or_endpoint_can_not_open_it(upstream_id, who, where, who2, where2):
    assume((who, where) != (who2, where2))
    assert SEALER.open(SEALER.seal(upstream_id, who, where), who2, where2) is None


@given(text=st.text(alphabet="ab", min_size=3, max_size=8), cuts=st.data())
def test_the_same_letters_cut_elsewhere_are_another_session(text, cuts):
    first = sorted(cuts.draw(st.tuples(*[st.integers(0, len(text) - 1)] * 2)))
    second = sorted(cuts.draw(st.tuples(*[st.integers(0, len(text) - 1)] * 2)))
    assume(first != second)
    who, where, upstream_id = text[: first[0]], text[first[0] : first[1]], text[first[1] :]
    other = text[: second[0]], text[second[0] : second[1]], text[second[1] :]
    mac = SEALER.seal(upstream_id.encode(), who, where)[-22:]
    assert SEALER.open(other[2].encode() + b"." + mac, other[0], other[1]) is None


@given(sealed=st.binary(max_size=700))
@example(sealed=b"")
@example(sealed=b"." + b"A" * 22)
@example(sealed=b"id")
def test_anything_else_opens_to_nothing(sealed):
    assert SEALER.open(sealed, "alice", "files") is None


def test_another_key_opens_nothing_and_the_same_key_opens_after_a_restart():
    secret = Secret("a long enough secret of 32 chars.")
    sealed = SessionSealer(key_from_secret(secret)).seal(b"id", "alice", "files")
    assert SessionSealer(key_from_secret(secret)).open(sealed, "alice", "files") == b"id"
    other = SessionSealer(key_from_secret(Secret("b long enough secret of 32 chars.")))
    assert other.open(sealed, "alice", "files") is None


@pytest.mark.parametrize(
    "upstream_id", [b"", b"with blank", b"new\nline", b"\x7f", b"\xc3\xa9", b"nul\0", b"x" * 513]
)
def test_an_upstream_id_that_the_specification_forbids_is_the_servers_fault(upstream_id):
    with pytest.raises(RemoteProtocolError) as caught:
        SEALER.seal(upstream_id, "alice", "files")
    assert caught.value.status == 502
    assert len(str(caught.value)) < 100


def test_the_longest_upstream_id_is_sealed_and_opened():
    sealed = SEALER.seal(b"x" * 512, "alice", "files")
    assert len(sealed) == LONGEST_SEALED_ID
    assert SEALER.open(sealed, "alice", "files") == b"x" * 512


@pytest.mark.parametrize("length", [0, 31, 65])
def test_a_key_of_a_wrong_length_is_refused(length):
    with pytest.raises(ValueError, match="32 to 64 bytes"):
        SessionSealer(b"k" * length)


def test_a_short_secret_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="32 or more") as caught:
        key_from_secret(Secret("short-secret"))
    assert "short-secret" not in str(caught.value)
