"""Bounds, limits, records, the gateway's own pages, and reloads."""

from defence import Defence

APP = "mcpx/app.py"
PIPELINE = "mcpx/gateway/pipeline.py"
RELAY = "mcpx/gateway/relay.py"
INSPECTION = "mcpx/gateway/inspection.py"
OUTCOME = "mcpx/core/outcome.py"
STATE = "mcpx/gateway/state.py"
FORWARD = "mcpx/gateway/forward.py"
ENDPOINTS = "mcpx/gateway/endpoints.py"
MESSAGES = "mcpx/protocol/http1_messages.py"
LIMITS = "mcpx/core/limits.py"
RECORDING = "mcpx/gateway/recording.py"
METRICS = "mcpx/services/metrics.py"
AUDIT = "mcpx/services/audit.py"
RECORD = "mcpx/services/audit_record.py"
SINK = "mcpx/services/audit_sink.py"
HEALTH = "mcpx/services/health.py"
WATCH = "mcpx/services/watch.py"
VALIDATE = "mcpx/config/validate.py"
SNAPSHOT = "mcpx/config/snapshot.py"
DESCRIBE = "mcpx/config/describe.py"

FAULT = "test_a_configuration_with_a_fault_changes_nothing"
TOO_LARGE = "test_a_body_past_the_bound_is_refused_before_it_is_read"
COUNTED = "test_notifications_pages_and_nonsense_are_limited_too"
OWN_LIMIT = "test_each_tool_of_each_server_has_its_own_limit"
INVENTED = "test_names_that_clients_invent_make_no_metrics"
EVERY_LINE = "test_every_decision_has_its_line_whatever_the_outcome"
ARGUMENTS = "test_arguments_are_recorded_only_when_asked_for_and_redacted"
ROTATED = "test_the_audit_file_is_rotated_and_exactly_as_many_are_kept_as_asked_for"
PAGES = "test_pages_need_a_credential_where_clients_do"
NO_MCP = "test_a_page_that_is_no_mcp_server_is_not_healthy"
SERVERS = "test_servers_are_listed_as_json_without_what_a_url_may_hide"

OPERATION = [
    # What one peer can make the gateway hold.
    Defence(
        "a declared body past the bound is refused",
        MESSAGES,
        "    if length is not None and length > max_body_bytes:\n",
        "    if False:\n",
        TOO_LARGE,
    ),
    Defence(
        "a chunked body past the bound is refused",
        MESSAGES,
        "if self._max_body is not None and self._total > self._max_body:",
        "if False:",
        TOO_LARGE,
    ),
    Defence(
        "who has no credential may send little",
        PIPELINE,
        "if length is not None and length <= limits.max_unauthenticated_bytes:",
        "if True:",
        "test_who_has_no_credential_can_not_make_the_gateway_hold_a_large_body",
    ),
    Defence(
        "a head without an end is cut",
        MESSAGES,
        "        if len(text) >= self._limit:\n",
        "        if False:\n",
        "test_an_endless_head_is_cut",
    ),
    Defence(
        "a request that dribbles in is cut",
        "mcpx/transport/connection.py",
        "read_by = trio.current_time() + bounds.read_s",
        "read_by = trio.current_time() + 1e9",
        "test_a_client_that_dribbles_is_cut_and_others_are_served",
    ),
    Defence(
        "an upload that keeps coming is given the time that it takes",
        "mcpx/transport/connection.py",
        "read_by += len(received) / LEAST_RATE",
        "read_by += 0.0",
        "test_an_upload_that_keeps_coming_is_not_cut",
    ),
    Defence(
        "who takes nothing of an answer is cut",
        "mcpx/transport/connection.py",
        'self.watch.within(self._bounds.write_s, "client")\n        await self._wire.send(data)',
        "self.watch.rest()\n        await self._wire.send(data)",
        "test_a_client_that_never_reads_is_cut",
    ),
    Defence(
        "bodies on their way are bounded together",
        "mcpx/transport/connection.py",
        "if not self._budget.take(wanted):",
        "if False:",
        "test_bodies_on_their_way_are_bounded_together",
    ),
    Defence(
        "a list that must be held is bounded",
        RELAY,
        "        if size > limit:\n",
        "        if False:\n",
        "test_a_list_past_the_bound_is_not_held_and_not_passed_on",
    ),
    Defence(
        "an event that must be held is bounded",
        INSPECTION,
        "EventParser(self._limit if self._filters else WATCHED_EVENT_BYTES)",
        "EventParser(1 << 40)",
        "test_an_event_past_the_bound_is_not_held_and_not_passed_on",
    ),
    Defence(
        "answers are passed on no faster than they are taken",
        RELAY,
        "    await reply.start(status, headers, answer.head.content_length)\n    while data:\n",
        "    await reply.start(status, headers, answer.head.content_length)\n"
        "    while more := await answer.chunk():\n        data += more\n    while data:\n",
        "test_large_answers_pass_whole_and_a_slow_reader_holds_back_the_server",
    ),
    # Limits.
    Defence(
        "one client can't use up what is everybody's",
        LIMITS,
        "if my_ready > tick or total_ready > tick:",
        "if total_ready > tick:",
        "test_one_noisy_client_starves_nobody",
        "test_what_is_refused_to_one_client_costs_the_others_nothing",
    ),
    Defence(
        "what is refused to one client costs the others nothing",
        LIMITS,
        "            total.full_at = total_full_at\n",
        "            total.full_at = total_full_at + total.interval\n",
        "test_what_is_refused_to_one_client_costs_the_others_nothing",
    ),
    Defence(
        "tools of one name on two servers have two limits",
        LIMITS,
        "tools.charge((server, tool if",
        'tools.charge(("", tool if',
        OWN_LIMIT,
    ),
    Defence(
        "invented names don't fill the memory",
        LIMITS,
        "        self.max_keys = max_keys\n",
        "        self.max_keys = 1 << 40\n",
        "test_invented_tools_and_clients_fill_no_memory_with_limits",
    ),
    Defence(
        "a reload gives nobody a fresh burst",
        STATE,
        "self.limiter.resized(Rates.of(config.rate_limit), trio.current_time())",
        "RateLimiter(Rates.of(config.rate_limit))",
        OWN_LIMIT,
    ),
    Defence(
        "notifications count",
        PIPELINE,
        "        limit(ex, self.state)\n        large =",
        "        large =",
        COUNTED,
        also=[
            (
                PIPELINE,
                "        find_route(ex)\n        check_scopes(ex)\n",
                (
                    "        if ex.frame is None or ex.frame.id is not None:\n"
                    "            limit(ex, self.state)\n"
                    "        find_route(ex)\n        check_scopes(ex)\n"
                ),
            )
        ],
    ),
    Defence(
        "nonsense counts",
        PIPELINE,
        "        limit(ex, self.state)\n        large =",
        "        large =",
        COUNTED,
        also=[
            (
                PIPELINE,
                "        find_route(ex)\n        check_scopes(ex)\n",
                "        limit(ex, self.state)\n        find_route(ex)\n        check_scopes(ex)\n",
            )
        ],
    ),
    Defence(
        "the gateway's own pages count",
        ENDPOINTS,
        'names them")\n    limit_stranger(ex, state)\n',
        'names them")\n',
        COUNTED,
    ),
    Defence(
        "guesses count",
        PIPELINE,
        "    except Unauthorized as error:\n        limit_stranger(ex, state)\n",
        "    except Unauthorized as error:\n",
        "test_who_keeps_guessing_credentials_is_limited_by_address",
    ),
    Defence(
        "Retry-After is the exact time to wait",
        LIMITS,
        "return max(1, ceil(wait_s))",
        "return 1",
        "test_one_noisy_client_starves_nobody",
    ),
    # Metrics.
    Defence(
        "paths make no label",
        METRICS,
        "route.name if route is not None else OTHER",
        "route.name if route is not None else ex.path.decode()",
        INVENTED,
        also=[(METRICS, "ex.server if ex.server in self._servers else OTHER", "ex.server")],
    ),
    Defence(
        "unknown methods make no label",
        METRICS,
        "        if method not in _METHODS:\n",
        "        if False:\n",
        "test_methods_that_clients_invent_make_no_label",
    ),
    Defence(
        "unknown tools make no label",
        METRICS,
        "return tool if known is not None and tool in known else OTHER",
        "return tool",
        INVENTED,
    ),
    Defence(
        "a server's 401 and 429 are not the gateway's refusals",
        METRICS,
        "        cell.count += 1\n",
        "        cell.count += 1\n        self._rate_limit_hits += ex.status == 429\n",
        "test_what_a_server_refuses_is_not_counted_as_the_gateways_refusal",
    ),
    Defence(
        "errors inside a 200 are seen",
        OUTCOME,
        'return "rpc_error", False',
        'return "ok", False',
        "test_errors_inside_a_200_are_visible",
        also=[(OUTCOME, 'word = "tool_error" if response.result.isError else "ok"', 'word = "ok"')],
    ),
    Defence(
        "durations have fractions",
        METRICS,
        "durations.total_s += duration_s",
        "durations.total_s += int(duration_s)",
        "test_durations_are_told_in_fractions",
    ),
    # The record.
    Defence(
        "refusals and failures have their lines",
        RECORDING,
        "    if audit is None:\n",
        '    if audit is None or ex.outcome != "ok":\n',
        EVERY_LINE,
        "test_is_refused_and_reaches_no_server[no JSON at all]",
        "test_a_request_past_a_limit_has_its_line_too",
    ),
    Defence(
        "a body that was refused unread has its line",
        PIPELINE,
        "            record(ex, self.state)\n            return ex.status, headers, body\n        return None",
        "            return ex.status, headers, body\n        return None",
        "test_who_has_no_credential_can_not_make_the_gateway_hold_a_large_body",
    ),
    Defence(
        "a line tells the status that the client got",
        RECORDING,
        "            ex.rule,\n            ex.status,\n",
        "            ex.rule,\n            200,\n",
        EVERY_LINE,
    ),
    Defence(
        "arguments are recorded where that is asked for",
        RECORDING,
        "_arguments(ex) if ex.snapshot.config.audit.arguments else None,",
        "None,",
        ARGUMENTS,
    ),
    Defence(
        "arguments are not recorded unasked",
        RECORDING,
        "_arguments(ex) if ex.snapshot.config.audit.arguments else None,",
        "_arguments(ex),",
        ARGUMENTS,
    ),
    Defence(
        "recorded arguments are redacted",
        RECORD,
        "return msgspec.Raw(_encode(shown_of_them))",
        "return msgspec.Raw(record.arguments)",
        ARGUMENTS,
    ),
    Defence(
        "lines name the session",
        RECORDING,
        "            ex.session,\n",
        "            None,\n",
        "test_lines_of_one_session_can_be_told_from_others",
    ),
    Defence(
        "a line does not give the session away",
        RECORD,
        "digest = _digest(session)",
        "digest = session.decode()",
        "test_a_session_belongs_to_the_client_and_server_that_it_was_made_for",
    ),
    Defence(
        "the file is rotated",
        SINK,
        "        if not self._max_bytes or not self._regular:\n",
        "        if True:\n",
        ROTATED,
    ),
    Defence(
        "as many files are kept as asked for, not one more",
        SINK,
        "range(self._keep - 1, 0, -1)",
        "range(self._keep, 0, -1)",
        ROTATED,
        also=[(SINK, "number = self._keep + 1", "number = self._keep + 2")],
    ),
    Defence(
        "a file that can't be written to is no configuration",
        AUDIT,
        "            sink.open()\n            sink.close()\n",
        "",
        f"{FAULT}[fault6]",
    ),
    Defence(
        "records that can't be written wait",
        AUDIT,
        "count = min(result.lines, len(batch))",
        "count = len(batch)",
        "test_records_wait_for_a_file_that_can_not_be_written",
    ),
    Defence(
        "nothing is done that can't be recorded",
        PIPELINE,
        "        if audit is not None and audit.full:\n",
        "        if False:\n",
        "test_nothing_is_done_that_can_not_be_recorded",
    ),
    Defence(
        "a reload writes what is queued before it moves on",
        APP,
        "services.start_soon(old_audit.drain, AUDIT_DRAIN_S)",
        "old_audit._scope.cancel()",
        "test_a_reload_that_moves_the_audit_file_loses_no_line",
    ),
    Defence(
        "what is in flight when the gateway stops is finished",
        APP,
        "with self._draining, trio.move_on_after(drain_s):",
        "with self._draining, trio.move_on_after(0):",
        "test_stopping_finishes_what_is_in_flight_and_writes_every_line",
    ),
    # The gateway's own pages.
    Defence(
        "/servers and /metrics ask for a credential where clients must have one",
        ENDPOINTS,
        "    if page not in ex.snapshot.public:\n",
        "    if False:\n",
        PAGES,
    ),
    Defence(
        "where operators are named, only they read the pages",
        ENDPOINTS,
        "        if not _is_operator(ex):\n",
        "        if False:\n",
        "test_only_operators_read_the_pages_where_they_are_named",
    ),
    Defence(
        "/health tells who has no credential one word",
        ENDPOINTS,
        "report = await health.public_report(",
        "report = await health.report(",
        PAGES,
    ),
    Defence(
        "/health does not ask servers each time it is asked",
        HEALTH,
        "return await self._recent.get(routes, lambda: self._round(routes))",
        "return await self._round(routes)",
        "test_health_asks_servers_in_mcp_and_remembers_the_answer",
    ),
    Defence(
        "a page that is not there is not a healthy server",
        HEALTH,
        '        return "no MCP endpoint at this URL"\n',
        '        return ""\n',
        f"{NO_MCP}[404]",
        f"{NO_MCP}[405]",
    ),
    Defence(
        "a server that refuses the gateway is not healthy",
        HEALTH,
        "    if status == 401:\n        return",
        '    if status == 401:\n        return ""\n        return',
        f"{NO_MCP}[401]",
    ),
    Defence(
        "a page of something else is not a healthy server",
        HEALTH,
        '    return "does not speak MCP"\n',
        '    return ""\n',
        f"{NO_MCP}[200]",
    ),
    Defence(
        "/servers does not show what a URL may hide",
        DESCRIBE,
        "return str(parse_upstream_url(server.url))",
        "return server.url",
        SERVERS,
    ),
    Defence(
        "/servers is JSON",
        ENDPOINTS,
        'msgspec.json.encode({"servers": listed})',
        'repr({"servers": listed}).encode()',
        SERVERS,
    ),
    # Long calls, and reloads.
    Defence(
        "a long call is not cut by the time that a client may take nothing",
        FORWARD,
        "watch.limit = trio.current_time() + route.timeouts.total_s",
        "watch.limit = trio.current_time() + ex.snapshot.config.timeouts.write",
        "test_a_long_call_is_not_cut_by_a_write_timeout",
    ),
    Defence(
        "a long call is not cut by the time that a request may take to arrive",
        FORWARD,
        "watch.limit = trio.current_time() + route.timeouts.total_s",
        "watch.limit = trio.current_time() + ex.snapshot.config.timeouts.read",
        "test_a_long_call_is_not_cut_by_a_write_timeout",
    ),
    Defence(
        "a URL that can't be used changes nothing",
        "mcpx/config/forms.py",
        "    scheme = scheme.lower()\n    if scheme not in _DEFAULT_PORTS:\n",
        "    scheme = scheme.lower()\n    if not authority or scheme not in _DEFAULT_PORTS:\n"
        '        return UpstreamUrl("http", "localhost", 9, b"/", b"localhost")\n'
        "    if scheme not in _DEFAULT_PORTS:\n",
        f"{FAULT}[fault0]",
        f"{FAULT}[fault1]",
    ),
    Defence(
        "a name that is given twice changes nothing",
        VALIDATE,
        "        if other is not server:\n",
        "        if False:\n",
        f"{FAULT}[fault2]",
        "test_what_would_not_do_what_it_says_is_no_configuration[two names that differ in case]",
    ),
    Defence(
        "a reload swaps nothing before all of it could be built",
        APP,
        "        prepared = prepare(snapshot, audit, state, self._errands, self._readiness)\n",
        "        state.snapshot = snapshot\n        prepared = prepare(snapshot, audit, state, self._errands, self._readiness)\n",
        f"{FAULT}[fault7]",
    ),
    Defence(
        "the watch goes by content, not by size and time",
        WATCH,
        "    return _digest(content)\n",
        "    return _digest(repr((len(content), os.stat(path).st_mtime_ns)).encode())\n",
        "test_an_edit_that_keeps_size_and_time_is_seen",
        also=[
            (
                WATCH,
                "self._known = _digest(loaded) if loaded is not None else None",
                "self._known: bytes | None = None",
            )
        ],
    ),
    Defence(
        "a file that is gone is no change",
        WATCH,
        "            self._tell(exc.strerror or type(exc).__name__)\n            return None\n",
        '            self._tell(exc.strerror or type(exc).__name__)\n            return b""\n',
        "test_a_file_that_is_gone_is_no_change_and_its_return_is_one",
    ),
]
