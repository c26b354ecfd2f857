"""Who asks, what travels up and down, and which pages may ask."""

from defence import Defence

EXCHANGE = "mcpx/gateway/exchange.py"
FORWARD = "mcpx/gateway/forward.py"
RELAY = "mcpx/gateway/relay.py"
PIPELINE = "mcpx/gateway/pipeline.py"
HEADERS = "mcpx/protocol/headers.py"
HEADS = "mcpx/_speedups/heads_py.py"
IDENTITY = "mcpx/core/identity.py"
ORIGINS = "mcpx/core/origins.py"
ADDRESSES = "mcpx/core/addresses.py"
VALIDATE = "mcpx/config/validate.py"
VALIDATE_AUTH = "mcpx/config/validate_auth.py"
EXPAND = "mcpx/config/expand.py"
FORMS = "mcpx/config/forms.py"
SNAPSHOT = "mcpx/config/snapshot.py"

FAULT = "test_a_configuration_with_a_fault_changes_nothing"
WITHOUT_EFFECT = "test_what_would_not_do_what_it_says_is_no_configuration"
SEES = "test_the_server_sees_its_own_host_and_who_asked"
CREDENTIALS = "test_credentials_and_cookies_never_travel_upstream"
HARM = "test_a_request_id_that_could_do_harm_is_replaced"
LISTED = "test_cors_is_for_the_origins_that_are_listed"

CALLERS = [
    # Settings that do what they say.
    Defence(
        "authentication without a kind lets nobody in: it is no configuration",
        VALIDATE_AUTH,
        "    if not kinds:\n",
        "    if False:\n",
        f"{FAULT}[fault5]",
        also=[
            (
                SNAPSHOT,
                "    if not auth.enabled:\n        return None\n    return Authenticator(",
                "    if not credential_kinds(auth):\n        return None\n    return Authenticator(",
            ),
        ],
    ),
    Defence(
        "a misspelt setting is no configuration",
        "mcpx/config/shape.py",
        '        self.faults.append(Fault((*path, name), "unknown key", hint, at_key=True))\n',
        "",
        f"{FAULT}[fault3]",
    ),
    Defence(
        "a policy for an unknown server is no configuration",
        VALIDATE,
        "            if server not in servers:\n",
        "            if False:\n",
        f"{WITHOUT_EFFECT}[a policy for a server that is not there]",
    ),
    Defence(
        "a policy for an unknown client is no configuration",
        VALIDATE,
        'elif client not in known and not ("oauth" in kinds and could_be_signed(client)):',
        "elif False:",
        f"{WITHOUT_EFFECT}[a policy for a client that nobody is]",
    ),
    Defence(
        "a policy for clients that nobody tells apart is no configuration",
        VALIDATE,
        "elif not kinds:",
        "elif False:",
        f"{WITHOUT_EFFECT}[a policy for clients that nobody tells apart]",
        also=[
            (
                VALIDATE,
                'elif client not in known and not ("oauth" in kinds and could_be_signed(client)):',
                "elif False:",
            )
        ],
    ),
    Defence(
        "a rule that asks for nothing is no configuration",
        VALIDATE,
        "        if not rules.args:\n",
        "        if False:\n",
        f"{WITHOUT_EFFECT}[a rule that asks for nothing]",
    ),
    Defence(
        "variables stand for their values",
        EXPAND,
        'return self._text(value, path) if "${" in value else value',
        "return value",
        "test_a_variable_in_a_token_stands_for_its_value_and_not_for_itself",
    ),
    Defence(
        "a variable that is not set is no configuration",
        EXPAND,
        "        if separator:\n",
        "        if separator or value is None:\n",
        f"{WITHOUT_EFFECT}[a variable that is not set]",
    ),
    # Credentials.
    Defence(
        "without a credential nothing is served",
        PIPELINE,
        "    if authenticator is None:\n        return\n",
        "    if True:\n        return\n",
        "test_without_the_bearer_token_nothing_is_served",
        "test_an_api_key_names_its_client",
    ),
    Defence(
        "credentials and cookies stay here",
        HEADS,
        "return _forwarded(headers, _TO_SERVERS, extra)",
        'return _forwarded(headers, _TO_SERVERS | {b"authorization", b"cookie", b"x-api-key"}, extra)',
        CREDENTIALS,
    ),
    Defence(
        "a field that nobody thought of stays here",
        HEADS,
        "return _forwarded(headers, _TO_SERVERS, extra)",
        'unknown = {name for name, _ in headers if name.startswith(b"x-")}\n'
        "    return _forwarded(headers, _TO_SERVERS | unknown, extra)",
        CREDENTIALS,
    ),
    Defence(
        "fields that Connection names stay here",
        HEADS,
        "return [pair for pair in kept if pair[0] not in named] if named else kept",
        "return kept",
        CREDENTIALS,
    ),
    Defence(
        "credentials can't be configured to go up",
        VALIDATE,
        "if name in _CREDENTIALS or name in read:",
        "if name in read:",
        f"{WITHOUT_EFFECT}[credentials that would go upstream]",
    ),
    Defence(
        "the header that keys are read from can't be configured to go up",
        VALIDATE,
        "if name in _CREDENTIALS or name in read:",
        "if name in _CREDENTIALS:",
        f"{WITHOUT_EFFECT}[the key's own header that would go upstream]",
    ),
    Defence(
        "the scheme is read in any case",
        IDENTITY,
        'if scheme.lower() != b"bearer" or not token:',
        'if scheme != b"Bearer" or not token:',
        "test_the_scheme_is_read_in_any_case[bearer]",
        "test_the_scheme_is_read_in_any_case[BEARER]",
    ),
    Defence(
        "a token that nobody has is called invalid",
        IDENTITY,
        "_CHALLENGE + b', error=\"invalid_token\"'",
        "_CHALLENGE",
        "test_a_token_that_nobody_has_is_called_invalid_and_a_missing_one_is_not",
    ),
    Defence(
        "two credentials in one request are refused",
        IDENTITY,
        "                if header:\n",
        "                if False:\n",
        "test_of_two_credentials_not_even_the_good_one_counts",
        also=[
            (
                HEADERS,
                '        b"authorization",\n        b"content-encoding",\n        b"content-length",\n        b"content-type",\n        b"expect",',
                '        b"content-encoding",\n        b"content-length",\n        b"content-type",\n        b"expect",',
            )
        ],
    ),
    Defence(
        "a session is its client's and its server's",
        FORWARD,
        "    if session is None:\n",
        '    if session is None and not (session := sealed.rpartition(b".")[0]):\n',
        "test_a_session_belongs_to_the_client_and_server_that_it_was_made_for",
    ),
    # Host, forwarding, request ids, URLs.
    Defence(
        "a server gets its own Host",
        FORWARD,
        'headers: Headers = [(b"host", authority), ',
        'headers: Headers = [(b"host", ex.headers.get(b"host", authority)), ',
        SEES,
    ),
    Defence(
        "a claimed X-Forwarded-For does not go up",
        FORWARD,
        'ex.client_ip.encode("ascii", "replace")',
        'ex.headers.get(b"x-forwarded-for", b"") + b", " + ex.client_ip.encode()',
        SEES,
    ),
    Defence(
        "a claimed address counts from trusted proxies alone",
        ADDRESSES,
        "    if not trusted:\n        return peer\n",
        "    if not trusted:\n        return forwarded_for.decode() if forwarded_for else peer\n",
        SEES,
        "test_an_address_that_is_claimed_gets_no_limit_of_its_own",
        also=[(PIPELINE, "if not ex.snapshot.trusted_networks or b", "if b")],
    ),
    Defence(
        "behind a trusted proxy the address that it saw counts, not the one it was told",
        ADDRESSES,
        "            if not _is_trusted(hop, trusted):\n                break\n",
        "",
        "test_a_trusted_proxy_may_say_who_asked",
    ),
    Defence(
        "a server is told by what name the gateway was asked",
        FORWARD,
        '        headers.append((b"x-forwarded-host", host))\n',
        "        pass\n",
        SEES,
    ),
    Defence(
        "a server is told how the gateway was asked",
        FORWARD,
        '    headers.append((b"x-forwarded-proto", request.scheme.encode()))\n',
        "",
        SEES,
    ),
    Defence(
        "the request id goes up",
        FORWARD,
        '    headers.append((b"x-request-id", ex.request_id))\n',
        "",
        SEES,
    ),
    Defence(
        "the request id is in the record",
        "mcpx/gateway/recording.py",
        'ex.request_id.decode("ascii"),',
        '"",',
        SEES,
    ),
    Defence(
        "a request id is bounded",
        EXCHANGE,
        "len(given) <= _MAX_REQUEST_ID and ",
        "",
        HARM,
    ),
    Defence(
        "a request id is of harmless characters",
        EXCHANGE,
        "and _REQUEST_ID.issuperset(given)",
        "",
        HARM,
    ),
    Defence(
        "every answer carries a request id",
        EXCHANGE,
        'headers: Headers = [(b"x-request-id", self.request_id)]',
        "headers: Headers = []",
        "test_every_answer_carries_a_request_id",
    ),
    Defence(
        "a URL is used as it is written, without a slash more or less",
        FORMS,
        'target = (path or "/") + query',
        'target = path.rstrip("/") + "/" + query',
        "test_the_url_is_used_exactly_as_it_is_written",
    ),
    # Pages in browsers.
    Defence(
        "a rebound name is refused",
        ORIGINS,
        "if not self._checks_host or host in self._hosts_known:",
        "if True:",
        "test_a_rebound_name_is_refused_on_a_loopback_listener[evil.example.com]",
        "test_a_rebound_name_is_refused_on_a_loopback_listener[127.0.0.1.evil.com]",
    ),
    Defence(
        "a foreign page is refused",
        ORIGINS,
        "if not (self._is_listed(origin, parsed) or self._is_own(parsed, host)):",
        "if False:",
        "test_a_foreign_page_is_refused[http://evil.example.com]",
        "test_a_foreign_page_is_refused[null]",
    ),
    Defence(
        "CORS is off until it is configured",
        ORIGINS,
        "        if not self._cors_enabled:\n            return ()\n",
        "",
        "test_pages_and_names_of_this_machine_are_served",
    ),
    Defence(
        "a page is allowed by its name, not by *",
        ORIGINS,
        'return ((b"Access-Control-Allow-Origin", origin), _VARY, exposed)',
        'return ((b"Access-Control-Allow-Origin", b"*"), _VARY, exposed)',
        LISTED,
    ),
    Defence(
        "pages may read the session id and what else they need",
        ORIGINS,
        'return ((b"Access-Control-Allow-Origin", origin), _VARY, exposed)',
        'return ((b"Access-Control-Allow-Origin", origin), _VARY)',
        LISTED,
    ),
    Defence(
        "CORS with origins alone allows the methods of MCP",
        ORIGINS,
        "methods = tuple(allowed_methods) or _METHODS",
        "methods = tuple(allowed_methods)",
        LISTED,
    ),
    Defence(
        "CORS with origins alone allows the headers of MCP",
        ORIGINS,
        '_token_list(headers or _HEADERS, "header")',
        '_token_list(headers, "header")',
        LISTED,
    ),
    Defence(
        "a server's own CORS headers are dropped",
        HEADS,
        "return _forwarded(headers, _TO_CLIENTS, _NO_NAMES)",
        'cors = {name for name, _ in headers if name.startswith(b"access-control-")}\n'
        "    return _forwarded(headers, _TO_CLIENTS | cors, _NO_NAMES)",
        "test_a_servers_own_cors_headers_do_not_stand_beside_the_gateways",
        "test_what_the_server_says_of_itself_stays_there",
    ),
    # What clients learn of the network behind.
    Defence(
        "an unreachable server's address is not told",
        "mcpx/transport/upstream.py",
        '"the server can\'t be reached", reason=f"connect',
        'f"the server can\'t be reached: {exc}", reason=f"connect',
        "test_an_unreachable_server_is_a_502_that_names_no_address",
    ),
    Defence(
        "a redirect is not passed on",
        RELAY,
        "if 300 <= status < 400 and status != 304:",
        "if False:",
        "test_a_redirect_is_not_followed_and_not_passed_on",
    ),
    Defence(
        "a refusal of the gateway's credentials is not passed on as the client's",
        RELAY,
        "if status in _REFUSED:",
        "if False:",
        "test_a_refusal_of_the_gateway_itself_is_not_the_clients",
    ),
    Defence(
        "a fault of the gateway is not described to clients",
        PIPELINE,
        "        except Exception:\n            log.exception(",
        "        except Exception as exc:\n            await self._refuse(ex, GatewayError(str(exc)))\n"
        "            return\n            log.exception(",
        "test_a_fault_of_the_gateway_tells_clients_nothing_of_the_network",
    ),
]
