"""The client: what `s2uc`, `appctrl` and the Ansible modules speak to control servers with.

with connect(ControlServer(Endpoint.parse("gateway.example:5000"), Path("server.crt"))) as connection:
request = SessionRequest(uid, Direction.INBOUND, targets, connections=1, key=new_key())
session = open_session(connection, request)
"""

from __future__ import annotations

from scistream.client.channel import Answer, Connection, ControlServer, Pending, Watch, connect
from scistream.client.comparison import Action, Outcome, Wish, make_wish
from scistream.client.convergence import ensure_absent, ensure_session, plan_absent, plan_session
from scistream.client.facts import AbilityFacts, AuthenticationFacts, EngineFacts, ServerFacts
from scistream.client.kept_tickets import kept_ticket, own_place, place_for
from scistream.client.names import default_site_secret, parse_name, site_secret, uid_of
from scistream.client.negotiation import await_session, open_session, register, release_session
from scistream.client.opening import Opener, open_with_ticket, withdraw
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session, SessionEvent, Traffic
from scistream.client.tickets import Ticket, new_key
from scistream.hops import Via, parse_via

__all__ = [
    "AbilityFacts",
    "Action",
    "Answer",
    "AuthenticationFacts",
    "Connection",
    "ControlServer",
    "EngineFacts",
    "Opener",
    "Outcome",
    "Pending",
    "ServerFacts",
    "Session",
    "SessionEvent",
    "SessionRequest",
    "Ticket",
    "Traffic",
    "Via",
    "Watch",
    "Wish",
    "await_session",
    "connect",
    "default_site_secret",
    "ensure_absent",
    "ensure_session",
    "kept_ticket",
    "make_wish",
    "new_key",
    "open_session",
    "open_with_ticket",
    "own_place",
    "parse_name",
    "parse_via",
    "place_for",
    "plan_absent",
    "plan_session",
    "register",
    "release_session",
    "site_secret",
    "uid_of",
    "withdraw",
]
