"""Every defence that the tests on the wire hold; the entries stand in ``table_*``, by subject."""

from __future__ import annotations

from defence import Defence
from table_callers import CALLERS
from table_messages import MESSAGES
from table_operation import OPERATION
from table_trust import TRUSTED

__all__ = ["CANARY", "DEFENCES"]

#: What must stay green whatever is taken out: the gateway still works.
CANARY = "test_requests_that_are_sent_ahead_are_answered_in_order"

DEFENCES: tuple[Defence, ...] = (*MESSAGES, *CALLERS, *OPERATION, *TRUSTED)
