"""`s2uc login`, `check-auth` and `logout`: the user's tokens, and whom a control server takes them for."""

from __future__ import annotations

import datetime
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.addresses import Endpoint
from scistream.cli.calling import (
    AS_JSON,
    CHANNEL,
    control_server,
    examples,
    parse_control_server,
)
from scistream.cli.telling import Teller
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, TOKEN_SERVERS_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from scistream.client import ControlServer
    from scistream.client.facts import AuthenticationFacts
    from scistream.client.login import Login
    from scistream.client.token_store import StoredToken
    from scistream.client.tokens import Tokens

__all__ = ["register"]

_PROGRAM: Final = "s2uc"
_CLIENT_VARIABLE: Final = "SCISTREAM_LOGIN_CLIENT_ID"
_PROVIDER_VARIABLE: Final = "SCISTREAM_LOGIN_PROVIDER"
_SCOPE_HELP: Final = "A control server's client id, or the scope that it demands in full."


def register(group: click.Group) -> None:
    """Add the commands."""
    for command in (_login, _check_auth, _logout):
        group.add_command(command)


@click.command(
    "login",
    epilog=examples(
        "s2uc login --scope 2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f --client-id 7b6a5c4d-3e2f-4a1b-9c8d-7e6f5a4b3c2d",
        "s2uc login --scope scistream --provider https://idp.example/realms/beam --client-id s2uc",
        "s2uc login --scope 2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f --s2cs gateway.example",
    ),
)
@click.option("--scope", required=True, help=_SCOPE_HELP)
@click.option(
    "--provider",
    envvar=_PROVIDER_VARIABLE,
    show_envvar=True,
    metavar="URL",
    help="The identity provider; default: as the last time, or https://auth.globus.org.",
)
@click.option(
    "--client-id",
    envvar=_CLIENT_VARIABLE,
    show_envvar=True,
    metavar="ID",
    help="Of the native app that you log in with, as registered there; default: as the last time.",
)
@click.option("--redirect-url", default="", metavar="URL", help="Its redirect address, where it has another.")
@click.option("--force", is_flag=True, help="Log in anew, also with a token that looks good.")
@click.option(
    "--s2cs",
    type=parse_control_server,
    metavar="HOST[:PORT]",
    help="The control server that gets the token from now on where --scope is not said.",
)
@AS_JSON
def _login(scope: str, as_json: bool, force: bool, s2cs: Endpoint | None, **options: Any) -> None:
    """Log in in a browser, and store the token for the commands that follow."""
    from scistream.auth.providers import parse_scope
    from scistream.client.tokens import Tokens

    tokens, teller, scope = Tokens(), Teller(_PROGRAM, as_json), parse_scope(scope)
    token = None if force else _there(tokens, scope)
    if token:
        teller.say(f"You are logged in already for {scope}.")
    else:
        token = _logged_in(tokens, scope, options)
        teller.say(f"You are logged in for {scope}.")
    if s2cs:
        tokens.bind(scope, str(s2cs))
        token = tokens.fresh(scope)
    if os.environ.get(TOKEN_VARIABLE):
        teller.warn(f"{TOKEN_VARIABLE} is set{_for_whom()}, and goes before what is stored here.")
    teller.say(_until(token))
    teller.say(_whither(token))
    teller.result(_as_dict(token, tokens.now()))


def _there(tokens: Tokens, scope: str) -> StoredToken | None:
    """A login that is good, or can be made so."""
    try:
        return tokens.fresh(scope)
    except SciStreamError as error:
        if error.code in {Code.LOGIN_WANTED, Code.LOGIN_FAILED}:
            return None
        raise


def _logged_in(tokens: Tokens, scope: str, options: dict[str, Any]) -> StoredToken:
    from scistream.client.login import begin, finish

    provider, client_id = _where(tokens, scope, options)
    login = tokens.ask(provider, lambda asker: begin(asker, provider, client_id, scope, options["redirect_url"]))
    words = _ask_user(login)
    token = tokens.ask(provider, lambda asker: finish(asker, login, words, tokens.now))
    tokens.keep(token)
    return token


def _where(tokens: Tokens, scope: str, options: dict[str, Any]) -> tuple[str, str]:
    """Provider and client id: as told, or as in the last login for the scope, or for the same provider."""
    from scistream.auth.providers import GLOBUS, parse_url

    stored = tokens.store.read()
    last = stored.get(scope)
    try:
        provider = parse_url(options["provider"] or (last.provider if last else GLOBUS))
    except ValueError as error:
        raise click.UsageError(f"--provider: {error}.") from None
    known = [last, *stored.values()]
    client_id = options["client_id"] or next((one.client_id for one in known if one and one.provider == provider), "")
    if not client_id:
        raise click.UsageError(
            f"Name the native app that you log in with at {provider}: --client-id ID, or {_CLIENT_VARIABLE} in the "
            "environment."
        )
    return provider, client_id


def _ask_user(login: Login) -> str:
    # On stderr, as every question: stdout may be a file.
    click.echo(f"Open this address in a browser, and log in:\n\n{login.url}\n", err=True)
    click.echo("Then paste the code here, or the whole address of the page that you were sent to: ", nl=False, err=True)
    words = sys.stdin.readline()
    if not sys.stdin.isatty():
        click.echo(err=True)
    return words


@click.command(
    "check-auth",
    epilog=examples(
        "s2uc check-auth --scope 2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f",
        "s2uc check-auth --s2cs gateway.example --scope 2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f",
    ),
)
@click.option(
    "--s2cs",
    "--ip",
    "s2cs",
    type=parse_control_server,
    metavar="HOST[:PORT]",
    help="The control server that is asked; without one, only what is stored here is told.",
)
@CHANNEL
@AS_JSON
def _check_auth(s2cs: Endpoint | None, as_json: bool, **options: Any) -> None:
    """Say whom a control server takes you for, or which tokens are stored here."""
    from scistream.client import connect

    teller = Teller(_PROGRAM, as_json, options["compat"])
    if s2cs is None:
        _tell_stored(teller, options["scope"])
        return
    server = control_server(s2cs, options)
    with connect(server) as connection:
        facts = connection.check_authentication()
    _tell_facts(teller, server, facts)


def _tell_facts(teller: Teller, server: ControlServer, facts: AuthenticationFacts) -> None:
    if facts.authentication == NO_AUTH:
        teller.say(f"The control server {server.address} lets everybody in ({NO_AUTH}): no token is needed there.")
    else:
        username = f" ({facts.username})" if facts.username else ""
        operator = ", one of its operators" if facts.is_operator else ""
        teller.say(f"The control server {server.address} takes you for {facts.owner}{username}{operator}.")
        teller.say(f"  by {facts.authentication}; it wants a token for {facts.scope}")
        if facts.expires:
            teller.say(f"  the token ends at {_time(facts.expires)}")
    teller.result(facts.as_dict() | {"control_server": str(server.address)})


def _tell_stored(teller: Teller, scope: str | None) -> None:
    from scistream.auth.providers import parse_scope
    from scistream.client.tokens import Tokens

    tokens = Tokens()
    spelled = parse_scope(scope) if scope else None
    chosen = [token for token in tokens.store.read().values() if spelled in {None, token.scope}]
    in_environment = bool(os.environ.get(TOKEN_VARIABLE))
    if in_environment:
        teller.say(f"{TOKEN_VARIABLE} is set{_for_whom()}: it goes before what is stored here.")
    elif not any(token.refresh_token or token.lasts(tokens.now()) for token in chosen):
        raise SciStreamError(Code.LOGIN_WANTED, scope=spelled or "SCOPE")
    for token in chosen:
        teller.say(f"{token.scope} ({token.provider})")
        teller.say(f"  {_until(token)}")
        teller.say(f"  {_whither(token)}")
    teller.say("No control server was asked: name one with --s2cs.")
    teller.result({"environment": in_environment, "tokens": [_as_dict(token, tokens.now()) for token in chosen]})


@click.command("logout", epilog=examples("s2uc logout", "s2uc logout --scope 2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f"))
@click.option("--scope", help=f"{_SCOPE_HELP} Default: all that are stored.")
@AS_JSON
def _logout(scope: str | None, as_json: bool) -> None:
    """Forget tokens, and have them revoked where they came from."""
    from scistream.client.tokens import Tokens

    teller = Teller(_PROGRAM, as_json)
    gone, failures = Tokens().forget(scope)
    for token in gone:
        teller.say(f"The token for {token.scope} is forgotten.")
    if not gone and not failures:
        teller.say("There was none.")
    for failure in failures:
        teller.warn(f"forgotten here, and perhaps not at the provider: {failure.seen}; its access token ends by itself")
    reasons = [failure.failure() for failure in failures]
    teller.result({"forgotten": [token.scope for token in gone], "not_revoked": reasons})


def _as_dict(token: StoredToken, now: float) -> dict[str, Any]:
    return {
        "scope": token.scope,
        "provider": token.provider,
        "expires": token.expires,
        "is_good": token.lasts(now),
        "is_refreshed": bool(token.refresh_token),
        "control_servers": list(token.servers),
    }


def _until(token: StoredToken) -> str:
    end = _time(token.expires) if token.expires else "a time that the provider does not tell"
    return f"The token lasts until {end}" + (", and is refreshed then." if token.refresh_token else ".")


def _for_whom() -> str:
    servers = os.environ.get(TOKEN_SERVERS_VARIABLE)
    return f" for {servers}" if servers else ""


def _whither(token: StoredToken) -> str:
    if not token.servers:
        return "It is sent where --scope names it; that control server gets it without --scope from then on."
    return f"Without --scope it is sent to {', '.join(token.servers)}."


def _time(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
