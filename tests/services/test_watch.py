import os

import pytest
import trio
import trio.testing

from mcpx.services.watch import ConfigWatcher


class Watched:
    """A watcher under a clock that only the test moves."""

    def __init__(self, path, clock, nursery, **more):
        self.path = path
        self.clock = clock
        self.nursery = nursery
        self.seen = []
        self.fail = False
        self.watcher = ConfigWatcher(str(path), 2.0, self.changed, **more)
        self.reads = 0
        read = self.watcher._read

        async def counted():
            result = await read()
            self.reads += 1
            return result

        self.watcher._read = counted

    async def changed(self):
        self.seen.append(self.path.read_bytes())
        if self.fail:
            raise RuntimeError("a bug")

    async def start(self):
        await self.nursery.start(self.watcher.run)
        return self

    async def look(self, times=1):
        """Let the watcher read so many times."""
        for _ in range(times):
            target = self.reads + 1
            await trio.testing.wait_all_tasks_blocked()
            self.clock.jump(2.0)
            with trio.fail_after(1000):
                while self.reads < target:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_bytes(b"listen: :1\n")
    return path


async def test_a_file_that_stays_is_no_change(path, mock_clock, nursery):
    watched = await Watched(path, mock_clock, nursery).start()
    await watched.look(3)
    os.utime(path, (1, 1))
    await watched.look(3)
    assert watched.seen == []


async def test_an_edit_that_keeps_size_and_time_is_seen_once(path, mock_clock, nursery):
    watched = await Watched(path, mock_clock, nursery).start()
    before = path.stat()
    path.write_bytes(b"listen: :2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await watched.look(5)
    assert watched.seen == [b"listen: :2\n"]


async def test_a_change_counts_once_two_reads_agree(path, mock_clock, nursery):
    watched = await Watched(path, mock_clock, nursery).start()
    path.write_bytes(b"policy:\n  allow_tools: [a]\n")
    await watched.look()
    assert watched.seen == []
    path.write_bytes(b"policy:\n  allow_tools: [a]\n  deny_tools: [b]\n")
    await watched.look()
    assert watched.seen == []
    await watched.look()
    assert watched.seen == [b"policy:\n  allow_tools: [a]\n  deny_tools: [b]\n"]


async def test_a_change_that_is_taken_back_is_none(path, mock_clock, nursery):
    watched = await Watched(path, mock_clock, nursery).start()
    path.write_bytes(b"half")
    await watched.look()
    path.write_bytes(b"listen: :1\n")
    await watched.look(3)
    assert watched.seen == []


async def test_an_atomic_replacement_and_a_link_that_points_elsewhere_are_seen(
    tmp_path, mock_clock, nursery
):
    for name, text in (("one", b"a: 1\n"), ("two", b"a: 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mcpx.yaml").write_bytes(text)
    link = tmp_path / "data"
    link.symlink_to("one")
    watched = await Watched(tmp_path / "data" / "mcpx.yaml", mock_clock, nursery).start()
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(link)
    await watched.look(3)
    assert watched.seen == [b"a: 2\n"]


@pytest.mark.parametrize("harm", ["gone", "empty", "folder", "fifo", "large"])
async def test_what_can_not_be_a_configuration_is_told_once_and_is_no_change(
    path, mock_clock, nursery, caplog, harm
):
    watched = await Watched(path, mock_clock, nursery).start()
    path.unlink()
    if harm == "empty":
        path.write_bytes(b"\n")
    elif harm == "folder":
        path.mkdir()
    elif harm == "fifo":
        os.mkfifo(path)
    elif harm == "large":
        with path.open("wb") as file:
            file.truncate(17 * 1024 * 1024)
    await watched.look(4)
    assert watched.seen == []
    assert len(caplog.records) == 1
    path.rmdir() if harm == "folder" else path.unlink(missing_ok=True)
    path.write_bytes(b"listen: :1\n")
    await watched.look(3)
    assert watched.seen == []
    path.write_bytes(b"listen: :9\n")
    await watched.look(3)
    assert watched.seen == [b"listen: :9\n"]


async def test_what_is_in_force_may_differ_from_the_first_read(path, mock_clock, nursery):
    watched = await Watched(path, mock_clock, nursery, loaded=b"listen: :0\n").start()
    await watched.look(3)
    assert watched.seen == [b"listen: :1\n"]


async def test_a_reload_that_raises_does_not_end_the_watch(path, mock_clock, nursery, caplog):
    watched = await Watched(path, mock_clock, nursery).start()
    watched.fail = True
    path.write_bytes(b"a: 1\n")
    await watched.look(4)
    assert watched.seen == [b"a: 1\n"]
    path.write_bytes(b"a: 2\n")
    await watched.look(3)
    assert watched.seen == [b"a: 1\n", b"a: 2\n"]


async def test_an_interval_of_nothing_means_two_seconds(path, mock_clock, nursery):
    changes = []

    async def changed():
        changes.append(1)

    watcher = ConfigWatcher(str(path), 0, changed)
    assert watcher._interval_s == 2.0
    assert ConfigWatcher(str(path), -1, changed)._interval_s == 2.0
