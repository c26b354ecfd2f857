import errno
import json
import logging
import threading

import pytest
import trio
import trio.testing

from mcpx.config.model import AuditConfig, RedactConfig
from mcpx.errors import ConfigError
from mcpx.services.audit import AuditLog, AuditRecord
from mcpx.services.audit_sink import FileSink, Written

FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


def record(n=0, **fields):
    return AuditRecord(
        **{"time": 0.0, "request_id": f"r{n}", "status": 200, "outcome": "ok", **fields}
    )


class Memory:
    """A sink that keeps its lines, and fails or stalls when told to."""

    def __init__(self):
        self.lines = []
        self.calls = []
        self.error = None
        self.at_most = 1 << 30
        self.closed = False
        self.torn = False
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def open(self):
        pass

    def write(self, lines):
        self.threads.add(threading.get_ident())
        self.gate.wait(30)
        self.calls.append(len(lines))
        if self.error is not None:
            return Written(0, self.error)
        self.lines += [json.loads(line) for line in lines[: self.at_most]]
        return Written(min(len(lines), self.at_most), None)

    def close(self):
        self.closed = True

    @property
    def ids(self):
        return [line["request_id"] for line in self.lines if line["msg"] == "mcp.request"]

    @property
    def told_lost(self):
        return sum(line["count"] for line in self.lines if line["msg"] == "audit.lost")


class Counter:
    def __init__(self):
        self.lost = 0
        self.queue = None

    def audit_lost(self, count):
        self.lost += count

    def count_audit_queue(self, length):
        self.queue = length


def log_of(sink, *, queue=100, on_full="block", **more):
    more = {"flush_interval_s": 0, "first_pause_s": 0.001, **more}
    return AuditLog(AuditConfig(enabled=True, queue=queue, on_full=on_full), sink=sink, **more)


async def until(condition):
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_records_are_written_in_their_order(nursery):
    sink = Memory()
    log = log_of(sink, queue=2000)
    await nursery.start(log.run)
    for n in range(1000):
        assert log.put(record(n))
    await log.flush()
    assert sink.ids == [f"r{n}" for n in range(1000)]
    assert log.statistics() == (0, 0, 1000, 0, 0, True)


async def test_a_log_may_be_made_before_there_is_a_loop():
    log = await trio.to_thread.run_sync(lambda: log_of(Memory()))
    assert log.put(record())


async def test_records_that_come_together_share_one_call(nursery, mock_clock):
    sink = Memory()
    log = log_of(sink, flush_interval_s=0.05)
    await nursery.start(log.run)
    for n in range(50):
        log.put(record(n))
        await trio.testing.wait_all_tasks_blocked()
    assert sink.calls == []
    mock_clock.jump(0.051)
    await until(lambda: sink.calls == [50])


async def test_a_trickle_of_records_does_not_wake_the_thread_for_each(nursery, autojump_clock):
    sink = Memory()
    log = log_of(sink, flush_interval_s=0.05)
    await nursery.start(log.run)
    for n in range(300):
        log.put(record(n))
        await trio.sleep(0.001)
    await log.flush()
    assert len(sink.ids) == 300
    # Three tenths of a second, a twentieth each; the pace of the thread itself is no one's.
    assert len(sink.calls) <= 8


async def test_a_batch_that_is_full_does_not_wait_for_more(nursery, mock_clock):
    sink = Memory()
    log = log_of(sink, flush_interval_s=3600, batch=10)
    await nursery.start(log.run)
    for n in range(9):
        log.put(record(n))
    await trio.testing.wait_all_tasks_blocked()
    assert sink.calls == []
    log.put(record(9))
    await until(lambda: len(sink.ids) == 10)
    assert sink.calls == [10]


async def test_no_call_takes_more_than_a_batch(nursery):
    sink = Memory()
    log = log_of(sink, batch=10)
    for n in range(95):
        log.put(record(n))
    await nursery.start(log.run)
    await log.flush()
    assert max(sink.calls) <= 10
    assert len(sink.ids) == 95


async def test_flush_does_not_wait_for_the_gathering(nursery, mock_clock):
    sink = Memory()
    log = log_of(sink, flush_interval_s=3600, batch=4)
    await nursery.start(log.run)
    for n in range(10):
        log.put(record(n))
    await log.flush()
    assert len(sink.ids) == 10


async def test_writing_is_done_off_the_serving_thread(nursery):
    sink = Memory()
    log = log_of(sink)
    await nursery.start(log.run)
    log.put(record())
    await log.flush()
    assert threading.get_ident() not in sink.threads


async def test_shedding_counts_what_is_lost_and_writes_the_count(nursery):
    sink, counter = Memory(), Counter()
    log = log_of(sink, queue=5, on_full="shed", counting=counter)
    taken = [log.put(record(n)) for n in range(12)]
    assert taken == [True] * 5 + [False] * 7
    assert log.lost == counter.lost == 7
    assert not log.full
    await nursery.start(log.run)
    await until(lambda: sink.told_lost == 7)
    assert sink.ids == [f"r{n}" for n in range(5)]
    log.put(record(99))
    await log.flush()
    assert sink.told_lost == 7


async def test_blocking_makes_new_requests_wait_and_takes_what_is_under_way(nursery):
    sink = Memory()
    sink.gate.clear()
    log = log_of(sink, queue=5, reserve=3)
    await nursery.start(log.run)
    for n in range(5):
        assert log.put(record(n))
    assert log.full
    admitted = []

    async def request(n):
        await log.room()
        admitted.append(n)

    for n in range(3):
        nursery.start_soon(request, n)
        await trio.testing.wait_all_tasks_blocked()
    assert admitted == []
    assert [log.put(record(n)) for n in range(5, 9)] == [True, True, True, False]
    sink.gate.set()
    await until(lambda: sorted(admitted) == [0, 1, 2])
    await until(lambda: sink.told_lost == 1)


async def test_put_waiting_waits_for_room_and_counts_a_record_that_gave_up(nursery):
    sink = Memory()
    sink.gate.clear()
    log = log_of(sink, queue=1, reserve=0)
    await nursery.start(log.run)
    log.put(record(0))
    with trio.CancelScope() as scope:
        nursery.start_soon(log.put_waiting, record(1))
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await log.put_waiting(record(2))
    assert scope.cancelled_caught
    sink.gate.set()
    await until(lambda: "r1" in sink.ids and sink.told_lost == 1)
    assert "r2" not in sink.ids


async def test_the_queue_is_bounded_by_the_memory_that_records_keep():
    log = log_of(Memory(), queue=1000, on_full="shed", max_queue_bytes=10_000)
    big = b'"' + b"x" * 4000 + b'"'
    assert [log.put(record(n, arguments=big)) for n in range(4)] == [True, True, False, False]
    alone = log_of(Memory(), queue=1000, on_full="shed", max_queue_bytes=10)
    assert alone.put(record(arguments=big))
    assert not alone.put(record())


async def test_a_full_disk_keeps_records_until_it_has_room(nursery, caplog):
    caplog.set_level(logging.INFO)
    sink = Memory()
    sink.error = FULL_DISK
    log = log_of(sink)
    await nursery.start(log.run)
    for n in range(20):
        log.put(record(n, reason="a secret"))
    await until(lambda: log.failures >= 3)
    assert not log.healthy
    assert len(log) == 20
    sink.error = None
    await log.flush()
    assert log.healthy
    assert sink.ids == [f"r{n}" for n in range(20)]
    assert log.lost == 0
    told = [r for r in caplog.records if r.name == "mcpx.audit"]
    assert [r.levelno for r in told] == [logging.ERROR, logging.INFO]
    assert "a secret" not in "".join(str(r.__dict__) for r in told)


async def test_failures_are_spaced_out(nursery, mock_clock):
    sink = Memory()
    sink.error = FULL_DISK
    log = log_of(sink, first_pause_s=0.1)
    await nursery.start(log.run)
    log.put(record())
    for failures, pause_s in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], start=1):
        await until(lambda failures=failures: log.failures == failures)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(pause_s - 0.01)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sink.calls) == failures
        mock_clock.jump(0.02)
    await until(lambda: log.failures == 9)
    await trio.testing.wait_all_tasks_blocked()
    sink.error = None
    mock_clock.jump(5.0)
    await until(lambda: sink.ids == ["r0"])


async def test_another_failure_is_told_anew(nursery, caplog):
    sink = Memory()
    sink.error = FULL_DISK
    log = log_of(sink)
    await nursery.start(log.run)
    log.put(record())
    await until(lambda: log.failures >= 2)
    sink.error = OSError(errno.EIO, "Input/output error")
    await until(lambda: len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2)
    sink.error = None
    await log.flush()


async def test_lines_that_a_sink_took_in_part_are_not_given_twice(nursery):
    sink = Memory()
    sink.at_most = 3
    log = log_of(sink)
    for n in range(10):
        log.put(record(n))
    await nursery.start(log.run)
    await log.flush()
    assert sink.ids == [f"r{n}" for n in range(10)]


async def test_draining_writes_everything_and_ends_the_task():
    sink = Memory()
    log = log_of(sink, flush_interval_s=3600)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        for n in range(30):
            log.put(record(n))
        assert await log.drain(10)
    assert len(sink.ids) == 30
    assert sink.closed
    assert not log.put(record())
    assert log.lost == 1


async def test_draining_a_log_that_never_ran_writes_it_too():
    sink = Memory()
    log = log_of(sink)
    log.put(record())
    assert await log.drain(10)
    assert sink.ids == ["r0"]
    assert sink.closed


async def test_draining_has_an_end_and_what_is_left_is_counted(caplog):
    sink, counter = Memory(), Counter()
    sink.error = FULL_DISK
    log = log_of(sink, counting=counter)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        for n in range(7):
            log.put(record(n))
        assert not await log.drain(0.05)
    assert counter.lost == 7
    assert sink.closed
    assert "audit records are lost" in [r.getMessage() for r in caplog.records]


async def test_draining_lets_go_of_who_waits_for_room():
    sink = Memory()
    log = log_of(sink, queue=1)
    log.put(record())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.room)
        await trio.testing.wait_all_tasks_blocked()
        await log.drain(10)


async def test_being_cancelled_loses_nothing():
    sink = Memory()
    log = log_of(sink, queue=1000, flush_interval_s=3600)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        for n in range(600):
            log.put(record(n))
        nursery.cancel_scope.cancel()
    assert sink.ids == [f"r{n}" for n in range(600)]
    assert log.lost == 0
    assert sink.closed


async def test_being_cancelled_while_a_batch_is_written_writes_it_once():
    sink = Memory()
    sink.gate.clear()
    log = log_of(sink)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        for n in range(5):
            log.put(record(n))
        await until(lambda: sink.threads)
        nursery.cancel_scope.cancel()
        sink.gate.set()
    assert sorted(sink.ids) == [f"r{n}" for n in range(5)]


async def test_being_cancelled_with_a_full_disk_has_an_end(mock_clock):
    mock_clock.rate = 100
    sink = Memory()
    sink.error = FULL_DISK
    log = log_of(sink, last_words_s=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        log.put(record())
        nursery.cancel_scope.cancel()
    assert log.lost == 1


async def test_a_log_runs_once():
    log = log_of(Memory())
    await log.drain(5)
    with pytest.raises(RuntimeError):
        await log.run()


async def test_the_redactor_may_be_replaced_while_it_runs(nursery):
    class Saying:
        def __init__(self, word):
            self.word = word

        def arguments(self, tool, raw):
            return self.word

        def text(self, text):
            return f"{self.word} {text}"

    sink = Memory()
    log = log_of(sink, redactor=Saying("one"))
    await nursery.start(log.run)
    log.put(record(arguments=b"{}", tool="t", reason="r"))
    await log.flush()
    log.redactor = Saying("two")
    # What the first one left of the same texts is not used again.
    log.put(record(arguments=b"{}", tool="t", reason="r"))
    await log.flush()
    assert [line["arguments"] for line in sink.lines] == ["one", "two"]
    assert [line["tool"] for line in sink.lines] == ["one t", "two t"]
    assert [line["reason"] for line in sink.lines] == ["one r", "two r"]


async def test_the_length_of_the_queue_is_shown_to_whoever_counts(nursery):
    sink, counter = Memory(), Counter()
    sink.gate.clear()
    log = log_of(sink, counting=counter)
    await nursery.start(log.run)
    for n in range(4):
        log.put(record(n))
    assert counter.queue() == len(log) == 4
    sink.gate.set()


def test_a_log_matches_a_configuration_that_writes_the_same_way_to_the_same_place(tmp_path):
    config = AuditConfig(enabled=True, output="file", path=str(tmp_path / "a"))
    log = AuditLog(config)
    assert log.matches(AuditConfig(enabled=True, output="file", path=str(tmp_path / "a")))
    same = {"arguments": True, "redact": RedactConfig(keys=["x"])}
    assert log.matches(AuditConfig(enabled=True, output="file", path=str(tmp_path / "a"), **same))
    for other in (
        {"path": str(tmp_path / "b")}, {"output": "stdout"}, {"max_bytes": 1}, {"keep": 1},
        {"queue": 1}, {"on_full": "shed"}, {"enabled": False},
    ):  # fmt: skip
        changed = {"enabled": True, "output": "file", "path": str(tmp_path / "a"), **other}
        assert not log.matches(AuditConfig(**changed))
    assert AuditLog(AuditConfig(enabled=True)).matches(
        AuditConfig(enabled=True, output="json", path="x")
    )


def test_a_log_that_is_off_is_none():
    assert AuditLog.of(AuditConfig()) is None


def test_a_file_that_can_not_be_written_is_told_before_anything_relies_on_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for config in (
        AuditConfig(enabled=True, output="file", path=str(tmp_path / "file" / "audit.log")),
        AuditConfig(enabled=True, output="file", path=str(tmp_path)),
        AuditConfig(enabled=True, output="file"),
    ):
        with pytest.raises(ConfigError, match="audit.path"):
            AuditLog.of(config)


async def test_a_log_of_a_file_writes_the_file(tmp_path, nursery):
    path = tmp_path / "logs" / "audit.log"
    log = AuditLog.of(
        AuditConfig(enabled=True, output="file", path=str(path), max_bytes=2000, keep=2)
    )
    await nursery.start(log.run)
    for n in range(100):
        log.put(record(n))
    assert await log.drain(10)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "audit.log",
        "audit.log.1",
        "audit.log.2",
    ]
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["request_id"] == "r99"


async def test_changing_from_one_log_to_another_of_the_same_file_loses_nothing(tmp_path, nursery):
    path = str(tmp_path / "audit.log")
    first = AuditLog.of(AuditConfig(enabled=True, output="file", path=path))
    second = AuditLog.of(AuditConfig(enabled=True, output="file", path=path, queue=5))
    await nursery.start(first.run)
    await nursery.start(second.run)
    for n in range(100):
        (first if n < 95 else second).put(record(n))
    assert await first.drain(10)
    assert await second.drain(10)
    ids = [
        json.loads(line)["request_id"] for line in (tmp_path / "audit.log").read_text().splitlines()
    ]
    assert sorted(ids) == sorted(f"r{n}" for n in range(100))


async def test_a_rotation_that_fails_is_not_told_as_lines_that_are_missing(
    tmp_path, nursery, caplog
):
    path = tmp_path / "audit.log"
    (tmp_path / "audit.log.1" / "x").mkdir(parents=True)
    log = log_of(FileSink(str(path), max_bytes=200, keep=1))
    await nursery.start(log.run)
    for n in range(10):
        log.put(record(n))
    await log.flush()
    assert len(path.read_text().splitlines()) == 10
    assert not log.healthy
    assert "rotated" in caplog.records[-1].getMessage()
