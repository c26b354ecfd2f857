"""The gateway's writer of pins: nothing waits for it, and it forgets nothing."""

import logging
import os
import shutil
import sqlite3

import pytest
import trio

from mcpx.core.definitions import read_definition
from mcpx.core.integrity import LISTING_NEEDED, Change, Mode, Report, ToolIntegrity
from mcpx.errors import ConfigError
from mcpx.store.pin_file import PinFile
from mcpx.store.pins import PinStore


def tool(name, text="d"):
    return name, b'{"name":"%s","description":"%s"}' % (name.encode(), text.encode())


def definition(text):
    return read_definition(tool("a", text)[1])


def pinned(**tools):
    return Report(pinned={name: definition(text) for name, text in tools.items()})


async def written(store, count):
    """Wait until so many tools were written; the worker is a real thread."""
    with trio.fail_after(20):
        while store.statistics().written < count:
            await trio.lowlevel.checkpoint()


async def failed(store, count):
    with trio.fail_after(20):
        while store.statistics().failures < count:
            await trio.lowlevel.checkpoint()


async def test_what_is_put_is_written_and_lasts(tmp_path, nursery):
    store = PinStore(PinFile(str(tmp_path)), clock=lambda: 7.0)
    await nursery.start(store.run)
    store.put("s", pinned(a="one", b="two"))
    store.put("s", Report(established=True))
    await written(store, 2)
    loaded = await store.reload()
    assert loaded["s"].pins == {"a": definition("one"), "b": definition("two")}
    assert loaded["s"].since == {"a": 7.0, "b": 7.0}
    assert loaded["s"].established


async def test_a_report_without_anything_to_keep_is_not_written(tmp_path):
    store = PinStore(PinFile(str(tmp_path)))
    store.put("s", Report())
    assert store.statistics() == (0, 0, 0, True)
    with trio.move_on_after(0):
        await store.run()


async def test_what_is_left_is_written_when_the_gateway_stops(tmp_path):
    store = PinStore(PinFile(str(tmp_path)))
    with trio.CancelScope() as scope:
        scope.cancel()
        store.put("s", pinned(a="one"))
        await store.run()
    with PinFile(str(tmp_path)) as file:
        assert file.load()["s"].pins == {"a": definition("one")}


async def test_many_reports_of_one_tool_are_one_row_with_the_first_pin_and_the_last_change(
    tmp_path,
):
    store = PinStore(PinFile(str(tmp_path)))
    store.put("s", pinned(a="one"))
    for text in ("x", "y", "z"):
        store.put("s", Report(pending={"a": definition(text)}))
    assert store.statistics().waiting == 1
    loaded = await store.reload()
    assert loaded["s"].pins == {"a": definition("one")}
    assert loaded["s"].pending == {"a": definition("z").digest}
    store.put("s", Report(pending={"a": definition("y")}))
    store.put("s", Report(settled=("a",)))
    assert (await store.reload())["s"].pending == {}
    store.put("s", Report(settled=("a",)))
    store.put("s", Report(pending={"a": definition("y")}))
    assert (await store.reload())["s"].pending == {"a": definition("y").digest}
    with trio.move_on_after(0):
        await store.run()


async def test_a_write_that_fails_is_told_of_and_tried_again_until_it_succeeds(
    tmp_path, nursery, caplog
):
    told = []
    store = PinStore(
        PinFile(str(tmp_path), busy_timeout_s=0.01), failed=told.append, first_pause_s=0.01
    )
    await nursery.start(store.run)
    blocker = sqlite3.connect(tmp_path / "pins.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.INFO, "mcpx.pins"):
        store.put("s", pinned(a="one"))
        await failed(store, 2)
        store.put("s", pinned(b="two"))
        store.put("s", Report(pending={"a": definition("x")}))
        assert not store.statistics().healthy
        with pytest.raises(ConfigError, match="can't be written"):
            await store.reload()
        blocker.close()
        await written(store, 2)
    assert store.statistics().healthy
    assert store.statistics().waiting == 0
    assert len(told) >= 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    loaded = await store.reload()
    assert loaded["s"].pins == {"a": definition("one"), "b": definition("two")}
    assert loaded["s"].pending == {"a": definition("x").digest}


async def test_a_folder_that_vanished_is_made_again(tmp_path, nursery):
    folder = tmp_path / "data"
    store = PinStore(PinFile(str(folder)), first_pause_s=0.01)
    await nursery.start(store.run)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    store.put("s", pinned(a="one"))
    await failed(store, 1)
    os.unlink(folder)
    await written(store, 1)
    assert (await store.reload())["s"].pins == {"a": definition("one")}


async def test_a_reload_in_between_does_not_make_the_writer_miss_what_is_put(tmp_path, nursery):
    store = PinStore(PinFile(str(tmp_path)))
    await nursery.start(store.run)
    for at in range(5):
        await store.reload()
        store.put("s", pinned(**{f"t{at}": "d"}))
        await written(store, at + 1)


async def test_a_mutation_across_a_restart_is_refused_until_it_is_approved(tmp_path):
    store = PinStore(PinFile(str(tmp_path)))
    state = ToolIntegrity("s", Mode.ENFORCE)
    store.put("s", state.observe([tool("a", "one"), tool("b")], 1.0))
    with trio.move_on_after(0):
        await store.run()

    file = PinFile(str(tmp_path))
    store = PinStore(file)
    state = ToolIntegrity("s", Mode.ENFORCE, baseline=file.load()["s"])
    assert state.decide_call("a", 2.0) == LISTING_NEEDED
    report = state.observe([tool("a", "evil"), tool("b"), tool("c")], 2.0)
    assert {finding.change for finding in report.findings} == {Change.CHANGED, Change.ADDED}
    assert "rug-pull" in state.decide_call("a", 2.0)
    store.put("s", report)
    await store.reload()

    with PinFile(str(tmp_path), create=False) as command:
        (changed,) = [pin for pin in command.list() if pin.pending]
        assert (changed.tool, changed.pending) == ("a", definition("evil"))
        assert command.approve("s", "a", 3.0, digest=changed.pending.digest)
    state.replace((await store.reload())["s"])
    report = state.observe([tool("a", "evil"), tool("b"), tool("c")], 4.0)
    assert report.findings == ()
    assert state.decide_call("a", 4.0) is None
    with trio.move_on_after(0):
        await store.run()


async def test_what_is_seen_while_the_file_is_read_is_not_forgotten_by_a_reload(tmp_path, nursery):
    file = PinFile(str(tmp_path))
    store = PinStore(file, clock=lambda: 7.0)
    store.put("s", pinned(a="one", b="two"))
    store.put("s", Report(pending={"b": definition("three")}, established=True))
    await store._write()
    load = file.load

    def slowly():
        found = load()
        trio.from_thread.run_sync(store.put, "s", pinned(a="late", c="new"))
        trio.from_thread.run_sync(store.put, "s", Report(settled=("b",)))
        trio.from_thread.run_sync(store.put, "t", Report(pending={"d": definition("other")}))
        trio.from_thread.run_sync(store.put, "u", Report(established=True))
        return found

    file.load = slowly
    loaded = await store.reload()
    assert loaded["s"].pins == {"a": definition("one"), "b": definition("two"),
                                "c": definition("new")}  # fmt: skip
    assert loaded["s"].since["c"] == 7.0
    assert loaded["s"].pending == {}
    assert loaded["t"].pending == {"d": definition("other").digest}
    assert not loaded["t"].established
    assert loaded["u"].established
    # The same, once it is written.
    del file.load
    again = await store.reload()
    assert {name: each.pins for name, each in again.items()} == {
        name: each.pins for name, each in loaded.items()}  # fmt: skip
    assert again["s"].pending == {}
    store.close()
