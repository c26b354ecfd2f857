"""The file of pins: what it keeps, who may change it, and which files it refuses."""

import contextlib
import os
import sqlite3
import stat
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.definitions import ANY, read_definition
from mcpx.errors import ConfigError
from mcpx.store.pin_file import FILE_NAME, Change, PendingChanged, PinFile


def definition(text):
    return read_definition(b'{"d":"%s"}' % text.encode())


ONE, TWO, THREE = (definition(text) for text in ("one", "two", "three"))


def change(at=1.0, *, pinned=None, pending=None, settled=False):
    made = Change(at)
    made.pinned, made.pending, made.settled = pinned, pending, settled
    return made


@pytest.fixture
def opened(tmp_path):
    with PinFile(str(tmp_path / "data")) as file:
        yield file


def problem(data_dir, **options):
    with pytest.raises(ConfigError) as caught:
        PinFile(str(data_dir), **options)
    return str(caught.value)


def test_pins_last_across_a_restart(tmp_path):
    with PinFile(str(tmp_path)) as file:
        file.write(
            {
                ("s", "a"): change(1.0, pinned=ONE),
                ("s", "b"): change(2.0, pinned=ONE, pending=TWO),
                ("t", "a"): change(3.0, pinned=THREE),
            },
            {"s": 4.0},
        )
    with PinFile(str(tmp_path)) as file:
        loaded = file.load()
        assert loaded["s"] == ({"a": ONE, "b": ONE}, {"a": 1.0, "b": 2.0}, True, {"b": TWO.digest})
        assert loaded["t"] == ({"a": THREE}, {"a": 3.0}, False, {})
        assert file.list("s")[1] == ("s", "b", ONE, TWO, 2.0, 2.0, 2.0)
        assert [pin.server for pin in file.list()] == ["s", "s", "t"]


def test_a_pin_is_never_replaced_by_writing(opened):
    opened.write({("s", "a"): change(1.0, pinned=ONE)}, {})
    opened.write({("s", "a"): change(2.0, pinned=TWO)}, {})
    assert opened.load()["s"].pins == {"a": ONE}


def test_writing_again_changes_nothing(opened):
    batch = {("s", "a"): change(1.0, pinned=ONE, pending=TWO), ("s", "b"): change(1.0, pending=ONE)}
    opened.write(batch, {"s": 1.0})
    before = opened.list()
    opened.write(batch, {"s": 9.0})
    assert opened.list() == before


def test_approving_pins_what_waits(opened):
    opened.write({("s", "a"): change(1.0, pinned=ONE, pending=TWO)}, {})
    assert opened.approve("s", "a", 5.0)
    assert opened.list() == [("s", "a", TWO, None, 1.0, 5.0, 1.0)]
    assert not opened.approve("s", "a", 6.0)
    assert not opened.approve("s", "never seen", 6.0)


def test_approving_what_was_looked_at_refuses_what_came_after_it(opened):
    opened.write({("s", "a"): change(1.0, pinned=ONE, pending=TWO)}, {})
    opened.write({("s", "a"): change(2.0, pending=THREE)}, {})
    with pytest.raises(PendingChanged, match="again"):
        opened.approve("s", "a", 5.0, digest=TWO.digest)
    assert opened.load()["s"].pins == {"a": ONE}
    assert opened.approve("s", "a", 5.0, digest=THREE.digest)


def test_a_tool_that_was_never_approved_is_not_pinned_until_it_is(opened):
    opened.write({("s", "new"): change(1.0, pending=ONE)}, {"s": 0.0})
    assert opened.load()["s"] == ({}, {"new": 1.0}, True, {"new": ONE.digest})
    assert opened.approve("s", "new", 2.0)
    assert opened.load()["s"].pins == {"new": ONE}


def test_what_has_settled_waits_no_more(opened):
    opened.write({("s", "a"): change(1.0, pinned=ONE, pending=TWO)}, {})
    opened.write({("s", "a"): change(2.0, settled=True)}, {})
    assert opened.list() == [("s", "a", ONE, None, 1.0, 1.0, 1.0)]


def test_a_reset_of_a_tool_pins_what_is_seen_next(opened):
    opened.write({("s", "a"): change(1.0, pinned=ONE, pending=TWO)}, {"s": 1.0})
    assert opened.reset("s", "a") == 1
    assert opened.load()["s"] == ({"a": ANY}, {"a": 1.0}, True, {})
    opened.write({("s", "a"): change(2.0, pinned=THREE)}, {})
    assert opened.load()["s"].pins == {"a": THREE}
    assert opened.reset("s", "never seen") == 0


def test_a_reset_of_a_server_or_of_all_forgets_their_baselines(opened):
    for server in "stu":
        opened.write(
            {(server, "a"): change(pinned=ONE), (server, "b"): change(pinned=ONE)}, {server: 1.0}
        )
    assert opened.reset("s") == 2
    assert set(opened.load()) == {"t", "u"}
    assert opened.reset() == 4
    assert opened.load() == {}
    with pytest.raises(ValueError):
        opened.reset(None, "a")


def test_names_are_data(opened):
    names = ["'; DROP TABLE pins; --", "a\x00b", "a", "", "%", "ß", "😀" * 100]
    opened.write({("s", name): change(pinned=ONE) for name in names}, {})
    assert set(opened.load()["s"].pins) == set(names)
    assert opened.reset("s", "a\x00b") == 1


def test_only_the_owner_can_read_the_file_and_its_folder(tmp_path):
    with PinFile(str(tmp_path / "x" / "data")) as file:
        file.write({("s", "a"): change(pinned=ONE)}, {})
        assert stat.S_IMODE(os.stat(tmp_path / "x" / "data").st_mode) == 0o700
        for name in os.listdir(tmp_path / "x" / "data"):
            assert stat.S_IMODE(os.stat(tmp_path / "x" / "data" / name).st_mode) == 0o600
    os.chmod(file.path, 0o666)
    PinFile(str(tmp_path / "x" / "data")).close()
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600


def test_a_folder_that_everyone_may_write_to_is_refused(tmp_path):
    os.chmod(tmp_path, 0o1777)
    assert "everyone may write" in problem(tmp_path)


@pytest.mark.parametrize(
    "text", [b"this is no database, of course" * 50, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path, text):
    (tmp_path / FILE_NAME).write_bytes(text)
    assert "damaged" in problem(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == text


def test_a_damaged_page_is_refused(tmp_path):
    with PinFile(str(tmp_path)) as file:
        file.write({("s", f"t{n}"): change(pinned=definition("x" * n)) for n in range(500)}, {})
    text = bytearray((tmp_path / FILE_NAME).read_bytes())
    text[4096 * 3 : 4096 * 6] = b"\xaa" * 4096 * 3
    (tmp_path / FILE_NAME).write_bytes(text)
    assert "damaged" in problem(tmp_path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pins SET definition = x'7b7d'",
        "UPDATE pins SET digest = x'00'",
        "UPDATE pins SET digest = 'text'",
        "UPDATE pins SET definition = NULL",
        "UPDATE pins SET pending_digest = digest, pending_definition = x'00'",
        "UPDATE pins SET tool = x'ff00'",
        "UPDATE pins SET tool = CAST(x'ff' AS TEXT)",
        "UPDATE pins SET first_seen = 'yesterday'",
        "DROP TABLE servers",
        "ALTER TABLE pins DROP COLUMN last_changed",
    ],
)
def test_a_file_edited_by_hand_is_not_trusted(tmp_path, statement):
    with PinFile(str(tmp_path)) as file:
        file.write({("s", "a"): change(pinned=ONE)}, {})
    db = sqlite3.connect(file.path)
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(ConfigError, match="damaged"), PinFile(str(tmp_path)) as file:
        file.load()


def test_another_programs_database_and_a_newer_version_are_refused(tmp_path):
    for folder, statement, wanted in (
        ("a", "CREATE TABLE bookmarks (url)", "another program"),
        ("b", "PRAGMA application_id = 77", "another program"),
        ("c", None, "newer version"),
    ):
        (tmp_path / folder).mkdir()
        if statement is None:
            PinFile(str(tmp_path / folder)).close()
            statement = "PRAGMA user_version = 99"
        db = sqlite3.connect(tmp_path / folder / FILE_NAME)
        db.execute(statement)
        db.commit()
        db.close()
        assert wanted in problem(tmp_path / folder)


def test_a_locked_file_is_told_of_after_the_timeout(tmp_path):
    PinFile(str(tmp_path)).close()
    db = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    assert "locked by another process" in problem(tmp_path, busy_timeout_s=0.01)
    db.close()
    PinFile(str(tmp_path)).close()


def test_a_data_dir_that_cant_be_made_is_told_of(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "can't be made" in problem(tmp_path / "file" / "data")
    (tmp_path / FILE_NAME).mkdir()
    assert "no regular file" in problem(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    assert "no regular file" in problem(tmp_path / "data")
    assert not (tmp_path / "elsewhere").exists()


@contextlib.contextmanager
def somebody_to_whom_permissions_apply():
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_may_not_be_written_is_refused():
    with somebody_to_whom_permissions_apply(), tempfile.TemporaryDirectory() as folder:
        PinFile(folder).close()
        os.chmod(os.path.join(folder, FILE_NAME), 0o400)
        assert "can't be written to" in problem(folder)
        os.chmod(folder, 0o500)
        assert "can't be written to" in problem(folder)
        os.chmod(os.path.join(folder, FILE_NAME), 0o000)
        assert "can't be" in problem(folder)
        os.chmod(folder, 0o700)


def test_looking_at_pins_makes_no_file(tmp_path):
    assert "no pins are kept" in problem(tmp_path / "data", create=False)
    assert not (tmp_path / "data").exists()


def test_two_processes_see_each_others_changes(tmp_path):
    with PinFile(str(tmp_path)) as gateway, PinFile(str(tmp_path), create=False) as command:
        gateway.write({("s", "a"): change(pinned=ONE, pending=TWO)}, {"s": 1.0})
        assert command.approve("s", "a", 2.0)
        assert gateway.load()["s"].pins == {"a": TWO}
        command.reset()
        assert gateway.load() == {}
        gateway.write({("s", "a"): change(pinned=ONE)}, {})
        assert len(command.list()) == 1


def test_a_file_that_was_moved_away_is_made_anew(tmp_path):
    with PinFile(str(tmp_path)) as file:
        file.write({("s", "a"): change(pinned=ONE)}, {})
        for name in os.listdir(tmp_path):
            os.rename(tmp_path / name, tmp_path / f"old-{name}")
        file.write({("s", "b"): change(pinned=ONE)}, {})
        assert file.load()["s"].pins == {"b": ONE}


def test_the_number_of_pins_is_bounded(tmp_path):
    with PinFile(str(tmp_path), max_pins=3) as file:
        file.write({("s", f"t{n}"): change(pinned=ONE) for n in range(5)}, {})
        file.write({("s", "t0"): change(pending=TWO)}, {})
        assert (len(file.list()), file.left_out) == (3, 2)
        assert file.load()["s"].pending == {"t0": TWO.digest}
    with (
        PinFile(str(tmp_path), max_pins=2) as file,
        pytest.raises(ConfigError, match="more than 2"),
    ):
        file.load()


def test_definitions_past_the_bound_are_loaded_as_digests(tmp_path):
    with PinFile(str(tmp_path), max_loaded_bytes=len(ONE.canonical)) as file:
        file.write({("s", "a"): change(1.0, pinned=ONE), ("s", "b"): change(2.0, pinned=TWO)}, {})
        pins = file.load()["s"].pins
    assert pins["a"] == ONE
    assert (pins["b"].digest, pins["b"].canonical) == (TWO.digest, b"")


STEP = st.tuples(
    st.sampled_from(["pin", "pend", "settle", "approve", "reset", "forget", "reopen"]),
    st.sampled_from("ab"),
    st.sampled_from([ONE, TWO, THREE]),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_the_file_behaves_as_a_table_in_memory(steps):
    pins, pending = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        file = PinFile(folder)
        for at, (step, tool, what) in enumerate(steps, 1):
            if step == "pin":
                file.write({("s", tool): change(float(at), pinned=what)}, {})
                if pins.get(tool, ANY) == ANY:
                    pins[tool] = what
                    pending.pop(tool, None)
            elif step == "pend":
                file.write({("s", tool): change(float(at), pending=what)}, {})
                pending[tool] = what
            elif step == "settle":
                file.write({("s", tool): change(float(at), settled=True)}, {})
                if tool in pins:
                    pending.pop(tool, None)
            elif step == "approve":
                assert file.approve("s", tool, float(at)) == (tool in pending)
                if tool in pending:
                    pins[tool] = pending.pop(tool)
            elif step == "reset":
                if file.reset("s", tool):
                    assert tool in pins or tool in pending
                    pins[tool] = ANY
                    pending.pop(tool, None)
            elif step == "forget":
                file.reset("s")
                pins, pending = {}, {}
            else:
                file.close()
                file = PinFile(folder)
            found = file.load().get("s")
            assert (found.pins if found else {}) == pins
            assert (found.pending if found else {}) == {
                name: held.digest for name, held in pending.items()
            }
        file.close()
