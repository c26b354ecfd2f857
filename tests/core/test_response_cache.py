"""The response cache: nobody gets another's result, none after its time, none too many."""

from __future__ import annotations

import json
import math
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mcpx._speedups.frames import scan
from mcpx.core.response_cache import (
    ENTRY_OVERHEAD_BYTES,
    EVERYBODY,
    Identity,
    ResponseCache,
    Sharing,
    Storable,
    cache_key,
    cacheable,
    canonical_call,
    keys_for,
    retargeted,
)

T0 = 123_456.789
ALICE = Identity("alice", True, None)
BOB = Identity("bob", True, None)


def storable(text=b'{"jsonrpc":"2.0","id":1,"result":{}}', **more):
    start = text.index(b'"id":') + 5
    return Storable(text, start, start + 1, **more)


def of_size(size):
    """A response text of ``size`` bytes."""
    head, tail = b'{"jsonrpc":"2.0","id":1,"result":{"x":"', b'"}}'
    return storable(head + b"x" * (size - len(head) - len(tail)) + tail)


def cache(max_entries=10, max_bytes=1_000_000, max_body_bytes=100_000):
    return ResponseCache(max_entries, max_bytes, max_body_bytes)


def put(c, key, now=T0, ttl_s=60.0, body=None, server="s", tool="t"):
    return c.put(key, body or storable(), ttl_s, now, c.tags(server, tool))


def response(result='{"content":[]}', id="1", extra=""):
    return f'{{"jsonrpc":"2.0","id":{id},"result":{result}{extra}}}'.encode()


def judged(body, status=200, content_type=b"application/json", request_id=b"1", limit=10_000):
    return cacheable(body, status, content_type, request_id=request_id, limit_bytes=limit)


def call(params):
    text = params if isinstance(params, str) else json.dumps(params)
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{text}}}'.encode()
    return canonical_call(body, scan(body))


def arguments(text):
    return call(f'{{"name":"t","arguments":{text}}}')


# Keeping and giving.


def test_what_was_put_is_given_until_the_very_moment_of_its_end():
    c = cache()
    assert put(c, b"k", ttl_s=60.0)
    end = T0 + 60.0
    entry = c.get(b"k", math.nextafter(end, 0))
    assert entry is not None
    assert entry.text == storable().text
    assert c.get(b"k", end) is None
    assert len(c) == 0


def test_the_age_is_the_time_since_it_was_put():
    c = cache()
    put(c, b"k")
    entry = c.get(b"k", T0 + 12.5)
    assert entry is not None
    assert entry.age_s(T0 + 12.5) == pytest.approx(12.5)
    assert entry.age_s(T0 - 1) == 0.0


def test_the_servers_ttl_shortens_the_time_and_never_lengthens_it():
    c = cache()
    put(c, b"short", ttl_s=60.0, body=storable(ttl_s=5.0))
    put(c, b"long", ttl_s=60.0, body=storable(ttl_s=500.0))
    assert c.get(b"short", T0 + 4.9) is not None
    assert c.get(b"short", T0 + 5.0) is None
    assert c.get(b"long", T0 + 60.0) is None


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_keeps_nothing(ttl_s):
    c = cache()
    assert not put(c, b"k", ttl_s=ttl_s)
    assert len(c) == 0


def test_a_time_too_short_for_the_clock_keeps_nothing():
    c = cache()
    assert not put(c, b"k", ttl_s=1e-300)


def test_the_entry_used_least_recently_goes_first():
    c = cache(max_entries=2)
    put(c, b"a")
    put(c, b"b")
    assert c.get(b"a", T0) is not None
    put(c, b"c")
    assert c.get(b"b", T0) is None
    assert c.get(b"a", T0) is not None
    assert c.statistics.evictions == 1


def test_bytes_are_bounded_with_all_that_an_entry_costs():
    each = ENTRY_OVERHEAD_BYTES + 1000 + 2
    c = cache(max_entries=100, max_bytes=3 * each)
    for key in (b"a", b"b", b"c"):
        put(c, key, body=of_size(1000))
    assert c.statistics.bytes == 3 * each
    put(c, b"d", body=of_size(1001))
    assert c.statistics.bytes <= 3 * each
    assert c.get(b"a", T0) is None
    assert c.get(b"b", T0) is None
    assert c.get(b"d", T0) is not None


def test_what_is_too_large_pushes_nothing_out():
    c = cache(max_bytes=3000, max_body_bytes=2900)
    put(c, b"a", body=of_size(100))
    assert not put(c, b"b", body=of_size(2950))
    assert not put(c, b"c", body=of_size(2890))
    assert c.get(b"a", T0) is not None


def test_an_entry_that_has_ended_makes_room_and_is_no_eviction():
    c = cache(max_entries=2)
    put(c, b"a", ttl_s=1.0)
    put(c, b"b", ttl_s=60.0)
    put(c, b"c", now=T0 + 2)
    assert c.get(b"b", T0 + 2) is not None
    assert (c.statistics.evictions, c.statistics.expirations) == (0, 1)


def test_a_newer_result_takes_the_place_of_the_older():
    c = cache()
    put(c, b"k", body=of_size(500), tool="old")
    put(c, b"k", body=of_size(300), tool="new")
    assert len(c) == 1
    assert c.statistics.bytes == ENTRY_OVERHEAD_BYTES + 300 + 4
    assert c.purge_tool("s", "old") == 0
    assert c.purge_tool("s", "new") == 1


def test_hits_and_misses_are_counted_once_for_each_question():
    c = cache()
    keys = keys_for("s", "t", ALICE, b"{}", sharing=Sharing.IF_PUBLIC)
    assert c.find(keys, T0) is None
    c.keep(keys, storable(scope="public"), 60.0, T0, c.tags("s", "t"))
    assert c.find(keys, T0) is not None
    assert c.get(b"none", T0) is None
    assert c.statistics[:2] == (1, 2)


# Purging.


def filled():
    c = cache()
    for server in ("s1", "s2"):
        for tool in ("t1", "t2"):
            for n in (b"1", b"2"):
                put(c, server.encode() + tool.encode() + n, server=server, tool=tool)
    return c


def test_a_purge_takes_what_it_names_and_nothing_else():
    c = filled()
    assert c.purge_tool("s1", "t1") == 2
    assert c.get(b"s1t11", T0) is None
    assert c.get(b"s1t21", T0) is not None
    assert c.purge_server("s1") == 2
    assert c.get(b"s2t11", T0) is not None
    assert c.purge() == 4
    assert c.statistics[-2:] == (0, 0)
    assert c.purge_server("unknown") == c.purge_tool("s1", "unknown") == 0


@pytest.mark.parametrize(
    "purge",
    [
        lambda c: c.purge(),
        lambda c: c.purge_server("s"),
        lambda c: c.purge_tool("s", "t"),
    ],
)
def test_a_result_asked_for_before_a_purge_is_not_kept_after_it(purge):
    c = cache()
    before = c.tags("s", "t")
    purge(c)
    assert not c.put(b"k", storable(), 60.0, T0, before)
    assert c.get(b"k", T0) is None
    assert c.put(b"k", storable(), 60.0, T0, c.tags("s", "t"))


def test_a_purge_of_one_server_stops_nothing_of_another():
    c = cache()
    before = c.tags("s", "t")
    c.purge_server("other")
    assert c.put(b"k", storable(), 60.0, T0, before)


# Limits.


def test_a_reload_to_smaller_limits_drops_what_does_not_fit():
    c = cache()
    for n in range(5):
        put(c, b"%d" % n, body=of_size(100 * (n + 1)))
    c.resize(3, 1_000_000, 450)
    assert c.get(b"4", T0) is None
    assert c.get(b"0", T0) is None
    assert c.get(b"3", T0) is not None
    assert not put(c, b"k", body=of_size(451))
    c.resize(3, ENTRY_OVERHEAD_BYTES * 2, 450)
    assert len(c) == 1
    assert c.get(b"3", T0) is not None


@pytest.mark.parametrize("limits", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_limits_below_one_are_refused(limits):
    with pytest.raises(ValueError):
        ResponseCache(*limits)


# Keys.


def test_every_part_of_a_key_matters():
    parts = [
        cache_key("s", "t", ALICE, b"{}"),
        cache_key("s2", "t", ALICE, b"{}"),
        cache_key("s", "t2", ALICE, b"{}"),
        cache_key("s", "t", BOB, b"{}"),
        cache_key("s", "t", Identity("alice", False, None), b"{}"),
        cache_key("s", "t", Identity("alice", True, b""), b"{}"),
        cache_key("s", "t", Identity("alice", True, b"1"), b"{}"),
        cache_key("s", "t", Identity("alice", True, b"2"), b"{}"),
        cache_key("s", "t", Identity("", False, None), b"{}"),
        cache_key("s", "t", Identity("everybody", True, None), b"{}"),
        cache_key("s", "t", EVERYBODY, b"{}"),
        cache_key("s", "t", ALICE, b"[]"),
        cache_key("s", "t", ALICE, b"{}", [b"a"]),
        cache_key("s", "t", ALICE, b"{}", [b"a", b""]),
        cache_key("s", "t", ALICE, b"{}", [b"", b"a"]),
    ]
    assert len(set(parts)) == len(parts)
    assert all(len(key) == 32 for key in parts)


identities = st.one_of(
    st.just(EVERYBODY),
    st.builds(Identity, st.text(max_size=4), st.booleans(), st.none() | st.binary(max_size=4)),
)
key_parts = st.tuples(
    st.text(max_size=4),
    st.text(max_size=4),
    identities,
    st.binary(max_size=6),
    st.lists(st.binary(max_size=4), max_size=3).map(tuple),
)


@given(one=key_parts, other=key_parts)
def test_two_keys_are_one_only_if_all_parts_are(one, other):
    assert (cache_key(*one) == cache_key(*other)) == (one == other)


@given(server=st.text(max_size=6), tool=st.text(max_size=6), cut=st.integers(0, 12))
def test_no_shift_of_text_between_two_parts_makes_the_same_key(server, tool, cut):
    both = server + tool
    moved = (both[:cut], both[cut:])
    assume(moved != (server, tool))
    assert cache_key(server, tool, ALICE, b"{}") != cache_key(*moved, ALICE, b"{}")


# Sharing.


@pytest.mark.parametrize("scope", ["public", "private", None])
@pytest.mark.parametrize("sharing", list(Sharing))
def test_a_result_reaches_another_principal_only_if_both_sides_say_so(scope, sharing):
    c = cache()
    alice = keys_for("s", "t", ALICE, b"{}", sharing=sharing)
    c.keep(alice, storable(scope=scope), 60.0, T0, c.tags("s", "t"))
    assert c.find(alice, T0) is not None
    may = {
        Sharing.NEVER: False,
        Sharing.IF_PUBLIC: scope == "public",
        Sharing.UNLESS_PRIVATE: scope != "private",
    }[sharing]
    bob = keys_for("s", "t", BOB, b"{}", sharing=sharing)
    assert (c.find(bob, T0) is not None) == may
    # Whoever does not ask for shared results gets none.
    assert c.find(keys_for("s", "t", BOB, b"{}"), T0) is None


def test_without_a_word_about_sharing_there_is_no_common_key():
    assert keys_for("s", "t", ALICE, b"{}").shared is None


def test_two_sessions_of_one_client_share_nothing():
    c = cache()
    one = keys_for("s", "t", Identity("alice", True, b"1"), b"{}")
    other = keys_for("s", "t", Identity("alice", True, b"2"), b"{}")
    c.keep(one, storable(), 60.0, T0, c.tags("s", "t"))
    assert c.find(other, T0) is None


# What is the same call.


def test_order_of_keys_blanks_and_spelling_of_strings_do_not_matter():
    assert arguments('{"a":1,"b":{"c":"é","d":[true,null]}}') == arguments(
        '{ "b" : {"d":[ true , null ],"c":"\\u00e9"}, "\\u0061":1 }'
    )


@pytest.mark.parametrize(
    ("one", "other"),
    list(
        combinations(
            [
                '{"a":1}',
                '{"a":[1]}',
                '{"a":"1"}',
                '{"a":["a",1]}',
                '{"a":{"a":1}}',
                '{"a":9007199254740992}',
                '{"a":9007199254740993}',
                '{"a":' + "9" * 5000 + "}",
                '{"a":' + "9" * 5001 + "}",
                '{"a":1e400}',
                '{"a":1e401}',
                '{"a":0.1}',
                '{"a":0.10000000000000001}',
                '{"a":-0.0}',
                '{"a":true}',
                '{"a":"true"}',
                '{"a":null}',
                '{"a":"null"}',
                '{"a":[]}',
                '{"a":{}}',
                '{"a":""}',
                '{"a":[1,2]}',
                '{"a":[2,1]}',
                '{"a":[[1],2]}',
                '{"A":1}',
                "{}",
            ],
            2,
        )
    ),
)
def test_different_arguments_are_different_calls(one, other):
    assert arguments(one) != arguments(other)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


def exact(value):
    """Equality that tells 1 from 1.0 and from True, as ``==`` does not."""
    if isinstance(value, dict):
        return ("object", frozenset((key, exact(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return ("array", tuple(exact(inner) for inner in value))
    return (type(value).__name__, repr(value))


@settings(max_examples=300)
@given(one=json_values, other=json_values)
def test_two_calls_have_one_form_exactly_if_their_arguments_are_equal(one, other):
    forms = [arguments(json.dumps({"v": value})) for value in (one, other)]
    assert (forms[0] == forms[1]) == (exact(one) == exact(other))


@given(value=json_values, ascii_=st.booleans(), indent=st.none() | st.integers(0, 3))
def test_the_form_does_not_depend_on_how_the_call_is_written(value, ascii_, indent):
    def turned(inner):
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(inner)}
        return [turned(item) for item in inner] if isinstance(inner, list) else inner

    plain = arguments(json.dumps({"v": value, "w": 0}))
    other = json.dumps({"w": 0, "v": turned(value)}, ensure_ascii=ascii_, indent=indent)
    assert arguments(other) == plain


def test_what_differs_with_each_request_is_left_out_of_the_form():
    plain = call({"name": "t", "arguments": {}})
    meta = {"progressToken": 7, "traceparent": "00-ab", "tracestate": "x=1"}
    assert call({"name": "t", "arguments": {}, "_meta": meta}) == plain
    assert call({"name": "t", "arguments": {}, "_meta": {}}) == plain


@pytest.mark.parametrize(
    "meta",
    [
        {"com.example/tenant": "a"},
        {"baggage": "tenant=a"},
        {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    ],
)
def test_what_a_server_may_answer_by_stays_in_the_form(meta):
    plain = call({"name": "t", "arguments": {}})
    form = call({"name": "t", "arguments": {}, "_meta": meta})
    assert form is not None
    assert form != plain
    assert call({"name": "t", "arguments": {}, "_meta": {**meta, "progressToken": 1}}) == form


@pytest.mark.parametrize(
    "more",
    [
        {"task": {"ttl": 1}},
        {"inputResponses": {}},
        {"requestState": "x"},
        {"future": 1},
        {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "1"}}},
    ],
)
def test_a_call_that_depends_on_more_than_its_arguments_has_no_form(more):
    assert call({"name": "t", "arguments": {}, **more}) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
        b'{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"t"}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"t"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
)
def test_only_a_tool_call_that_wants_an_answer_has_a_form(body):
    assert canonical_call(body, scan(body)) is None


# What may be kept.


def test_a_plain_result_may_be_kept_and_is_not_changed():
    body = response('{"content":[{"type":"text","text":"id"}],"isError":false}') + b"\n"
    found = judged(body, content_type=b"Application/JSON; charset=utf-8")
    assert isinstance(found, Storable)
    assert found.text == body
    assert (found.ttl_s, found.scope) == (math.inf, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (response('{"isError":true}'), "a tool's error"),
        (response('{"isError":null}'), "a tool's error"),
        (response('{"isError":1}'), "a tool's error"),
        (response('{"iserror":true}'), "an ambiguous key"),
        (response('{"IsError":false}'), "an ambiguous key"),
        (response('{"resultType":"input_required"}'), "not complete"),
        (response('{"resultType":"task"}'), "not complete"),
        (response('{"resultType":null}'), "not complete"),
        (response('{"resultType":["complete"]}'), "not complete"),
        (response('{"inputRequests":{}}'), "not complete"),
        (response('{"requestState":"x"}'), "not complete"),
        (response('{"task":{"taskId":"1"}}'), "not complete"),
        (
            response('{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}'),
            "not complete",
        ),
        (response('{"ttlMs":0}'), "ttlMs"),
        (response('{"ttlMs":0.0}'), "ttlMs"),
        (response('{"ttlMs":-1}'), "ttlMs"),
        (response('{"ttlMs":"60"}'), "ttlMs"),
        (response('{"ttlMs":null}'), "ttlMs"),
        (response("[]"), "not a result"),
        (response("null"), "not a result"),
        (response('"x"'), "not a result"),
        (response(id="2"), "another request's response"),
        (response(id='"1"'), "another request's response"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}', "an error"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "not a response"),
        (b'{"jsonrpc":"2.0","method":"notifications/message"}', "not a response"),
        (response('{"isError":false,"isError":true}'), "not a message"),
        (response(extra=',"error":{}'), "not a message"),
        (b"[" + response() + b"]", "not a message"),
        (response()[:-1], "not a message"),
        (b"", "not a message"),
        (response('{"x":"\xff"}').decode().encode("latin-1"), "not a message"),
    ],
)
def test_what_can_not_be_given_again_is_not_kept(body, reason):
    assert judged(body) == reason


@pytest.mark.parametrize("status", [201, 202, 204, 206, 304, 400, 404, 500])
def test_only_status_200_is_kept(status):
    assert judged(response(), status=status) == "status"


@pytest.mark.parametrize(
    "content_type", [b"", b"text/event-stream", b"application/jsonx", b"text/plain", b";"]
)
def test_only_json_is_kept(content_type):
    assert judged(response(), content_type=content_type) == "content type"


def test_a_response_may_have_the_largest_size_and_no_more():
    body = response()
    assert isinstance(judged(body, limit=len(body)), Storable)
    assert judged(body, limit=len(body) - 1) == "too large"


@pytest.mark.parametrize(
    ("members", "ttl_s", "scope"),
    [
        ('"ttlMs":1500', 1.5, None),
        ('"ttlMs":1e999', math.inf, None),
        ('"ttlMs":' + "9" * 400, math.inf, None),
        ('"cacheScope":"public"', math.inf, "public"),
        ('"cacheScope":"priv\\u0061te"', math.inf, "private"),
        ('"cacheScope":"PUBLIC"', math.inf, "private"),
        ('"cacheScope":null', math.inf, "private"),
        ('"resultType":"complete","ttlMs":1,"cacheScope":"public"', 0.001, "public"),
    ],
)
def test_what_the_server_says_of_keeping_is_read(members, ttl_s, scope):
    found = judged(response("{" + members + "}"))
    assert isinstance(found, Storable)
    assert (found.ttl_s, found.scope) == (ttl_s, scope)


def test_an_id_written_another_way_is_the_same_id():
    assert isinstance(judged(response(id='"\\u0061"'), request_id=b'"a"'), Storable)
    assert judged(response(id='"b"'), request_id=b'"a"') == "another request's response"


# Giving to another.


@given(
    old=st.integers() | st.text(max_size=8),
    new=st.integers() | st.text(max_size=8),
    result=st.dictionaries(st.sampled_from(["id", "content", "x"]), json_values, max_size=3),
    id_last=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_another_id_changes_the_id_and_not_a_byte_else(old, new, result, id_last, indent):
    message = {"jsonrpc": "2.0", "id": old, "result": result}
    if id_last:
        message["id"] = message.pop("id")
    raw_old, raw_new = json.dumps(old).encode(), json.dumps(new).encode()
    found = judged(json.dumps(message, indent=indent).encode(), request_id=raw_old)
    assert isinstance(found, Storable)
    answer = retargeted(found, raw_new)
    assert json.loads(answer) == {**message, "id": new}
    assert scan(answer).id == raw_new
    cut = len(answer) - (len(found.text) - found.id_end)
    assert answer[: found.id_start] == found.text[: found.id_start]
    assert answer[cut:] == found.text[found.id_end :]


# Everything together.


class Model(RuleBasedStateMachine):
    """The cache beside a list of everything that was ever put."""

    servers = st.sampled_from(["s1", "s2"])
    tools = st.sampled_from(["t1", "t2"])
    names = st.integers(0, 5).map(lambda n: b"%d" % n)

    @initialize(entries=st.integers(1, 5), room=st.integers(1, 6))
    def begin(self, entries, room):
        self.now = 1000.0
        self.limits = (entries, room * 700, 400)
        self.cache = ResponseCache(*self.limits)
        self.kept = {}
        self.used = []
        self.waiting = []
        self.asked = 0

    def whole_key(self, server, tool, name):
        return server.encode() + tool.encode() + name

    def weight(self, key):
        return len(self.kept[key][0].text) + 4 + ENTRY_OVERHEAD_BYTES

    def drop(self, key):
        del self.kept[key]
        self.used.remove(key)

    def fit(self):
        while (
            len(self.used) > self.limits[0]
            or sum(self.weight(key) for key in self.used) > self.limits[1]
        ):
            self.drop(self.used[0])

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(server=servers, tool=tools, name=names)
    def ask(self, server, tool, name):
        self.waiting.append((self.whole_key(server, tool, name), server, tool, [True],
                             self.cache.tags(server, tool)))  # fmt: skip

    @rule(data=st.data(), size=st.integers(60, 450), ttl_s=st.integers(0, 6))
    def answer(self, data, size, ttl_s):
        if not self.waiting:
            return
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        key, server, tool, fresh, tags = self.waiting.pop(index)
        body = of_size(size)
        weight = size + 4 + ENTRY_OVERHEAD_BYTES
        fits = size <= self.limits[2] and weight <= self.limits[1]
        expected = fresh[0] and fits and ttl_s > 0
        assert self.cache.put(key, body, float(ttl_s), self.now, tags) == expected
        if expected:
            if key in self.kept:
                self.drop(key)
            self.kept[key] = (body, self.now + ttl_s, server, tool)
            self.used.append(key)
            while self.kept[self.used[0]][1] <= self.now:
                self.drop(self.used[0])
            self.fit()

    @rule(server=servers, tool=tools, name=names)
    def look(self, server, tool, name):
        key = self.whole_key(server, tool, name)
        entry = self.cache.get(key, self.now)
        self.asked += 1
        if key in self.kept and self.kept[key][1] <= self.now:
            self.drop(key)
        if key in self.kept:
            assert entry is not None
            assert entry.text == self.kept[key][0].text
            assert (entry.server, entry.tool) == (server, tool)
            self.used.remove(key)
            self.used.append(key)
        else:
            assert entry is None

    @rule(server=servers, tool=st.none() | tools)
    def purge_some(self, server, tool):
        gone = [k for k, v in self.kept.items() if v[2] == server and tool in (None, v[3])]
        count = (
            self.cache.purge_server(server) if tool is None else self.cache.purge_tool(server, tool)
        )
        assert count == len(gone)
        for key in gone:
            self.drop(key)
        for _, asked_of, _, fresh, _ in self.waiting:
            if asked_of == server:
                fresh[0] = False

    @rule()
    def purge_all(self):
        assert self.cache.purge() == len(self.kept)
        self.kept, self.used = {}, []
        for waiting in self.waiting:
            waiting[3][0] = False

    @rule(entries=st.integers(1, 5), room=st.integers(1, 6), largest=st.integers(60, 450))
    def reload(self, entries, room, largest):
        self.limits = (entries, room * 700, largest)
        self.cache.resize(*self.limits)
        for key in [k for k in self.used if len(self.kept[k][0].text) > largest]:
            self.drop(key)
        self.fit()

    @invariant()
    def it_holds_what_the_model_holds_and_no_more_than_it_may(self):
        if not hasattr(self, "cache"):
            return
        found = self.cache.statistics
        assert found.entries == len(self.cache) == len(self.kept) <= self.limits[0]
        assert found.bytes == sum(self.weight(key) for key in self.used) <= self.limits[1]
        assert list(self.cache._entries) == self.used
        assert found.hits + found.misses == self.asked
        indexed = {
            (server, tool, key)
            for server, tools in self.cache._by_tool.items()
            for tool, keys in tools.items()
            for key in keys
        }
        assert indexed == {(v[2], v[3], k) for k, v in self.kept.items()}
        assert all(tools and all(tools.values()) for tools in self.cache._by_tool.values())


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
test_every_sequence_of_events_leaves_it_with_what_the_model_has = Model.TestCase
