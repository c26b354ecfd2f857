"""Whom tokens speak for, what servers are shown, which tools are still theirs, whose results.

It is long because it is a table: an entry says where its defence is, and what holds it.
"""

from defence import Defence

PIPELINE = "mcpx/gateway/pipeline.py"
FORWARD = "mcpx/gateway/forward.py"
FRONT = "mcpx/gateway/front_door.py"
RELAY = "mcpx/gateway/relay.py"
INSPECTION = "mcpx/gateway/inspection.py"
RELISTING = "mcpx/gateway/relisting.py"
TOOLS = "mcpx/gateway/server_tools.py"
CACHING = "mcpx/gateway/caching.py"
STATE = "mcpx/gateway/state.py"
TOKENS = "mcpx/gateway/tokens.py"
TRUST = "mcpx/gateway/trust.py"
JWT = "mcpx/core/jwt.py"
OAUTH = "mcpx/core/oauth.py"
INTEGRITY = "mcpx/core/integrity.py"
CACHE = "mcpx/core/response_cache.py"
OUTCOME = "mcpx/core/outcome.py"
TRACE = "mcpx/core/trace_context.py"
JWKS = "mcpx/services/jwks.py"
SHOWN = "mcpx/services/credentials.py"
ERRAND = "mcpx/services/errand.py"
OUTBOUND = "mcpx/services/outbound.py"
HEADS = "mcpx/_speedups/heads_py.py"
SNAPSHOT = "mcpx/config/snapshot.py"
VALIDATE = "mcpx/config/validate.py"
VALIDATE_SHOWN = "mcpx/config/validate_server_auth.py"

CLAIMS = "test_what_a_good_key_signed_must_say_who_for_whom_and_how_long"
SIGNED = "test_what_no_trusted_key_signed_as_it_should_is_refused"
ONE_SERVER = "test_a_token_for_one_server_is_good_at_no_other"
SCOPES = "test_an_operation_needs_its_scopes_and_is_told_all_of_them"
NO_KEYS = "test_without_keys_nobody_is_told_that_the_token_is_bad"
NEW_KEY = "test_a_new_key_is_fetched_once_and_what_the_old_one_signed_is_refused"
AGAIN = "test_a_token_that_is_refused_is_renewed_and_the_call_sent_again_once"
SECOND_REFUSAL = "test_a_second_refusal_is_told_as_the_gateways_own"
NOTHING_SENT = "test_without_a_token_nothing_is_sent"
ANY_MEMBER = "test_a_change_of_any_member_is_refused"
RESTART = "test_a_change_across_a_restart_is_seen"
NEVER_SEEN = "test_a_call_of_a_tool_never_seen_lists_first"
NO_LIST = "test_without_a_list_a_call_is_refused_in_enforce_and_passes_in_warn"
REPLAY = "test_a_replay_adds_refusals_takes_none_back_and_pins_nothing"
ANOTHERS = "test_one_clients_result_is_not_anothers_unless_it_is_public"
NOT_AGAIN = "test_what_must_not_be_given_again_is_not"
EMPTIES = "test_list_changed_empties_the_servers_part"
SPANS = "test_a_request_becomes_three_spans_and_the_server_is_told_its_parent"

TOKENS_OF_OTHERS = [
    # Signatures.
    Defence(
        "a token must have a good signature",
        JWT,
        "            if model.verify(signed, signature, candidate.key):\n",
        "            if True:\n",
        f"{SIGNED}[a key that nobody trusts]",
        f"{SIGNED}[such a key, put into the token]",
        f"{SIGNED}[another one's signature]",
    ),
    Defence(
        "a token that is not signed proves nothing",
        JWT,
        "    if not isinstance(algorithm, str) or algorithm not in _TABLE:\n",
        '    if isinstance(algorithm, str) and algorithm.lower() == "none":\n'
        '        return "none", None\n'
        "    if not isinstance(algorithm, str) or algorithm not in _TABLE:\n",
        f"{SIGNED}[none]",
        f"{SIGNED}[nOnE]",
        also=[
            (
                JWT,
                "    candidates = keys.candidates(kid, algorithm)\n",
                (
                    '    if algorithm == "none":\n        return keys._all[0]\n'
                    "    candidates = keys.candidates(kid, algorithm)\n"
                ),
            )
        ],
    ),
    Defence(
        "a public key is never taken for a shared secret",
        JWT,
        "    if not isinstance(algorithm, str) or algorithm not in _TABLE:\n",
        '    if not isinstance(algorithm, str) or algorithm not in {*_TABLE, "HS256"}:\n',
        f"{SIGNED}[a secret that is the key's PEM]",
        "test_no_kind_of_public_key_is_taken_for_a_secret[RS256]",
        also=[
            (
                JWT,
                "    candidates = keys.candidates(kid, algorithm)\n",
                (
                    '    if algorithm == "HS256":\n'
                    "        import hmac\n\n"
                    "        for each in keys._all:\n"
                    "            pem = each.key.as_pem(private=False)\n"
                    '            if hmac.digest(pem, signed, "sha256") == signature:\n'
                    "                return each\n"
                    '        raise TokenRefused("algorithm", "it is none of ours")\n'
                    "    candidates = keys.candidates(kid, algorithm)\n"
                ),
            )
        ],
    ),
    Defence(
        "a key is for the algorithm that it names",
        JWT,
        "return self.algorithm is None or _MODELS[self.algorithm] is _MODELS[algorithm]",
        "return True",
        "test_a_key_for_one_algorithm_verifies_no_other",
    ),
    Defence(
        "a token that asks for what is not supported is refused",
        JWT,
        'if "crit" in head or "cty" in head or "zip" in head or head.get("b64", True) is not True:',
        "if False:",
        f"{SIGNED}[an extension]",
        f"{SIGNED}[b64 alone]",
    ),
    Defence(
        "a token of another type is no access token",
        JWT,
        "    if not isinstance(typ, str) or typ.lower() not in _TYPES:\n",
        "    if False:\n",
        f"{SIGNED}[a logout token]",
        f"{SIGNED}[a proof]",
    ),
    Defence(
        "a token is written in one way",
        JWT,
        '    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:\n',
        "    if False:\n",
        f"{SIGNED}[bits that say nothing]",
    ),
    # Claims.
    Defence(
        "a claim that stands twice is refused",
        JWT,
        "    if len(value) != len(pairs):\n",
        "    if False:\n",
        f"{CLAIMS}[two users]",
        f"{CLAIMS}[one user written in two ways]",
    ),
    Defence(
        "a token of another issuer is refused",
        JWT,
        'if rules.issuer is not None and document.get("iss") != rules.issuer:',
        "if False:",
        f"{CLAIMS}[another issuer]",
        f"{CLAIMS}[no issuer]",
    ),
    Defence(
        "an issuer is compared as it is written",
        JWT,
        'document.get("iss") != rules.issuer:',
        'str(document.get("iss")).rstrip("/") != rules.issuer.rstrip("/"):',
        f"{CLAIMS}[an issuer with a slash]",
    ),
    Defence(
        "a token that has expired is refused",
        JWT,
        "    if now >= expires_at + rules.leeway_s:\n",
        "    if False:\n",
        f"{CLAIMS}[expired long ago]",
        f"{CLAIMS}[expired beyond the leeway]",
    ),
    Defence(
        "a token that never expires is refused",
        JWT,
        '        raise TokenRefused("expired", "it does not say when it expires")\n',
        "        expires_at = _LAST_TIME\n",
        f"{CLAIMS}[no end]",
    ),
    Defence(
        "a token that is not valid yet is refused",
        JWT,
        "        if begins is not None and begins > now + rules.leeway_s:\n",
        "        if False:\n",
        f"{CLAIMS}[not yet valid]",
        f"{CLAIMS}[made in the future]",
    ),
    Defence(
        "a name that could be taken for another is no user's",
        JWT,
        "    if len(name) > _LONGEST_NAME or not name.isprintable() or name != name.strip():\n",
        "    if False:\n",
        f"{CLAIMS}[a user with a hidden mark]",
        f"{CLAIMS}[a user with a blank at the end]",
    ),
    Defence(
        "an authorization server can't speak for a client with a credential of its own",
        JWT,
        "    if name in rules.reserved:\n",
        "    if False:\n",
        f"{CLAIMS}[a static client's name]",
        f"{CLAIMS}[the name of the one token]",
    ),
    # For which endpoint.
    Defence(
        "a token for another resource is refused",
        OAUTH,
        "    if accepted.isdisjoint(claims.audiences):\n",
        "    if False:\n",
        f"{CLAIMS}[another server's]",
        f"{CLAIMS}[no audience]",
        ONE_SERVER,
    ),
    Defence(
        "each server is a resource of its own",
        SNAPSHOT,
        "also_accepted=[own] if settings.accept_gateway_audience else (),",
        "also_accepted=[own, *(resource_for(own, each.name) for each in config.servers)]\n"
        "            if settings.accept_gateway_audience\n            else (),",
        ONE_SERVER,
    ),
    Defence(
        "tokens for the gateway as a whole can be refused",
        SNAPSHOT,
        "also_accepted=[own] if settings.accept_gateway_audience else (),",
        "also_accepted=[own],",
        "test_the_gateways_own_audience_can_be_refused",
    ),
    Defence(
        "a token that is known is for its endpoint all the same",
        OAUTH,
        "        check_audience(claims, accepted)\n        return claims\n",
        "        return claims\n",
        ONE_SERVER,
    ),
    Defence(
        "the gateway's own pages want a token for the gateway",
        SNAPSHOT,
        '        initial=scopes.initial(""),\n    )\n',
        '        initial=scopes.initial(""),\n'
        "        also_accepted=[resource_for(own, each.name) for each in config.servers],\n    )\n",
        "test_the_gateways_pages_want_a_token_for_the_gateway",
    ),
    Defence(
        "who shows no token is told where to get one",
        PIPELINE,
        "        if ex.snapshot.oauth is not None and not any(\n",
        "        if False and not any(\n",
        "test_who_shows_no_token_is_told_where_to_get_one",
    ),
    # What it may be used for.
    Defence(
        "an operation needs its scopes",
        PIPELINE,
        "        find_route(ex)\n        check_scopes(ex)\n",
        "        find_route(ex)\n",
        SCOPES,
        "test_streams_and_ends_of_sessions_need_their_scopes",
        "test_a_kept_result_is_for_tokens_that_could_have_got_it",
    ),
    Defence(
        "a look-alike of a tool needs the tool's scopes",
        OAUTH,
        "return self._exact.matches(text) or self._alike.matches(fold(text))",
        "return self._exact.matches(text)",
        SCOPES,
    ),
    # The keys of the authorization server.
    Defence(
        "who sends unknown keys does not decide how often keys are fetched",
        JWKS,
        "            if now < self._asked_at + self._min_interval_s:\n",
        "            if False:\n",
        NEW_KEY,
    ),
    Defence(
        "nobody is let in because keys can't be had",
        PIPELINE,
        "    except KeysUnavailable:\n        limit_stranger(ex, state)\n        raise\n",
        "    except KeysUnavailable:\n        limit_stranger(ex, state)\n",
        NO_KEYS,
        "test_what_is_no_key_set_is_none[answer2]",
    ),
    Defence(
        "a token is not called bad because keys can't be had",
        PIPELINE,
        "    except KeysUnavailable:\n        limit_stranger(ex, state)\n        raise\n",
        "    except KeysUnavailable:\n        limit_stranger(ex, state)\n"
        "        raise resource_of(ex).missing() from None\n",
        NO_KEYS,
    ),
    Defence(
        "who asks while there are no keys is limited",
        PIPELINE,
        "    except KeysUnavailable:\n        limit_stranger(ex, state)\n",
        "    except KeysUnavailable:\n",
        "test_who_asks_for_nothing_while_there_are_no_keys_is_limited_too",
    ),
    Defence(
        "old keys are not used for ever",
        JWKS,
        "if self._keys is not None and self._clock() - self._fetched_at < self._max_stale_s:",
        "if self._keys is not None:",
        "test_old_keys_are_used_while_no_new_ones_can_be_had",
    ),
    Defence(
        "what a withdrawn key has signed is forgotten",
        TOKENS,
        "        self._seen.keep_only(keys.thumbprints)\n",
        "        pass\n",
        NEW_KEY,
    ),
    Defence(
        "keys of one authorization server are not another's",
        TRUST,
        "if before.tokens is not None and before._key_settings == self._key_settings:",
        "if before.tokens is not None:",
        "test_a_reload_to_another_issuer_trusts_the_old_ones_keys_no_more",
    ),
    Defence(
        "metadata of another issuer is not believed",
        JWKS,
        '        elif document.get("issuer") != issuer:\n',
        "        elif False:\n",
        "test_metadata_of_another_issuer_is_not_believed",
    ),
    Defence(
        "metadata can't make the gateway ask its own network",
        JWKS,
        "guarded = _origin(uri) != _origin(self._issuer)",
        "guarded = False",
        "test_metadata_can_not_make_the_gateway_ask_its_own_network",
    ),
]

SHOWN_TO_SERVERS = [
    Defence(
        "a client's token never goes up, not even beside the gateway's own",
        HEADS,
        "return _forwarded(headers, _TO_SERVERS, extra)",
        'return _forwarded(headers, _TO_SERVERS | {b"authorization"}, extra)',
        "test_a_token_never_travels_upstream_in_whatever_place",
        "test_each_server_is_shown_its_own_and_nothing_of_the_clients[bearer]",
        "test_a_token_that_is_got_is_shown_alone",
    ),
    Defence(
        "a token in the query never goes up",
        FRONT,
        '    if "access_token" in given:\n',
        "    if False:\n",
        "test_a_token_in_a_query_that_would_be_forwarded_is_refused",
    ),
    Defence(
        "a client's header can't be configured to go up beside the gateway's",
        VALIDATE,
        "        elif name in shown:\n",
        "        elif False:\n",
        "test_a_clients_header_can_not_be_passed_on_beside_it[X-Upstream-Key]",
    ),
    Defence(
        "a header that clients set can hold no credential",
        VALIDATE_SHOWN,
        "    elif name in PASSED_ON_HEADERS:\n",
        "    elif False:\n",
        "test_a_header_that_clients_set_can_hold_no_credential[User-Agent]",
        "test_a_header_that_clients_set_can_hold_no_credential[Traceparent]",
    ),
    Defence(
        "without its credential nothing is sent to a server",
        SHOWN,
        "            if token is None or self._clock() >= token.expires_at:\n"
        "                raise self._unavailable()\n",
        "            if token is None or self._clock() >= token.expires_at:\n"
        "                return []\n",
        f"{NOTHING_SENT}[answer0]",
        "test_a_token_endpoint_that_nobody_listens_at",
    ),
    Defence(
        "a token that is refused is renewed, and the call sent again",
        FORWARD,
        "    if answer.head.status != 401 or not credential.rejected(shown):\n",
        "    if True:\n",
        AGAIN,
        "test_many_calls_whose_token_is_refused_share_the_next_one",
    ),
    Defence(
        "a call whose token is refused is sent again once",
        FORWARD,
        "    return await send(shown)\n",
        "    return await shown_to(credential, watch, send)\n",
        SECOND_REFUSAL,
        also=[
            (
                SHOWN,
                "        if self._clock() < token.got_at + self._again_s:\n",
                "        if False:\n",
            )
        ],
    ),
    Defence(
        "a token that is refused when it is new is not got again",
        SHOWN,
        "        if self._clock() < token.got_at + self._again_s:\n",
        "        if False:\n",
        SECOND_REFUSAL,
    ),
    Defence(
        "a server's 401 about the gateway's own credential is not the client's",
        RELAY,
        "    if status in _REFUSED:\n",
        "    if False:\n",
        SECOND_REFUSAL,
        "test_a_fixed_credential_that_is_refused_is_not_sent_again",
    ),
    Defence(
        "an authorization server is asked once for all who wait",
        ERRAND,
        "        if not self.under_way:\n",
        "        if True:\n",
        "test_a_token_is_asked_for_once_for_a_hundred_calls[basic]",
    ),
    Defence(
        "an authorization server that fails is left alone for a while",
        SHOWN,
        "            self._pauses.failed(self._clock())\n",
        "",
        f"{NOTHING_SENT}[answer0]",
    ),
    Defence(
        "a redirect is not followed with the client's secret",
        OUTBOUND,
        "follow_redirects=False,",
        "follow_redirects=True,",
        "test_a_redirect_of_the_token_endpoint_is_not_followed",
    ),
    Defence(
        "what an authorization server says is not repeated",
        SHOWN,
        "if isinstance(code, str) and code in _ERRORS else",
        "if isinstance(code, str) else",
        "test_secrets_are_in_no_output[basic]",
        f"{NOTHING_SENT}[answer2]",
    ),
]

TOOLS_AS_PINNED = [
    Defence(
        "a tool that has changed is left out of lists",
        INSPECTION,
        "            if kind is Kind.TOOL and self._enforces and (name is None or name in refused):\n",
        "            if False:\n",
        f"{ANY_MEMBER}[description]",
        "test_a_changed_tool_is_left_out_of_the_clients_list[10-sse]",
    ),
    Defence(
        "a tool that has changed can't be called",
        PIPELINE,
        "            await check_tool(ex, self.state)\n",
        "",
        f"{ANY_MEMBER}[inputSchema]",
        "test_a_refused_tool_is_refused_though_its_result_is_cached",
    ),
    Defence(
        "a tool that was never seen is looked at before it is called",
        RELISTING,
        "        if reason != LISTING_NEEDED:\n            break\n",
        "        if reason == LISTING_NEEDED:\n            reason = None\n        break\n",
        f"{NEVER_SEEN}[json]",
        f"{RESTART}[enforce]",
    ),
    Defence(
        "a tool that can't be looked at is not called",
        INTEGRITY,
        "return NOT_LISTED_REASON if self._whole and tool not in self._seen else UNVERIFIED_REASON",
        "return None",
        f"{NO_LIST}[no JSON-enforce]",
        f"{NEVER_SEEN}[json]",
    ),
    Defence(
        "a list under another id is not the one that was asked for",
        RELISTING,
        "        if not _answers(text, message_id):\n",
        "        if False:\n",
        f"{NO_LIST}[another id-enforce]",
    ),
    Defence(
        "a tool that stands twice with two definitions is refused",
        INTEGRITY,
        "        if other is not None:\n",
        "        if False:\n",
        "test_tools_that_can_not_be_judged_are_refused",
    ),
    Defence(
        "pins outlast the process",
        TOOLS,
        "            self.store.put(integrity.server, report)\n",
        "            pass\n",
        f"{RESTART}[enforce]",
        "test_the_first_sight_is_silent_and_lasts",
    ),
    Defence(
        "a change that is announced makes the gateway look again",
        STATE,
        "        self.watcher.expire(server)\n",
        "",
        "test_a_change_announced_on_a_get_stream_is_seen_by_the_next_call",
    ),
    Defence(
        "a change that is not announced is seen after a while",
        INTEGRITY,
        "return seen is not None and -SLACK_S <= now - seen <= self._max_age_s",
        "return seen is not None and -SLACK_S <= now - seen",
        "test_a_silent_change_is_seen_after_max_age",
    ),
    Defence(
        "a clock that is put back makes nothing fresh",
        INTEGRITY,
        "return seen is not None and -SLACK_S <= now - seen <= self._max_age_s",
        "return seen is not None and now - seen <= self._max_age_s",
        "test_a_clock_that_is_put_back_neither_freezes_nor_renews_what_was_seen",
    ),
    Defence(
        "a list that is replayed pins nothing and takes no refusal back",
        TOOLS,
        "generation=generation if generation is not None else -1,",
        "generation=generation,",
        REPLAY,
    ),
    Defence(
        "a list of before the change takes no refusal back",
        INTEGRITY,
        "        if generation is not None and generation != self.generation:\n",
        "        if False:\n",
        "test_a_list_of_before_the_change_takes_no_refusal_back",
    ),
    Defence(
        "a list of before a reload is not taken for one of after it",
        TOOLS,
        "generation = observed.generation if current else None",
        "generation = integrity.generation",
        "test_a_list_of_before_the_server_moved_is_not_taken_for_its_own",
        also=[(TOOLS, "        if not current:\n            return report.refused\n", "")],
    ),
    Defence(
        "a session that has ended has ended for its client alone",
        RELISTING,
        "own = isinstance(error, _Unlisted | _Failed | Overloaded | UpstreamUnavailable)",
        "own = isinstance(error, Overloaded | UpstreamUnavailable)",
        "test_an_ended_session_is_a_404_for_its_client_alone",
        "test_who_has_the_server_fail_has_it_fail_for_nobody_else[500]",
    ),
    Defence(
        "a result under another id does not pass",
        OUTCOME,
        "return word, not _same_id(response.id, asked)",
        "return word, False",
        "test_a_result_under_another_id_does_not_pass[at once]",
        "test_a_result_under_another_id_does_not_pass[in events]",
    ),
]

KEPT_RESULTS = [
    Defence(
        "a result is for the client that it was made for",
        CACHING,
        "Identity(ex.principal.name, ex.principal.authenticated, ex.session)",
        'Identity("", ex.principal.authenticated, ex.session)',
        ANOTHERS,
    ),
    Defence(
        "a result is for the session that it was made in",
        CACHING,
        "Identity(ex.principal.name, ex.principal.authenticated, ex.session)",
        "Identity(ex.principal.name, ex.principal.authenticated, None)",
        "test_a_session_keeps_its_results_for_itself",
    ),
    Defence(
        "a result is for the headers that went up for it",
        CACHING,
        "        _extras(ex),\n",
        "        (),\n",
        "test_headers_that_go_up_tell_calls_apart",
    ),
    Defence(
        "a result that its server calls private is shared with nobody",
        CACHE,
        '        if self.shared is None or storable.scope == "private":\n',
        "        if self.shared is None:\n",
        "test_the_configuration_may_vouch_for_a_tool",
    ),
    Defence(
        "a result of which nothing is said is shared with nobody",
        CACHE,
        '        if storable.scope == "public" or self.sharing is Sharing.UNLESS_PRIVATE:\n',
        "        if True:\n",
        ANOTHERS,
    ),
    Defence(
        "a tool's error is not kept",
        CACHE,
        '            if raw != b"false":\n',
        "            if False:\n",
        f"{NOT_AGAIN}[more0]",
    ),
    Defence(
        "a result that its server gives no time is not kept",
        CACHE,
        "            if not ttl_s > 0:\n",
        "            if False:\n",
        f"{NOT_AGAIN}[more2]",
        also=[(CACHE, "        ttl_s = min(ttl_s, body.ttl_s)\n", "")],
    ),
    Defence(
        "a result that can be read in two ways is not kept",
        CACHE,
        "            if key.casefold() in _FOLDED:\n",
        "            if False:\n",
        f"{NOT_AGAIN}[more4]",
    ),
    Defence(
        "a result is kept no longer than its server lets it be",
        CACHE,
        "        ttl_s = min(ttl_s, body.ttl_s)\n",
        "",
        "test_a_result_ends_at_its_time",
    ),
    Defence(
        "results go when the server says that its tools changed",
        STATE,
        "            self.cache.purge_server(server)\n",
        "            pass\n",
        EMPTIES,
        "test_a_result_that_was_under_way_while_the_tools_changed_is_not_kept",
    ),
    Defence(
        "a result that was under way while the tools changed is not kept",
        CACHING,
        "self._cache.keep(self.keys, found, self._ttl_s, trio.current_time(), self._tags)",
        "tags = self._cache.tags(self._tags.server, self._tags.tool)\n"
        "        self._cache.keep(self.keys, found, self._ttl_s, trio.current_time(), tags)",
        "test_a_result_that_was_under_way_while_the_tools_changed_is_not_kept",
    ),
    Defence(
        "the results of a tool go when its definition changes",
        TOOLS,
        "                self._changed(finding.server, finding.tool)\n",
        "                pass\n",
        "test_a_cached_result_is_not_given_of_a_tool_that_has_changed",
    ),
    Defence(
        "like calls at one time reach the server once",
        CACHING,
        "        turn.share(found)\n",
        "        turn.decline()\n",
        "test_five_hundred_like_calls_at_once_reach_the_server_once",
    ),
    Defence(
        "the policy is asked before the cache",
        PIPELINE,
        "        else:\n            judge(ex)\n",
        "        else:\n"
        "            kept = caching_of(ex, self.state)\n"
        "            if kept is None or not self.state.cache.find(kept.keys, trio.current_time()):\n"
        "                judge(ex)\n",
        "test_the_policy_is_asked_before_the_cache",
    ),
]

TRACES = [
    Defence(
        "a server is told its parent, and no other",
        FORWARD,
        "            headers = [pair for pair in headers if pair[0] not in FIELDS]\n",
        "            pass\n",
        SPANS,
    ),
    Defence(
        "a server is told where it is in the trace",
        FORWARD,
        "        headers += ex.trace.outgoing()\n",
        "",
        SPANS,
    ),
    Defence(
        "the message's own trace wins over the header's",
        TRACE,
        "    return meta, header\n",
        "    return header, meta\n",
        SPANS,
    ),
]

TRUSTED = [
    *TOKENS_OF_OTHERS,
    *SHOWN_TO_SERVERS,
    *TOOLS_AS_PINNED,
    *KEPT_RESULTS,
    *TRACES,
]
