import errno
import os
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.model import AuditConfig
from mcpx.services import audit_sink
from mcpx.services.audit_sink import DescriptorSink, FileSink, sink_for


def sink_at(path, max_bytes=0, keep=3, **more):
    return FileSink(str(path), max_bytes=max_bytes, keep=keep, **more)


def write_all(sink, lines):
    """As the audit log does: what is taken is not given again. Gives the errors met."""
    errors = []
    left = list(lines)
    for _ in range(10_000):
        written = sink.write(left)
        del left[: written.lines]
        if written.error is not None:
            errors.append(written.error)
        if not left and not sink.torn:
            return errors
    raise AssertionError("the sink never took everything")


def numbered(count, width=20):
    return [f"{n:0{width}d}\n".encode() for n in range(count)]


def test_the_file_and_its_folders_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "a" / "b" / "audit.log"
    old = os.umask(0)
    try:
        sink = sink_at(path)
        sink.open()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    sink.close()


def test_lines_are_appended_to_what_is_there(tmp_path):
    path = tmp_path / "audit.log"
    path.write_bytes(b"old\n")
    sink = sink_at(path)
    assert sink.write([b"new\n"]) == (1, None)
    sink.close()
    assert path.read_bytes() == b"old\nnew\n"


def test_half_a_line_of_a_process_that_died_is_ended_first(tmp_path):
    path = tmp_path / "audit.log"
    path.write_bytes(b"whole\nhal")
    sink = sink_at(path)
    sink.write([b"new\n"])
    sink.close()
    assert path.read_bytes() == b"whole\nhal\nnew\n"


def test_a_symbolic_link_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"")
    link = tmp_path / "audit.log"
    link.symlink_to(target)
    sink = sink_at(link)
    with pytest.raises(OSError, match="symbolic link"):
        sink.open()
    written = sink.write([b"x\n"])
    assert written.lines == 0
    assert written.error.errno == errno.ELOOP
    assert target.read_bytes() == b""


def test_a_file_that_was_moved_or_removed_is_opened_anew(tmp_path):
    path = tmp_path / "audit.log"
    sink = sink_at(path)
    sink.write([b"one\n"])
    path.rename(tmp_path / "moved")
    sink.write([b"two\n"])
    path.unlink()
    sink.write([b"three\n"])
    sink.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


def test_a_rotation_keeps_exactly_as_many_files_as_asked(tmp_path):
    path = tmp_path / "audit.log"
    sink = sink_at(path, max_bytes=100, keep=3)
    write_all(sink, numbered(100))
    sink.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "audit.log", "audit.log.1", "audit.log.2", "audit.log.3",
    ]  # fmt: skip
    newest_first = [path, *(tmp_path / f"audit.log.{n}" for n in (1, 2, 3))]
    lines = b"".join(p.read_bytes() for p in reversed(newest_first)).splitlines(keepends=True)
    assert lines == numbered(100)[-len(lines) :]
    assert all(p.stat().st_size <= 100 for p in newest_first)


def test_keeping_none_begins_the_file_anew(tmp_path):
    path = tmp_path / "audit.log"
    sink = sink_at(path, max_bytes=100, keep=0)
    write_all(sink, numbered(9))
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["audit.log"]
    assert path.read_bytes() == numbered(9)[-1]


def test_keeping_fewer_than_before_removes_the_rest_and_nothing_else(tmp_path):
    path = tmp_path / "audit.log"
    for n in range(1, 6):
        (tmp_path / f"audit.log.{n}").write_bytes(b"%d\n" % n)
    (tmp_path / "audit.log.20240101").write_bytes(b"mine\n")
    sink = sink_at(path, max_bytes=30, keep=2)
    write_all(sink, numbered(2))
    sink.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "audit.log", "audit.log.1", "audit.log.2", "audit.log.20240101",
    ]  # fmt: skip


def test_the_size_counts_what_was_there_before_the_start(tmp_path):
    path = tmp_path / "audit.log"
    path.write_bytes(b"x" * 89 + b"\n")
    sink = sink_at(path, max_bytes=100, keep=1)
    sink.write(numbered(1))
    sink.close()
    assert (tmp_path / "audit.log.1").stat().st_size == 90
    assert path.read_bytes() == numbered(1)[0]


def test_a_line_longer_than_a_file_may_be_gets_a_file_of_its_own(tmp_path):
    path = tmp_path / "audit.log"
    long = b"y" * 500 + b"\n"
    sink = sink_at(path, max_bytes=100, keep=5)
    write_all(sink, [b"a\n", long, b"b\n"])
    sink.close()
    assert (tmp_path / "audit.log.2").read_bytes() == b"a\n"
    assert (tmp_path / "audit.log.1").read_bytes() == long
    assert path.read_bytes() == b"b\n"


def test_without_a_bound_nothing_is_rotated(tmp_path):
    sink = sink_at(tmp_path / "audit.log", max_bytes=0, keep=3)
    write_all(sink, numbered(5000))
    sink.close()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_rotation_that_fails_is_told_and_the_lines_are_written_all_the_same(tmp_path):
    path = tmp_path / "audit.log"
    (tmp_path / "audit.log.1").mkdir()
    (tmp_path / "audit.log.1" / "in the way").write_bytes(b"")
    sink = sink_at(path, max_bytes=100, keep=1)
    written = sink.write(numbered(20))
    assert written.lines == 20
    assert isinstance(written.error, OSError)
    assert path.read_bytes() == b"".join(numbered(20))
    sink.close()


def test_two_writers_of_one_file_lose_and_tear_nothing(tmp_path):
    path = tmp_path / "audit.log"

    def write(name):
        sink = sink_at(path, max_bytes=2000, keep=100)
        for n in range(300):
            write_all(sink, [f"{name}-{n:05d}\n".encode()])
        sink.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = b"".join(p.read_bytes() for p in tmp_path.iterdir()).splitlines()
    assert sorted(lines) == sorted(f"{name}-{n:05d}".encode() for name in "ab" for n in range(300))


class Faults:
    """Stands in for os.write: each call writes at most as many bytes as the plan says."""

    def __init__(self, plan):
        self.plan = list(plan)
        self.real = os.write

    def __call__(self, fd, data):
        if not self.plan:
            return self.real(fd, data)
        step = self.plan.pop(0)
        if isinstance(step, int):
            return self.real(fd, bytes(data)[:step]) if step else 0
        raise step


faults = st.lists(
    st.integers(0, 60)
    | st.sampled_from([OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "io"), BlockingIOError()]),
    max_size=30,
)


@given(
    plan=faults,
    widths=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    max_bytes=st.sampled_from([0, 40, 100]),
)
@settings(max_examples=150)
def test_whatever_becomes_of_each_write_every_line_is_there_once_and_whole(
    tmp_path_factory, plan, widths, max_bytes
):
    folder = tmp_path_factory.mktemp("sink")
    sink = sink_at(folder / "audit.log", max_bytes=max_bytes, keep=100)
    lines = [f"{n:0{width}d}\n".encode() for n, width in enumerate(widths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_sink.os, "write", Faults(plan))
        write_all(sink, lines)
    sink.close()
    files = sorted(
        folder.iterdir(), key=lambda p: int(p.suffix[1:]) if p.suffix[1:].isdigit() else 0
    )
    found = [line for p in reversed(files) for line in p.read_bytes().splitlines(keepends=True)]
    assert found == lines
    assert all(p.read_bytes().endswith(b"\n") for p in files)


def test_a_line_that_was_cut_is_written_whole_when_its_file_was_taken_away(tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    sink = sink_at(path)
    monkeypatch.setattr(audit_sink.os, "write", Faults([4, OSError(errno.ENOSPC, "full")]))
    written = sink.write([b"0123456789\n"])
    assert written.lines == 1
    assert written.error.errno == errno.ENOSPC
    assert sink.torn
    path.unlink()
    assert sink.write([]) == (0, None)
    assert not sink.torn
    assert path.read_bytes() == b"0123456789\n"
    sink.close()


def test_a_full_device_takes_nothing_and_says_so():
    if not os.path.exists("/dev/full"):  # not on every system
        return
    sink = FileSink("/dev/full", max_bytes=100, keep=1)
    written = sink.write([b"x\n"])
    assert written.lines == 0
    assert written.error.errno == errno.ENOSPC
    sink.close()


def test_a_pipe_that_nobody_reads_does_not_hold_the_thread():
    reader, writer = os.pipe()
    try:
        sink = DescriptorSink(writer, stall_s=0.01)
        lines = numbered(20_000)
        written = sink.write(lines)
        assert isinstance(written.error, TimeoutError)
        assert 0 < written.lines < len(lines)
        os.set_blocking(reader, False)
        collected = bytearray()
        left = lines[written.lines :]
        while left or sink.torn:
            try:
                collected += os.read(reader, 1 << 20)
            except BlockingIOError:
                pass
            written = sink.write(left)
            del left[: written.lines]
        while True:
            try:
                collected += os.read(reader, 1 << 20)
            except BlockingIOError:
                break
        assert bytes(collected) == b"".join(lines)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_call_ends_when_its_time_is_over_however_slow_the_reader():
    reader, writer = os.pipe()
    try:
        sink = DescriptorSink(writer, budget_s=0.0)
        written = sink.write([b"x" * 20_000 + b"\n", b"y\n"])
        assert written == (1, None)
        assert sink.torn
        assert len(os.read(reader, 100_000)) == audit_sink.PIPE_PIECE_BYTES
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_whose_reader_has_gone_is_an_error_and_not_a_signal():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        written = DescriptorSink(writer).write([b"x\n"])
        assert written.lines == 0
        assert isinstance(written.error, BrokenPipeError)
    finally:
        os.close(writer)


def test_short_lines_go_into_a_pipe_in_pieces_of_whole_lines(monkeypatch):
    reader, writer = os.pipe()
    pieces = []
    real = os.write

    def spy(fd, data):
        pieces.append(bytes(data))
        return real(fd, data)

    monkeypatch.setattr(audit_sink.os, "write", spy)
    try:
        assert DescriptorSink(writer).write(numbered(1000)) == (1000, None)
    finally:
        os.close(reader)
        os.close(writer)
    assert all(
        piece.endswith(b"\n") and len(piece) <= audit_sink.PIPE_PIECE_BYTES for piece in pieces
    )


def test_a_fifo_without_a_reader_is_an_error_and_not_a_wait(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    written = sink_at(path).write([b"x\n"])
    assert written.lines == 0
    assert written.error.errno == errno.ENXIO


def test_a_descriptor_that_is_not_open_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    sink = DescriptorSink(writer)
    with pytest.raises(OSError):
        sink.open()
    assert sink.write([b"x\n"]).error.errno == errno.EBADF


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        sink_at(tmp_path / "file" / "audit.log").open()


def test_the_configuration_names_the_sink(tmp_path):
    assert isinstance(sink_for(AuditConfig(output="file", path=str(tmp_path / "x"))), FileSink)
    for output in ("stdout", "stderr", "json", ""):
        assert isinstance(sink_for(AuditConfig(output=output)), DescriptorSink)
    with pytest.raises(ValueError, match="audit.path"):
        sink_for(AuditConfig(output="file"))
