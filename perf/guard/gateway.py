"""The gateway as the guard runs it: ``python gateway.py CONFIG [calls|switches|plain]``.

What it is: the whole gateway in its own process with a clock that stands still, so that
nothing happens but what requests cause. It is told on standard input, one word a line:

    tick      let a while pass at once: what waits for its time, as the audit, has its turn
    mark      call os.getppid, which callgrind and strace see, and say what was counted
    stop      end

What was counted, as JSON on standard output: task switches of trio, memory blocks that
are in use, the highest memory since the last mark (with ``plain``), and calls of Python
functions by name (with ``calls``).
"""

from __future__ import annotations

import collections
import gc
import json
import os
import sys
import tracemalloc
from types import FrameType
from typing import Any

import trio
import trio.testing

from mcpx.app import App

__all__: list[str] = []


class _Switches(trio.abc.Instrument):
    """Counts the turns that tasks get, and the times that the loop waits."""

    def __init__(self) -> None:
        self.steps = 0
        self.waits = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.steps += 1

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        self.waits += 1


class _Calls:
    """Counts calls of Python functions in this thread."""

    def __init__(self) -> None:
        self.counts: collections.Counter[Any] = collections.Counter()

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        if event == "call":
            self.counts[frame.f_code] += 1

    def named(self) -> dict[str, int]:
        found: collections.Counter[str] = collections.Counter()
        # What is called from here on is counted for the next mark.
        counts, self.counts = self.counts, collections.Counter()
        for code, count in counts.items():
            # The file and its folder: where they are installed says nothing.
            path = "/".join(code.co_filename.split(os.sep)[-2:])
            found[f"{path}:{code.co_qualname}"] += count
        return dict(found)


#: Longer than the audit waits for further records.
TICK_S = 0.3


async def _serve(path: str, mode: str, clock: trio.testing.MockClock) -> None:
    app = App(path, os.environ)
    switches = _Switches() if mode == "switches" else None
    calls = _Calls() if mode == "calls" else None
    if switches is not None:
        trio.lowlevel.add_instrument(switches)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(app.run)
        gc.collect()
        gc.freeze()
        gc.disable()
        _say({"listening": address})
        read = trio.lowlevel.FdStream(os.dup(0))
        if mode == "plain":
            tracemalloc.start()
        if calls is not None:
            sys.setprofile(calls.profile)
        while True:
            words = (await read.receive_some(100)).split()
            if not words or words[-1] == b"stop":
                app.stop()
                return
            if words[-1] == b"tick":
                clock.jump(TICK_S)
                continue
            told: dict[str, Any] = {"blocks": sys.getallocatedblocks()}
            if switches is not None:
                told |= {"switches": switches.steps, "waits": switches.waits}
            if calls is not None:
                told["calls"] = calls.named()
            if mode == "plain":
                told["kept_bytes"], told["peak_bytes"] = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
            os.getppid()
            _say(told)


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    path = sys.argv[1]
    mode = sys.argv[2] if len(sys.argv) > 2 else ""
    clock = trio.testing.MockClock(rate=0.0)
    trio.run(_serve, path, mode, clock, clock=clock)


if __name__ == "__main__":
    main()
