"""Messages that are understood, and what the policies say of them."""

from defence import Defence

FRAMES = "mcpx/_speedups/frames_py.py"
FRONT = "mcpx/gateway/front_door.py"
PIPELINE = "mcpx/gateway/pipeline.py"
FORWARD = "mcpx/gateway/forward.py"
RELAY = "mcpx/gateway/relay.py"
HEADERS = "mcpx/protocol/headers.py"
POLICY = "mcpx/core/policy.py"
LISTS = "mcpx/core/name_lists.py"
RULES = "mcpx/core/argument_rules.py"
PATHS = "mcpx/core/paths.py"

REFUSED = "test_is_refused_and_reaches_no_server"
CHANGED = "test_headers_that_change_what_the_body_means_are_refused"
DIFFERS = "test_a_header_that_differs_from_the_message_is_a_header_mismatch"
GOVERNED = "test_resources_and_prompts_are_governed_like_tools"
EXACTLY = "test_arguments_are_judged_exactly"
OWN_PATH = "test_only_the_servers_own_path_is_served"

MESSAGES = [
    # One message, read in one way.
    Defence(
        "an array of messages is refused",
        FRAMES,
        "    if top is None:",
        "    if top is None:\n        return Frame()",
        f"{REFUSED}[a batch with a forbidden call]",
        f"{REFUSED}[a batch of harmless calls]",
        f"{REFUSED}[an empty batch]",
    ),
    Defence(
        "a byte order mark is refused, not skipped",
        FRAMES,
        'raise FrameError("the message starts with a byte order mark", PARSE_ERROR, 0)',
        "body = body[3:]",
        f"{REFUSED}[a byte order mark]",
    ),
    Defence(
        "what is not UTF-8 is refused, not decoded otherwise",
        FRAMES,
        'raise FrameError("the message is not UTF-8", PARSE_ERROR, exc.start) from None',
        'body = body.decode("utf-16").encode()',
        f"{REFUSED}[UTF-16]",
    ),
    Defence(
        "a coded body is refused",
        FRONT,
        'if headers.get(b"content-encoding", b"identity").lower() != b"identity":',
        "if False:",
        CHANGED,
    ),
    Defence(
        "a body that is not declared as JSON is refused",
        FRONT,
        'if not is_json_content_type(headers.get(b"content-type", b"")):',
        "if False:",
        CHANGED,
    ),
    Defence(
        "JSON that is declared in another character set is refused",
        HEADERS,
        '(?i:charset=(?:utf-8|"utf-8"))',
        "(?i:charset=[-a-z0-9]+)",
        CHANGED,
    ),
    Defence(
        "text after the message is refused",
        FRAMES,
        'raise FrameError("text follows the message", PARSE_ERROR, pos)',
        "pass",
        f"{REFUSED}[text after the message]",
        f"{REFUSED}[a second message after the first]",
    ),
    Defence(
        "what can't be parsed is not forwarded",
        FRONT,
        "raise _frame_refusal(exc) from exc",
        "return",
        f"{REFUSED}[no JSON at all]",
        f"{REFUSED}[an empty body]",
        f"{REFUSED}[a byte order mark]",
    ),
    Defence(
        "nesting is bounded",
        FRAMES,
        "if len(stack) >= max_depth:",
        "if False:",
        "test_a_call_that_nests_too_deep_is_refused",
    ),
    Defence(
        "a key that stands twice is refused, at any depth",
        FRAMES,
        "    if key in keys:\n",
        "    if False:\n",
        f"{REFUSED}[the method twice]",
        f"{REFUSED}[the method twice, the other order]",
        f"{REFUSED}[the name twice]",
        f"{REFUSED}[an argument twice]",
    ),
    Defence(
        "keys are compared as they read, not as they are written",
        FRAMES,
        "    key = _decoded(body, found.start(1), found.end(1))\n",
        "    key = body[found.start(1) + 1 : found.end(1) - 1].decode()\n",
        f"{REFUSED}[the name twice, once escaped]",
    ),
    Defence(
        "the judged text itself goes upstream, to the last byte",
        FRONT,
        "    ex.frame = frame\n",
        "    ex.frame = frame\n    ex.request.body = ex.request.body.strip()\n",
        "test_what_reaches_the_server_is_the_text_that_was_judged",
    ),
    Defence(
        "a key of the envelope in another case is refused",
        FRAMES,
        "    _no_variants(top, _ENVELOPE, _ENVELOPE_FOLDED, frame, INVALID_REQUEST)\n",
        "",
        f"{REFUSED}[a method in capitals beside it]",
        "test_a_key_that_another_reader_takes_for_a_known_one_is_refused",
    ),
    Defence(
        "a key of the parameters in another case is refused",
        FRAMES,
        "        _no_variants(params, _PARAMS, _PARAMS_FOLDED, frame, INVALID_PARAMS)\n",
        "",
        f"{REFUSED}[a name in capitals beside it]",
        f"{REFUSED}[arguments in capitals]",
        "test_look_alike_keys_are_refused_in_params_and_in_meta",
    ),
    Defence(
        "a key of the metadata in another case is refused",
        FRAMES,
        "        _no_variants(meta, _META, _META_FOLDED, frame, INVALID_PARAMS)\n",
        "",
        "test_look_alike_keys_are_refused_in_params_and_in_meta",
    ),
    Defence(
        "letters that fold to those of a key (long s, the Kelvin sign) are seen through",
        FRAMES,
        'return unicodedata.normalize("NFKC", key.partition("\\0")[0]).casefold()',
        "return key.lower() if key.isascii() else key",
        "test_a_key_that_another_reader_takes_for_a_known_one_is_refused",
        "test_look_alike_keys_are_refused_in_params_and_in_meta",
    ),
    Defence(
        "headers that name another method than the message are refused",
        FRONT,
        'if method is not None and method.decode("latin-1") != frame.method:',
        "if False:",
        CHANGED,
    ),
    Defence(
        "headers that name another tool than the message are refused",
        FRONT,
        "if text != expected:",
        "if False:",
        DIFFERS,
        CHANGED,
    ),
    # Parameters that can't be judged.
    Defence(
        "parameters that can't be read don't skip the policy",
        FRONT,
        "        raise _frame_refusal(exc) from exc\n",
        "        if exc.rpc_code != INVALID_PARAMS:\n            raise _frame_refusal(exc) from exc\n"
        "        return\n",
        f"{REFUSED}[arguments that are a list]",
        f"{REFUSED}[arguments that are a string]",
        f"{REFUSED}[a name that is a number]",
        f"{REFUSED}[a call without params]",
        f"{REFUSED}[params that are a list]",
    ),
    Defence(
        "arguments that are no object are refused",
        FRAMES,
        "if span is not None and body[span[0]] != 0x7B:",
        "if False:",
        f"{REFUSED}[arguments that are a list]",
        f"{REFUSED}[arguments that are a string]",
    ),
    Defence(
        "a call that names nothing is refused",
        FRAMES,
        "if needed is not None and needed not in spans:",
        "if False:",
        f"{REFUSED}[a call without params]",
    ),
    Defence(
        "a completion that names nothing is refused",
        FRONT,
        "raise BadRequest('\"params.ref\" names no prompt or resource', rpc_code=INVALID_PARAMS)",
        "return []",
        f"{REFUSED}[a completion that names nothing]",
    ),
    # Everything that a server offers.
    Defence(
        "methods outside the protocol are refused unless allowed",
        POLICY,
        '        return self._refuse_by("allow", what, "methods")\n',
        "        return ALLOW\n",
        "test_methods_outside_the_protocol_are_refused_unless_allowed",
    ),
    Defence(
        "look-alikes of the protocol's methods are refused",
        POLICY,
        "if alike is not None:",
        "if False:",
        "test_a_look_alike_of_a_method_is_refused_even_where_all_methods_are_allowed",
    ),
    Defence(
        "methods of the protocol can be denied",
        POLICY,
        '        if refusing == "deny":\n',
        "        if False:\n",
        GOVERNED,
    ),
    Defence(
        "resources have their lists",
        POLICY,
        'return _Verdict(self._refuse_by(refusing, what, "resources"), ()) if refusing else _GRANTED',
        "return _GRANTED",
        GOVERNED,
    ),
    Defence(
        "a resource is judged in every way that its URI can be read",
        LISTS,
        "        found = readings(uri)\n",
        "        found = (uri,)\n",
        GOVERNED,
    ),
    Defence(
        "prompts have their lists",
        POLICY,
        "refusing = self._lists[_PROMPT].name(prompt)",
        'refusing = ""',
        GOVERNED,
    ),
    Defence(
        "a completion is judged by what it refers to",
        FRONT,
        'if frame.method == "completion/complete":',
        "if False:",
        GOVERNED,
    ),
    Defence(
        "a subscription is judged by each of its resources",
        FRONT,
        'if frame.method == "subscriptions/listen" and frame.notifications is not None:',
        "if False:",
        GOVERNED,
    ),
    # Paths, queries, GET and DELETE.
    Defence(
        "paths below the server's name are not forwarded",
        FRONT,
        "ex.upstream_path = _below(route.paths, below)",
        'ex.upstream_path = b"/" + below',
        f"{OWN_PATH}[/mcp/demo/admin]",
        f"{OWN_PATH}[/mcp/demo/%2e%2e/secret]",
        f"{OWN_PATH}[/mcp/demo/]",
    ),
    Defence(
        "a path that may be forwarded reads the same to every server",
        FRONT,
        "if _is_plain(path) and allowed.matches(path):",
        "if allowed.matches(path):",
        "test_a_path_below_is_served_where_the_configuration_names_it",
    ),
    Defence(
        "a query is not forwarded",
        FRONT,
        "if ex.query and not route.server.forward_query:",
        "if False:",
        "test_a_query_string_is_refused_unless_the_configuration_forwards_it",
    ),
    Defence(
        "GET and DELETE carry no body",
        FRONT,
        "    if request.body:\n",
        "    if False:\n",
        "test_a_get_or_delete_with_a_body_is_refused",
    ),
    Defence(
        "GET and DELETE are judged as methods are",
        PIPELINE,
        "        decision = policy.decide_nameless(ex.method)\n",
        "        return\n",
        "test_streams_ends_of_sessions_and_responses_can_be_denied",
    ),
    Defence(
        "other HTTP methods are not forwarded",
        FRONT,
        "if request.method not in _ALLOWED:",
        "if False:",
        "test_other_http_methods_are_refused_with_the_ones_that_are_served",
    ),
    Defence(
        "a list that comes again on a GET stream is filtered",
        RELAY,
        'ex.request.method == "GET" or ex.method == "tasks/result"',
        'ex.method == "tasks/result"',
        "test_a_list_replayed_on_a_get_stream_is_filtered_too",
        also=[(RELAY, 'or b"last-event-id" in ex.headers', "")],
    ),
    # Rules about tools and their arguments.
    Defence(
        "denied tools are denied",
        POLICY,
        "refusing = self._lists[_TOOL].name(tool)",
        'refusing = ""',
        "test_a_denied_tool_is_403_with_its_name_and_the_id",
        "test_globs_allow_and_deny",
    ),
    Defence(
        "look-alikes of denied tools are denied",
        LISTS,
        "return self._deny.matches(name) or self._deny_folded.matches(folded)",
        "return self._deny.matches(name)",
        "test_a_look_alike_of_a_denied_tool_is_denied[Dangerous_Delete]",
        "test_a_look_alike_of_a_denied_tool_is_denied[DANGEROUS_DELETE]",
        "test_a_look_alike_of_a_denied_tool_is_denied[dangerous_delete ]",
    ),
    Defence(
        "read-only stops calls",
        POLICY,
        "        if self.read_only:\n",
        "        if False:\n",
        "test_read_only_stops_every_call_and_nothing_else",
        "test_the_list_shows_what_may_be_called_and_nothing_else",
    ),
    Defence(
        "lists have globs",
        "mcpx/core/globs.py",
        "    parsed = pattern.translate(_WILDCARDS)\n",
        "    parsed = pattern\n",
        "test_globs_allow_and_deny",
    ),
    Defence(
        "a path is resolved before it is compared",
        PATHS,
        "if not _slashed(_resolve(form)).startswith(roots):",
        "if not _slashed(form).startswith(roots):",
        EXACTLY,
    ),
    Defence(
        "a path is decoded before it is compared",
        PATHS,
        'unquote_to_bytes(form).decode() if "%" in form else form,',
        "form,",
        EXACTLY,
    ),
    Defence(
        "a folder holds what is below it, not what begins like it",
        PATHS,
        "    return _slashed(_resolve(folder))\n",
        "    return _resolve(folder)\n",
        EXACTLY,
    ),
    Defence(
        "full_match is about the whole text",
        RULES,
        "_expression(path, value).fullmatch",
        "_expression(path, value).match",
        EXACTLY,
    ),
    Defence(
        "nested arguments can be ruled",
        RULES,
        'parts = tuple(name.split("."))',
        "parts = (name,)",
        EXACTLY,
    ),
    Defence(
        "a key that is written with the dot is the nested one too",
        RULES,
        'return {".".join(path[depth:end]): end for end in range(depth + 1, len(path) + 1)}',
        "return {path[depth]: depth + 1}",
        EXACTLY,
    ),
    Defence(
        "look-alikes of a ruled argument are refused",
        RULES,
        "elif (rule := root.resembled(key)) is not None:",
        "elif (rule := None) is not None:",
        EXACTLY,
        also=[
            (
                RULES,
                "elif (rule := self.resembled(key)) is not None:",
                "elif (rule := None) is not None:",
            )
        ],
    ),
    Defence(
        "a list where the rule wants a value is refused",
        RULES,
        "return self.says(_TOO_LONG if type(value) is _Number else _NON_SCALAR)",
        "return None",
        EXACTLY,
    ),
    Defence(
        "a required argument must be there",
        RULES,
        "                if rule not in found:\n",
        "                if False:\n",
        EXACTLY,
    ),
    Defence(
        "numbers are compared exactly",
        RULES,
        "parse_int=_Number",
        "parse_int=lambda text: _Number(repr(float(text)))",
        EXACTLY,
    ),
]
