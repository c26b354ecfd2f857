"""What a server's lists are made of: findings told once, pins kept, reloads survived."""

import json
import logging

import pytest
import trio

from mcpx.config.model import InspectionConfig
from mcpx.core.definitions import read_definition
from mcpx.core.identity import Principal
from mcpx.core.integrity import (
    LISTING_NEEDED,
    MAX_NAME_CHARS,
    Baseline,
    Mode,
)
from mcpx.core.listing import read_listing
from mcpx.gateway.server_tools import Observed, Watcher, mode_of


class Metrics:
    def __init__(self):
        self.findings = []

    def tool_finding(self, server, change):
        self.findings.append((server, change))


class Audit:
    def __init__(self):
        self.records = []

    def put(self, record):
        self.records.append(record)


class Store:
    def __init__(self):
        self.reports = []

    def put(self, server, report):
        self.reports.append((server, report))


class Exchange:
    principal = Principal("ann", authenticated=True)
    client_ip = "192.0.2.1"
    request_id = b"r-1"


def listing(*tools, cursor=None):
    result = {"tools": list(tools)}
    if cursor is not None:
        result["nextCursor"] = cursor
    return read_listing(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


def tool(name, description="d"):
    return {"name": name, "description": description}


class Watched:
    """A watcher of ``servers``, and all that it tells."""

    def __init__(self, mode="enforce", servers=("s",), **settings):
        self.now = 1000.0
        self.metrics, self.log, self.store, self.changed = Metrics(), Audit(), Store(), []
        self.watcher = Watcher(
            self.metrics,
            lambda: self.log,
            lambda *what: self.changed.append(what),
            clock=lambda: self.now,
        )
        self.watcher.store = self.store
        self.configure(mode, servers, **settings)

    def configure(self, mode, servers=("s",), baselines=None, *, same=True, **settings):
        config = InspectionConfig(tool_integrity=mode, **settings)
        self.watcher.configure(dict.fromkeys(servers, same), config, baselines)

    def tools(self, server="s"):
        return self.watcher.servers[server]

    def integrity(self, server="s"):
        return self.tools(server).integrity

    def listed(self, *tools, server="s", cursor=None, asked_with=None, **how):
        generation = how.pop("generation", self.integrity(server).generation)
        observed = Observed(asked_with, generation, how.pop("asked_at", None))
        found = listing(*tools, cursor=cursor)
        return dict(self.watcher.listed(Exchange(), self.tools(server), found, observed))


@pytest.mark.parametrize(("setting", "mode"), [("", "off"), ("off", "off"), ("warn", "warn")])
def test_the_mode_is_what_is_configured(setting, mode):
    assert mode_of(InspectionConfig(tool_integrity=setting)) is Mode(mode)


async def test_a_finding_is_told_to_the_log_the_audit_and_the_metrics_once(caplog):
    watched = Watched()
    assert watched.listed(tool("a"), tool("b")) == {}
    assert watched.log.records == []
    assert set(watched.store.reports[0][1].pinned) == {"a", "b"}
    for _ in range(3):
        assert list(watched.listed(tool("a", "x"), tool("b"))) == ["a"]
    (record,) = watched.log.records
    assert (record.tool, record.client, record.client_ip, record.request_id) == (
        "a", "ann", "192.0.2.1", "r-1")  # fmt: skip
    assert (record.allowed, record.outcome, record.rule, record.time) == (
        False, "integrity_changed", "inspection.tool_integrity", 1000.0)  # fmt: skip
    assert watched.metrics.findings == [("s", "changed")]
    assert watched.changed == [("s", "a")]
    assert [line.fields["tool"] for line in caplog.records] == ["a"]


async def test_in_warn_what_is_found_is_allowed():
    watched = Watched("warn")
    watched.listed(tool("a"))
    assert watched.listed(tool("a", "x")) == {}
    assert [record.allowed for record in watched.log.records] == [True]


async def test_off_looks_at_nothing():
    watched = Watched("off")
    assert watched.integrity() is None
    found = listing(tool("a"))
    assert watched.watcher.listed(Exchange(), watched.tools(), found, Observed(None, 1)) == {}
    assert watched.store.reports == []


async def test_without_a_store_and_an_audit_tools_are_watched_as_well():
    watched = Watched()
    watched.watcher.store = watched.log = None
    watched.listed(tool("a"))
    assert list(watched.listed(tool("a", "x"))) == ["a"]


async def test_a_list_may_be_looked_at_on_a_thread():
    watched = Watched()
    watched.listed(tool("a"))
    loop = []
    watched.watcher._changed = lambda *_: loop.append(trio.lowlevel.in_trio_run())
    observed = Observed(None, watched.integrity().generation)
    refused = await trio.to_thread.run_sync(
        watched.watcher.listed, Exchange(), watched.tools(), listing(tool("a", "x")), observed
    )
    assert list(refused) == ["a"]
    assert loop == [True]


async def test_a_flood_is_told_in_part_and_again_a_minute_later(caplog):
    watched = Watched("warn")
    names = [f"t{at}" for at in range(800)]
    watched.listed(*(tool(name) for name in names))
    for version in range(3):
        watched.listed(*(tool(name, f"v{version}") for name in names))
    assert len(watched.metrics.findings) == 2400
    assert len(watched.log.records) == 500
    told = [r for r in caplog.records if r.message == "a tool is not as it was pinned"]
    assert len(told) == 20
    watched.now += 60.0
    watched.listed(*(tool(name, "later") for name in names))
    assert len(watched.log.records) == 1000
    # And if the clock is put back.
    watched.now -= 3600.0
    watched.listed(*(tool(name, "last") for name in names[:5]), *map(tool, names[5:]))
    assert len(watched.log.records) == 1005


async def test_an_endless_name_is_cut_in_the_audit_and_the_log_and_kept_nowhere(caplog):
    caplog.set_level(logging.WARNING)
    watched = Watched()
    name = "\u202e" + "n" * 50_000
    for at in range(5):
        assert name in watched.listed(tool(name, f"v{at}"), cursor="more")
    (record,) = watched.log.records
    assert len(record.tool) == MAX_NAME_CHARS
    (line,) = caplog.records
    assert line.fields["tool"].startswith("\\u202en")
    assert len(line.fields["tool"]) < 200
    integrity = watched.integrity()
    assert not integrity.knows(name)
    assert integrity.refused(name) is None
    assert integrity.decide_listed(name, watched.now) is not None


async def test_an_empty_cursor_ends_the_list():
    watched = Watched()
    watched.listed(tool("a"), cursor="")
    assert watched.integrity().established


async def test_a_list_counts_from_when_it_was_asked_for():
    watched = Watched(max_age=60.0)
    watched.listed(tool("a"), asked_at=950.0)
    assert watched.integrity().decide_call("a", 1000.0) is None
    assert watched.integrity().decide_call("a", 1011.0) == LISTING_NEEDED


async def test_a_list_of_nobody_knows_when_pins_nothing():
    watched = Watched()
    watched.listed(tool("a"), generation=None)
    assert watched.integrity().baseline.pins == {}
    watched.listed(tool("a"))
    assert list(watched.listed(tool("a", "x"), generation=None)) == ["a"]
    assert watched.integrity().refused("a")


async def test_an_empty_list_is_a_list_and_anything_else_is_none():
    watched = Watched()
    for text in (b'{"jsonrpc":"2.0","id":1,"result":{}}',
                 b'{"jsonrpc":"2.0","id":1,"result":{"prompts":[]}}'):  # fmt: skip
        observed = Observed(None, watched.integrity().generation)
        watched.watcher.listed(Exchange(), watched.tools(), read_listing(text), observed)
    assert not watched.integrity().established
    watched.listed()
    assert watched.integrity().established


# -- reloads


async def test_a_reload_with_the_same_settings_keeps_what_was_seen():
    watched = Watched()
    watched.listed(tool("a"))
    before = watched.integrity()
    watched.configure("enforce")
    assert watched.integrity() is before
    assert before.decide_call("a", 1000.0) is None


async def test_a_reload_takes_the_pins_of_the_file():
    watched = Watched()
    watched.listed(tool("a"))
    asked = watched.integrity().generation
    approved = read_definition(json.dumps(tool("a", "x")).encode())
    pins = Baseline({"a": approved}, {"a": 1.0}, established=True, pending={})
    watched.configure("enforce", baselines={"s": pins})
    assert watched.integrity().decide_call("a", 1000.0) == LISTING_NEEDED
    assert watched.listed(tool("a", "x")) == {}
    # One that was asked for before adds a refusal at most.
    assert list(watched.listed(tool("a"), generation=asked)) == ["a"]


async def test_other_settings_keep_the_pins():
    watched = Watched("warn")
    watched.listed(tool("a"))
    asked = watched.integrity().generation
    watched.configure("enforce")
    assert watched.integrity().mode is Mode.ENFORCE
    assert set(watched.integrity().baseline.pins) == {"a"}
    watched.listed(tool("b"), generation=asked)
    assert set(watched.integrity().baseline.pins) == {"a"}
    watched.configure("enforce", refuse_added=True, max_age=0.0)
    assert list(watched.listed(tool("a"), tool("new"))) == ["new"]


async def test_a_server_that_moved_is_listed_again():
    watched = Watched()
    watched.listed(tool("a"))
    watched.tools().learn({"a": True})
    watched.configure("enforce", same=False)
    assert watched.tools().read_only == set()
    assert watched.integrity().decide_call("a", 1000.0) == LISTING_NEEDED


async def test_a_list_of_a_server_that_is_gone_is_kept_nowhere():
    watched = Watched(servers=("s", "other"))
    gone = watched.tools("other")
    generation = gone.integrity.generation
    watched.configure("enforce")
    late = listing(tool("a"))
    watched.watcher.listed(Exchange(), gone, late, Observed(None, generation))
    assert watched.store.reports == []
    # It has no claim to the name either.
    assert watched.listed(tool("a")) == {}
    watched.listed(tool("a"), tool("b"))
    assert {record.outcome for record in watched.log.records} == {"integrity_added"}


async def test_who_was_removed_shadows_nobody():
    watched = Watched(servers=("s", "other"))
    watched.listed(tool("a"), server="other")
    watched.configure("enforce")
    watched.listed(tool("a"))
    assert watched.log.records == []
    again = Watched(servers=("s", "other"), refuse_shadowing=True)
    again.listed(tool("a"), server="other")
    again.now += 1.0
    assert list(again.listed(tool("a"))) == ["a"]
    assert again.log.records[0].reason.endswith("(other)")
    again.configure("off", ("s", "other"))
    again.configure("enforce", ("s",))
    assert again.listed(tool("a")) == {}


async def test_what_a_server_says_of_its_tools_counts_until_it_says_that_they_changed():
    watched = Watched("off")
    tools = watched.tools()
    tools.learn({"a": True, "b": False})
    assert tools.read_only == {"a"}
    tools.learn({"a": False, "b": True})
    assert tools.read_only == {"b"}
    watched.watcher.expire("unknown")
    watched.watcher.expire("s")
    assert tools.read_only == set()
