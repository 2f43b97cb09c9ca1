"""The error catalogue: every failure that a person can meet, once, for command line, modules, server and documentation.

An error says what was seen, the likely cause and the remedy (the guide's own where it has one), and carries a stable
code, the protocol draft's code, a gRPC status and an exit code. `docs/errors.md` is generated from here.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

__all__ = ["CATALOGUE", "Code", "Entry", "ExitCode", "SciStreamError", "one_line"]


class ExitCode(enum.IntEnum):
    """What the command line tools exit with, by class of error (U50)."""

    OK = 0
    INTERNAL = 1
    BAD_INPUT = 2
    AUTHENTICATION = 3
    SESSION = 4
    RESOURCE = 5
    CONNECTION = 6
    CERTIFICATE = 7
    DATA_SERVER = 8
    TIMEOUT = 9
    UNSUPPORTED = 10
    INTERRUPTED = 130


class Code(enum.StrEnum):
    """The stable codes. Once released, a code is never renamed and never changes its meaning."""

    ALREADY_RUNNING = "ALREADY_RUNNING"
    APPLICATION_FAILED = "APPLICATION_FAILED"
    AUTHENTICATION_CONTRADICTORY = "AUTHENTICATION_CONTRADICTORY"
    AUTHENTICATION_REFUSED = "AUTHENTICATION_REFUSED"
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"
    AUTHENTICATION_UNDECIDED = "AUTHENTICATION_UNDECIDED"
    AUTHORITY_STILL_NEEDED = "AUTHORITY_STILL_NEEDED"
    BAD_ADDRESS = "BAD_ADDRESS"
    BAD_CONFIGURATION = "BAD_CONFIGURATION"
    BAD_CONNECTIONS = "BAD_CONNECTIONS"
    BAD_ENCRYPTION = "BAD_ENCRYPTION"
    BAD_LEASE = "BAD_LEASE"
    BAD_MESSAGE = "BAD_MESSAGE"
    BAD_NAME = "BAD_NAME"
    BAD_PORT_RANGE = "BAD_PORT_RANGE"
    BAD_RATE = "BAD_RATE"
    BAD_ROLE = "BAD_ROLE"
    BAD_SESSION_KEY = "BAD_SESSION_KEY"
    BAD_SOURCES = "BAD_SOURCES"
    BAD_TICKET = "BAD_TICKET"
    BAD_TOKEN_STORE = "BAD_TOKEN_STORE"
    BAD_TRANSPORT = "BAD_TRANSPORT"
    BAD_UID = "BAD_UID"
    BAD_USAGE = "BAD_USAGE"
    BAD_VIA = "BAD_VIA"
    CERTIFICATE_CHAIN_BROKEN = "CERTIFICATE_CHAIN_BROKEN"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_KEY_MISMATCH = "CERTIFICATE_KEY_MISMATCH"
    CERTIFICATE_MISSING = "CERTIFICATE_MISSING"
    CERTIFICATE_NOT_TRUSTED = "CERTIFICATE_NOT_TRUSTED"
    CERTIFICATE_NOT_YET_VALID = "CERTIFICATE_NOT_YET_VALID"
    CERTIFICATE_UNREADABLE = "CERTIFICATE_UNREADABLE"
    CERTIFICATE_WEAK = "CERTIFICATE_WEAK"
    CERTIFICATE_WRONG_NAME = "CERTIFICATE_WRONG_NAME"
    CONFIGURATION_REJECTED = "CONFIGURATION_REJECTED"
    CONFIGURATION_UNREADABLE = "CONFIGURATION_UNREADABLE"
    CONTROL_PORT_CLOSED = "CONTROL_PORT_CLOSED"
    CONTROL_PORT_IN_USE = "CONTROL_PORT_IN_USE"
    CONTROL_SERVER_BROKEN = "CONTROL_SERVER_BROKEN"
    CONTROL_SERVER_ENDING = "CONTROL_SERVER_ENDING"
    CONTROL_SERVER_UNREACHABLE = "CONTROL_SERVER_UNREACHABLE"
    DATA_SERVER_FAILED = "DATA_SERVER_FAILED"
    DATA_SERVER_LOST = "DATA_SERVER_LOST"
    DATA_SERVER_SILENT = "DATA_SERVER_SILENT"
    DATA_SERVER_STUCK = "DATA_SERVER_STUCK"
    DATA_SERVER_UNRESPONSIVE = "DATA_SERVER_UNRESPONSIVE"
    DEADLINE = "DEADLINE"
    DEMO_DIRECTORY_FOREIGN = "DEMO_DIRECTORY_FOREIGN"
    DEMO_PORTS_IN_USE = "DEMO_PORTS_IN_USE"
    DEMO_RUNNING = "DEMO_RUNNING"
    ENCRYPTION_MISMATCH = "ENCRYPTION_MISMATCH"
    ENCRYPTION_UNAVAILABLE = "ENCRYPTION_UNAVAILABLE"
    ENDED_MEANWHILE = "ENDED_MEANWHILE"
    ENGINE_CANNOT = "ENGINE_CANNOT"
    ENGINE_MISSING = "ENGINE_MISSING"
    ENGINE_UNKNOWN = "ENGINE_UNKNOWN"
    ENTRY_POINT_IN_USE = "ENTRY_POINT_IN_USE"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    FILE_UNWRITABLE = "FILE_UNWRITABLE"
    HELLO_TIMEOUT = "HELLO_TIMEOUT"
    INTERNAL = "INTERNAL"
    JOURNAL_DAMAGED = "JOURNAL_DAMAGED"
    JOURNAL_UNREADABLE = "JOURNAL_UNREADABLE"
    KEPT_TICKET_ELSEWHERE = "KEPT_TICKET_ELSEWHERE"
    LEFT_BEHIND = "LEFT_BEHIND"
    LEGACY_PSK_REFUSED = "LEGACY_PSK_REFUSED"
    LEGACY_PSK_UNASKED = "LEGACY_PSK_UNASKED"
    LISTEN_ADDRESS_FOREIGN = "LISTEN_ADDRESS_FOREIGN"
    LOGIN_FAILED = "LOGIN_FAILED"
    LOGIN_WANTED = "LOGIN_WANTED"
    METRICS_PORT_IN_USE = "METRICS_PORT_IN_USE"
    NETWORK_UNAVAILABLE = "NETWORK_UNAVAILABLE"
    NOT_OWNER = "NOT_OWNER"
    NOT_RUNNING = "NOT_RUNNING"
    NO_CERTIFICATES = "NO_CERTIFICATES"
    NO_TARGETS = "NO_TARGETS"
    OLD_CLIENT_REFUSED = "OLD_CLIENT_REFUSED"
    OLD_CONTROL_SERVER = "OLD_CONTROL_SERVER"
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    OWNER_PORTS_EXHAUSTED = "OWNER_PORTS_EXHAUSTED"
    PARTLY_DRAINED = "PARTLY_DRAINED"
    PATH_BROKEN = "PATH_BROKEN"
    PLAIN_TEXT_SERVER = "PLAIN_TEXT_SERVER"
    PORTS_EXHAUSTED = "PORTS_EXHAUSTED"
    PORTS_MISCOUNTED = "PORTS_MISCOUNTED"
    PORT_NOT_OFFERED = "PORT_NOT_OFFERED"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    SECRET_EXPOSED = "SECRET_EXPOSED"
    SECRET_READABLE = "SECRET_READABLE"
    SESSION_KEY_MISSING = "SESSION_KEY_MISSING"
    SESSION_NOT_ACTIVE = "SESSION_NOT_ACTIVE"
    SESSION_NOT_REGISTERED = "SESSION_NOT_REGISTERED"
    SITE_SECRET_UNREADABLE = "SITE_SECRET_UNREADABLE"
    SOURCES_UNREACHABLE = "SOURCES_UNREACHABLE"
    SSH_CONFIGURATION_BAD = "SSH_CONFIGURATION_BAD"
    SSH_DIRECTORY_UNSAFE = "SSH_DIRECTORY_UNSAFE"
    SSH_FORWARDING_REFUSED = "SSH_FORWARDING_REFUSED"
    SSH_HOST_KEY_CHANGED = "SSH_HOST_KEY_CHANGED"
    SSH_HOST_KEY_UNKNOWN = "SSH_HOST_KEY_UNKNOWN"
    SSH_JUMP_FAILED = "SSH_JUMP_FAILED"
    SSH_KEY_UNREADABLE = "SSH_KEY_UNREADABLE"
    SSH_LOGIN_REFUSED = "SSH_LOGIN_REFUSED"
    SSH_LOST = "SSH_LOST"
    SSH_NAME_UNKNOWN = "SSH_NAME_UNKNOWN"
    SSH_REFUSED = "SSH_REFUSED"
    SSH_TIMEOUT = "SSH_TIMEOUT"
    SSH_UNREACHABLE = "SSH_UNREACHABLE"
    STATE_DIRECTORY_FULL = "STATE_DIRECTORY_FULL"
    STATE_DIRECTORY_TAKEN = "STATE_DIRECTORY_TAKEN"
    STREAM_DAMAGED = "STREAM_DAMAGED"
    TARGET_IN_USE = "TARGET_IN_USE"
    TARGET_REFUSED = "TARGET_REFUSED"
    TARGET_UNRESOLVED = "TARGET_UNRESOLVED"
    TLS_SERVER = "TLS_SERVER"
    TOKEN_EXPOSED = "TOKEN_EXPOSED"
    TOKEN_IN_PLAIN_TEXT = "TOKEN_IN_PLAIN_TEXT"
    TOKEN_REFUSED = "TOKEN_REFUSED"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TOO_MANY_TARGETS = "TOO_MANY_TARGETS"
    TOO_MANY_WATCHERS = "TOO_MANY_WATCHERS"
    TRANSPORT_MISMATCH = "TRANSPORT_MISMATCH"
    UDP_UNENCRYPTED = "UDP_UNENCRYPTED"
    UID_EXISTS = "UID_EXISTS"
    UID_PUBLISHED = "UID_PUBLISHED"
    UID_UNKNOWN = "UID_UNKNOWN"
    UNSUPPORTED_HERE = "UNSUPPORTED_HERE"
    WATCH_TOO_SLOW = "WATCH_TOO_SLOW"


@dataclass(frozen=True)
class Entry:
    """One error of the catalogue.

    `seen`, `cause` and `remedy` are templates over the facts of the error. `status` is the name of a gRPC status,
    `draft` the code of the protocol's draft, `deployed` the words that the deployed server uses for it.
    """

    seen: str
    cause: str
    remedy: str
    draft: str
    status: str
    exit_code: ExitCode
    deployed: str = ""


# (draft code, gRPC status, exit code): the classes that the draft's list (faults table, end) comes in.
_FORMAT: Final = ("BAD_FORMAT", "INVALID_ARGUMENT", ExitCode.BAD_INPUT)
_AUTH: Final = ("AUTH_ERROR", "UNAUTHENTICATED", ExitCode.AUTHENTICATION)
_FORBIDDEN: Final = ("AUTH_ERROR", "PERMISSION_DENIED", ExitCode.AUTHENTICATION)
_UNKNOWN_UID: Final = ("INVALID_UID", "NOT_FOUND", ExitCode.SESSION)
_KNOWN_UID: Final = ("INVALID_UID", "ALREADY_EXISTS", ExitCode.SESSION)
_STATE: Final = ("SERVER_ERR", "FAILED_PRECONDITION", ExitCode.SESSION)
_RESOURCE: Final = ("NO_RESOURCE", "RESOURCE_EXHAUSTED", ExitCode.RESOURCE)
_CONNECTION: Final = ("CONN_ERROR", "UNAVAILABLE", ExitCode.CONNECTION)
_CERTIFICATE: Final = ("CONN_ERROR", "UNAVAILABLE", ExitCode.CERTIFICATE)
_DATA_SERVER: Final = ("SERVER_ERR", "INTERNAL", ExitCode.DATA_SERVER)
_NO_ENGINE: Final = ("SERVER_ERR", "FAILED_PRECONDITION", ExitCode.DATA_SERVER)
_TIMEOUT: Final = ("TIMEOUT", "DEADLINE_EXCEEDED", ExitCode.TIMEOUT)
_UNSUPPORTED: Final = ("NOT_IMPLEMENTED", "UNIMPLEMENTED", ExitCode.UNSUPPORTED)
_INTERNAL: Final = ("SERVER_ERR", "INTERNAL", ExitCode.INTERNAL)

CATALOGUE: Final[Mapping[Code, Entry]] = {
    Code.ALREADY_RUNNING: Entry(
        "a control server (pid {pid}) already runs with the state directory {directory}, and with other settings",
        "it was started before, with other options or another configuration",
        "use it as it is, or end it first: s2cs stop --state-directory {directory}",
        *_STATE,
    ),
    Code.APPLICATION_FAILED: Entry(
        "{application} ended ({ending}): {words}",
        "it could not bind its address, reach the other end, or read its data",
        "read its words above; see that its address is free, and that the stream is open",
        *_STATE,
    ),
    Code.AUTHENTICATION_CONTRADICTORY: Entry(
        "the control server was told to check tokens, by a client secret, and to let everybody in, by insecure_no_auth",
        "the two come from different places: options, environment, systemd credential, configuration file",
        "leave out one of them: insecure_no_auth to have tokens checked, client_secret to let everybody in",
        *_FORMAT,
    ),
    Code.AUTHENTICATION_REFUSED: Entry(
        "the control server {server} refuses the caller: {words}",
        "the token is missing, has expired, or does not allow this",
        "log in: s2uc login --scope SCOPE; or put a token that is good there into the environment as SCISTREAM_TOKEN",
        *_AUTH,
    ),
    Code.AUTHENTICATION_REQUIRED: Entry(
        "the call carries no token, and the control server wants one for {scope}",
        "nobody logged in here, or the login was never named for this control server: without that, it is not sent",
        "log in: s2uc login --scope {scope} --provider URL --client-id CLIENT_ID (not --provider for Globus; the "
        "client id is your native app's); then add --scope {scope} to the command once, and this control server "
        "gets the token from then on; or put a token into the environment as SCISTREAM_TOKEN; with several control "
        "servers, or where SCISTREAM_TOKEN_FOR is set, put this one's HOST:PORT into SCISTREAM_TOKEN_FOR",
        *_AUTH,
        deployed="Authentication token is invalid for scope {scope}",
    ),
    Code.AUTHENTICATION_UNDECIDED: Entry(
        "the control server was told neither how to authenticate its users nor that it shall not",
        "the deployed tools leave authentication off without a word; here it is off only by name",
        "give it client_id and client_secret, both, and it checks tokens; or, where everyone who reaches the port may "
        "open streams, add --insecure-no-auth (or --compat, which takes the deployed defaults)",
        *_AUTH,
    ),
    Code.AUTHORITY_STILL_NEEDED: Entry(
        "the old authority cannot be taken out of {path}: {reason}",
        "the steps of a change of authorities were taken in another order, or not for every gateway",
        "let the new one sign for every gateway first: ansible-playbook scistream.core.rotate_certificates "
        "-e rotate_certificates_authority=switched",
        *_STATE,
    ),
    Code.BAD_ADDRESS: Entry(
        "{address!r} is not an address: {reason}",
        "an address is NAME:PORT, IPV4:PORT or [IPV6]:PORT",
        "correct it, for example 192.0.2.7:5074 or [2001:db8::7]:5074",
        *_FORMAT,
    ),
    Code.BAD_CONFIGURATION: Entry(
        "{key} = {value!r} in {source} cannot be used: {reason}",
        "the configuration holds a wrong key or value",
        "correct {key} in {source}",
        *_FORMAT,
    ),
    Code.BAD_CONNECTIONS: Entry(
        "{number} connections (num_conn) were asked for, allowed are 1 to {limit}",
        "each connection is an entry point of its own and takes one port of the pool",
        "ask for as many entry points as the application has sockets; one entry point carries many connections",
        *_FORMAT,
    ),
    Code.BAD_ENCRYPTION: Entry(
        "{encryption} protects nothing between gateways that is known here",
        "a session is encrypted (tls) or, where that is asked for, not (none)",
        "say --encryption tls, or --encryption none where the bytes may be read on their way",
        *_FORMAT,
    ),
    Code.BAD_LEASE: Entry(
        "a lease of {lease} cannot be had: {reason}",
        "it is spelled in another way, or longer than the control server's operator allows",
        "spell it as 90 (seconds), 30m, 8h, 1h30m or unlimited; where it is too long, ask for less and renew: "
        "s2uc renew UID",
        *_FORMAT,
    ),
    Code.BAD_MESSAGE: Entry(
        "what came as the request of {call} is not one",
        "the client is of another protocol or version, or something between changed the bytes",
        "use s2uc of this project, or the protocol's files as the control server's reflection tells them",
        *_FORMAT,
    ),
    Code.BAD_NAME: Entry(
        "{name!r} is not a session name",
        "a name has 1 to 128 printable characters",
        "choose another name",
        *_FORMAT,
    ),
    Code.BAD_PORT_RANGE: Entry(
        "the port range {range!r} cannot be used: {reason}",
        "a range is FIRST-LAST, both included",
        "give one such as 5100-5200",
        *_FORMAT,
    ),
    Code.BAD_RATE: Entry(
        "a rate of {rate} kb/s was asked for, allowed are 1 to {limit}",
        "the rate is in kb/s of application bytes",
        "give a positive number",
        *_FORMAT,
    ),
    Code.BAD_ROLE: Entry(
        "{role} is not a direction",
        "a session is inbound (PROD) or outbound (CONS)",
        "say inbound or outbound",
        *_FORMAT,
    ),
    Code.BAD_SESSION_KEY: Entry(
        "the key that came with session {uid} has {size} bytes, wanted are {wanted}",
        "the client is of another version, or the metadata was damaged",
        "let s2uc or the session module make the key, and hand the ticket over unchanged",
        *_FORMAT,
    ),
    Code.BAD_SOURCES: Entry(
        "{sources!r} is no list of networks: {reason}",
        "who may connect is told as addresses and networks with commas between",
        "spell it as 192.0.2.7,198.51.100.0/24,2001:db8::/32",
        *_FORMAT,
    ),
    Code.BAD_TICKET: Entry(
        "the ticket {path} cannot be used: {reason}",
        "a ticket is the file that the inbound end of a stream wrote; it is not there, or it was changed",
        "name the file where it is; or open the inbound session again with --ticket, and copy the file here unchanged",
        *_FORMAT,
    ),
    Code.BAD_TOKEN_STORE: Entry(
        "the token store {path} cannot be used: {reason}",
        "it is damaged, others than its owner can read it, or another program holds it",
        "forget it and log in again: s2uc logout, then s2uc login --scope SCOPE",
        *_AUTH,
    ),
    Code.BAD_TRANSPORT: Entry(
        "{transport} carries nothing here",
        "a session's bytes go over TCP or over UDP",
        "say --transport tcp or --transport udp",
        *_FORMAT,
    ),
    Code.BAD_UID: Entry(
        "{uid!r} is not a uid",
        "a uid has 1 to 64 letters, digits and hyphens",
        "use the uid as the inbound request printed it",
        *_FORMAT,
    ),
    Code.BAD_USAGE: Entry(
        "{words}",
        "the command line has a word that is not known, lacks one, or gives an option a value of another kind",
        "see what there is: {command} --help",
        *_FORMAT,
    ),
    Code.BAD_VIA: Entry(
        "{via!r} cannot be used as via: {reason}",
        "via is the SSH host that leads to a control server, as ssh://USER@HOST:PORT; user and port may be left out: "
        "~/.ssh/config has them then",
        "correct it, for example ssh://operator@gateway.example or ssh://operator@[2001:db8::7]:2222",
        *_FORMAT,
    ),
    Code.CERTIFICATE_CHAIN_BROKEN: Entry(
        "the certificate {path} cannot be traced to an authority: {subject} was issued by {issuer}, and no certificate "
        "of that name and key is in {chain}",
        "the certificate of an intermediate authority is missing, or the file holds others",
        "put the certificates of the authorities into {chain}, one after the other, from the one that issued the "
        "certificate to the root",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_EXPIRED: Entry(
        "the certificate {path} expired on {date}",
        "certificates have to be renewed before their last day",
        "issue a new one: ansible-playbook scistream.core.provision, or module scistream.core.certificate; a control "
        "server that runs takes it when it starts anew (s2cs stop, then s2cs start; its streams go on)",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_KEY_MISMATCH: Entry(
        "the private key {key_path} does not belong to the certificate {path}",
        "one of the two was replaced without the other",
        "put the pair that was issued together into place, or issue a new one",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_MISSING: Entry(
        "there is no {what} {path}",
        "nothing was issued, or the path is another",
        "name the right file with {option}; as a user, get it from the gateway's operator; as the operator, issue one: "
        "ansible localhost -m scistream.core.certificate -a "
        "'path=server.crt private_key_path=server.key names=HOST'",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_NOT_TRUSTED: Entry(
        "the control server {server} shows a certificate that {path} does not vouch for",
        "it was issued anew, or the file belongs to another control server",
        "fetch the control server's current certificate (or its facility's CA) and name it with --server-cert "
        "(module: server_certificate)",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_NOT_YET_VALID: Entry(
        "the certificate {path} is valid only from {date}",
        "one of the two clocks is wrong, or the certificate was issued ahead of time",
        "compare the clocks (date -u) of this host and of the issuing one",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_UNREADABLE: Entry(
        "{path} cannot be read as a {what}: {reason}",
        "it is not PEM, it is damaged, or this user may not read it",
        "check the file with: openssl x509 -in {path} -noout -text",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_WEAK: Entry(
        "the certificate {path} ({subject}) protects nothing: {reason}",
        "it was made long ago, or with an old tool, and can be forged today",
        "have a new one issued for an EC key of P-256 or an RSA key of 3072 bits, and signed with SHA-256",
        *_CERTIFICATE,
    ),
    Code.CERTIFICATE_WRONG_NAME: Entry(
        "the certificate {path} is for {names}, and the control server was called {host}",
        "the subject alternative names lack the name or address that clients use",
        "call it by one of its names, or issue a certificate that has {host} among its names",
        *_CERTIFICATE,
    ),
    Code.CONFIGURATION_REJECTED: Entry(
        "{engine} rejects the configuration of session {uid}: {output}",
        "the installed {engine} does not know a setting, or cannot resolve a target's name",
        "read its words above; check the targets, and the version of {engine}",
        *_DATA_SERVER,
    ),
    Code.CONFIGURATION_UNREADABLE: Entry(
        "the configuration file {path} cannot be read: {reason}",
        "it is not there, it is not TOML, or this user may not read it",
        "correct it, or name another with --config; what is the host's own, below /etc, is for sudo",
        *_FORMAT,
    ),
    Code.CONTROL_PORT_CLOSED: Entry(
        "SSH to {host} works, and from there no control server is reached at {address}: {reason}",
        "it is not running, or its address is another; with via, the address is as seen from the SSH host",
        "on {host}: s2cs status; then name that address with --s2cs (module: control_server)",
        *_CONNECTION,
    ),
    Code.CONTROL_PORT_IN_USE: Entry(
        "the control port {address} is in use by {process}",
        "another control server or service listens there",
        "end it, or choose another port with --port",
        *_STATE,
        deployed="Address already in use",
    ),
    Code.CONTROL_SERVER_BROKEN: Entry(
        "the control server {server} failed: {words}",
        "its own log says more",
        "read the control server's log, and release the session before the next try",
        *_INTERNAL,
    ),
    Code.CONTROL_SERVER_ENDING: Entry(
        "the control server is ending and takes no more sessions",
        "its operator stops or restarts it",
        "try again in a moment",
        *_CONNECTION,
    ),
    Code.CONTROL_SERVER_UNREACHABLE: Entry(
        "cannot connect to control server {server}: {reason}",
        "its name or its port is another, it is not running, or a firewall is between",
        "on the gateway: s2cs status; where its port is closed to others, lead there over SSH with --via (module: via, "
        "inventory: scistream_via); from here: curl -v telnet://{server}",
        *_CONNECTION,
    ),
    Code.DATA_SERVER_FAILED: Entry(
        "{engine} of session {uid} ended at once ({ending}): {output}",
        "the data server could not start",
        "read its words above",
        *_DATA_SERVER,
    ),
    Code.DATA_SERVER_LOST: Entry(
        "{engine} of session {uid} ended while it served the stream ({ending}): {output}",
        "it was killed from outside, it ran out of memory, or it met an error",
        "it is started again by itself; where that does not help, read its words above",
        *_DATA_SERVER,
    ),
    Code.DATA_SERVER_SILENT: Entry(
        "{engine} of session {uid} does not accept on {entry_point} after {seconds:g} s: {output}",
        "the data server runs and does not listen",
        "read its words above; is the address one of this gateway's?",
        *_DATA_SERVER,
    ),
    Code.DATA_SERVER_STUCK: Entry(
        "{engine} of session {uid} (pid {pid}) did not end: {left} is still there",
        "it survived SIGKILL, or another process took its place",
        "look with: ss -tlpn; ps -fp {pid}",
        *_DATA_SERVER,
    ),
    Code.DATA_SERVER_UNRESPONSIVE: Entry(
        "{engine} of session {uid} does not do as it is told: {reason}",
        "the data server is stopped, or its host has no time for it; nothing was changed",
        "try again in a moment; where it stays so, see on the gateway whether it is stopped, or release the session",
        *_DATA_SERVER,
    ),
    Code.DEADLINE: Entry(
        "{what} took longer than {seconds:g} s; last seen: {last}",
        "the other side is slow, or waits for something itself",
        "try again, with a longer --timeout where the work is long",
        *_TIMEOUT,
    ),
    Code.DEMO_DIRECTORY_FOREIGN: Entry(
        "the directory {directory} is there, and no demo made it",
        "a demo removes its directory at the end, with everything in it",
        "name another one, or remove this one yourself",
        *_FORMAT,
    ),
    Code.DEMO_PORTS_IN_USE: Entry(
        "the demo needs addresses that are in use: {what}",
        "control servers of playbooks/provision.yml run with inventory/local, or a program of yours listens there",
        "take them away: ansible-playbook playbooks/provision.yml -e scistream_state=absent; or end the program",
        *_STATE,
    ),
    Code.DEMO_RUNNING: Entry(
        "a demo already runs on this machine (pid {pid})",
        "two of them would share their addresses and ports",
        "wait until it is done, or end it with Ctrl-C",
        *_STATE,
    ),
    Code.ENCRYPTION_MISMATCH: Entry(
        "session {uid} cannot carry a byte: the inbound end's encryption is {inbound}, and {whose} {outbound}",
        "the two ends have to be the same: an inbound Stunnel has tls-psk, which Stunnel alone has; nftables has none",
        "ask for what the inbound end has, or open both ends anew: with engines that understand each other (s2cs "
        "--type), or with --encryption none where the bytes may be read on their way",
        *_UNSUPPORTED,
    ),
    Code.ENCRYPTION_UNAVAILABLE: Entry(
        "the control server {server} cannot encrypt what goes between the gateways",
        "it speaks the old protocol only, which knows of no encryption",
        "upgrade it to a SciStream that has scistream.v1; or say --encryption none (module: encryption: none) where "
        "the bytes may be read on their way, or --legacy-psk where it runs Stunnel, which encrypts as little",
        *_UNSUPPORTED,
    ),
    Code.ENDED_MEANWHILE: Entry(
        "the control server (pid {pid}) was ended before it answered ({ending})",
        "s2cs stop or a signal of another kind came while it started",
        "start it again where it shall run",
        *_STATE,
    ),
    Code.ENGINE_CANNOT: Entry(
        "{engine} cannot do what was asked: {reason}",
        "the engines differ in what they can carry",
        "do without it, or ask the gateway's operator, who chooses the engine (s2cs --type); s2uc status --s2cs "
        "HOST:PORT (module: scistream.core.control_server_info) tells what the engines there can do",
        *_UNSUPPORTED,
    ),
    Code.ENGINE_MISSING: Entry(
        "{engine} is not installed on this gateway: no program {program!r}",
        "its package is not there",
        "install it: sudo apt-get update && sudo apt-get install {packages}; or run role scistream.core.data_server",
        *_NO_ENGINE,
        deployed="[Errno 2] No such file or directory: '{program}'",
    ),
    Code.ENGINE_UNKNOWN: Entry(
        "there is no engine {engine!r}",
        "the name is mistyped or from another version",
        "choose one of {engines}",
        *_FORMAT,
    ),
    Code.ENTRY_POINT_IN_USE: Entry(
        "entry point {entry_point} is in use by {process}",
        "another process or session has the port",
        "end it, name another port, or choose another --port-range",
        *_RESOURCE,
        deployed="Address already in use",
    ),
    Code.FILE_UNREADABLE: Entry(
        "{path} cannot be read: {reason}",
        "the path is mistyped, or the file is not for this user",
        "name a regular file that this user can read",
        *_FORMAT,
    ),
    Code.FILE_UNWRITABLE: Entry(
        "{path} cannot be written: {reason}",
        "the directory is missing, full, or not this user's",
        "make the directory, make room in it, or choose a path where this user may write",
        *_STATE,
    ),
    Code.HELLO_TIMEOUT: Entry(
        "no hello came for session {uid} within {seconds:g} s",
        "the application controller did not register its end",
        "start the request again, and the application controller (appctrl) with its uid right after",
        *_TIMEOUT,
        deployed="Hello not received within the timeout period",
    ),
    Code.INTERNAL: Entry(
        "an error that nobody foresaw: {words}",
        "a fault of this program",
        "report it, with the log of the time",
        *_INTERNAL,
    ),
    Code.JOURNAL_DAMAGED: Entry(
        "the journal {path} is damaged: {reason}",
        "the disk lost part of it, or something else wrote there",
        "start the control server: it sets the file aside and tells which data servers run that it does not know",
        *_STATE,
    ),
    Code.JOURNAL_UNREADABLE: Entry(
        "the journal {path} cannot be used: {reason}",
        "it was written by a later version, or this user may not use it",
        "start the version that wrote it, or set the file's owner and mode right (0600)",
        *_STATE,
    ),
    Code.KEPT_TICKET_ELSEWHERE: Entry(
        "the ticket {path} is of session {uid} on {server}, and another session's would take its place",
        "a session of the same name was opened on that control server; its ticket is kept until it is released there",
        "release that one: s2uc release {uid} --s2cs {server} (where that control server is gone, remove the file); or "
        "name another file for the new one's: --ticket FILE (module: ticket)",
        *_STATE,
    ),
    Code.LEFT_BEHIND: Entry(
        "left behind: {what}",
        "something outlived its end, or another program uses the same directory or ports",
        "look with: ss -tlpn; ps -ef",
        *_STATE,
    ),
    Code.LEGACY_PSK_REFUSED: Entry(
        "session {uid} is not opened with legacy-psk: {reason}",
        "it authenticates as the deployed Stunnel does, by a key that is no secret, and encrypts nothing; it is there "
        "for streams whose other end is a deployed gateway",
        "leave --legacy-psk out (module: legacy_psk), at both ends: the stream is encrypted then",
        *_UNSUPPORTED,
    ),
    Code.LEGACY_PSK_UNASKED: Entry(
        "session {uid} is not opened: its ticket says encryption legacy-psk, and nobody asked for that by its name "
        "here",
        "the inbound end is a deployed gateway, or was opened as if it were one: it encrypts nothing, and its key is "
        "no secret; a ticket is the other facility's word, and does not decide that for this one",
        "where the bytes may be read on their way, say --legacy-psk as well (module: legacy_psk: true); where not, "
        "have the inbound end opened anew without it, and take its new ticket",
        *_UNSUPPORTED,
    ),
    Code.LISTEN_ADDRESS_FOREIGN: Entry(
        "cannot listen on {address}: {reason}",
        "it is not an address of this host, or the port needs root",
        "choose one of the host's addresses (ip address) with --listener-ip, for the control port alone with "
        "--control-ip, for the metrics with --metrics-ip, and a port above 1023",
        *_STATE,
    ),
    Code.LOGIN_FAILED: Entry(
        "the login at {provider} failed: {reason}",
        "the code was mistyped or is too old, or the provider does not know this client",
        "try again: s2uc login --scope {scope} --provider {provider} --client-id CLIENT_ID, your native app's",
        *_AUTH,
    ),
    Code.LOGIN_WANTED: Entry(
        "there is no token for {scope} on this machine",
        "nobody logged in here, or the login has ended and cannot be refreshed",
        "log in: s2uc login --scope {scope} --provider URL --client-id CLIENT_ID (both as the last time, where you "
        "logged in before)",
        *_AUTH,
    ),
    Code.METRICS_PORT_IN_USE: Entry(
        "the metrics port {address} is in use by {process}",
        "another service listens there",
        "end it, or choose another port with --metrics-port",
        *_STATE,
    ),
    Code.NETWORK_UNAVAILABLE: Entry(
        "a network of namespaces cannot be made here: {reason}",
        "it takes root (CAP_SYS_ADMIN and CAP_NET_ADMIN), iproute2, and a kernel with veth",
        "run it as root, on a host of one's own",
        *_UNSUPPORTED,
    ),
    Code.NOT_OWNER: Entry(
        "session {uid} belongs to somebody else",
        "it was opened with another identity",
        "log in as its owner (s2uc check-auth tells who you are), or ask the gateway's operator",
        *_FORBIDDEN,
    ),
    Code.NOT_RUNNING: Entry(
        "no control server runs with the state directory {directory}",
        "it was never started, it ended, or it runs with another state directory",
        "name its --state-directory or its --config where it has another (the host's: sudo s2cs status --config "
        "/etc/scistream/s2cs.toml); or start one: s2cs start --help",
        *_STATE,
    ),
    Code.NO_CERTIFICATES: Entry(
        "session {uid} has no certificates that could be renewed: its encryption is {encryption}",
        "only sessions with encryption tls prove themselves with certificates",
        "leave it as it is; a pre-shared key lasts as long as its session",
        *_STATE,
    ),
    Code.NO_TARGETS: Entry(
        "session {uid} has no targets",
        "an update has to name what the data servers connect to",
        "name at least one HOST:PORT",
        *_FORMAT,
        deployed="integer modulo by zero",
    ),
    Code.OLD_CLIENT_REFUSED: Entry(
        "session {uid} is asked for by a client that cannot say whether its bytes are to be encrypted between the "
        "gateways, and this control server refuses those (old_clients = {setting})",
        "the client is a deployed one; it knows of no encryption",
        "use s2uc of this project; or ask the gateway's operator to set old_clients = plain (s2cs --old-clients "
        "plain), with which such sessions are not encrypted",
        *_UNSUPPORTED,
    ),
    Code.OLD_CONTROL_SERVER: Entry(
        "the control server {server} cannot {operation}",
        "it speaks the old protocol only",
        "upgrade it to a SciStream that has scistream.v1",
        *_UNSUPPORTED,
    ),
    Code.OUTPUT_UNWRITABLE: Entry(
        "the output cannot be written: {reason}",
        "the program that reads it ended early, or the disk that it goes to is full",
        "say it again, with the output to a file or to a program that reads to its end; what this call opened anew is "
        "released",
        *_STATE,
    ),
    Code.OWNER_PORTS_EXHAUSTED: Entry(
        "{wanted} ports were asked for, and your sessions hold {held} of the {limit} that each user may have",
        "the gateway's operator limits the ports of a user",
        "release sessions that are done, or ask the gateway's operator for more (s2cs: --ports-per-owner)",
        *_RESOURCE,
    ),
    Code.PARTLY_DRAINED: Entry(
        "of session {uid}, the {direction} direction drains, and the other goes on: {reason}",
        "each direction has a data server of its own, and not each can do what was asked",
        "release the other one, or try it again: s2uc drain {uid}",
        *_STATE,
    ),
    Code.PATH_BROKEN: Entry(
        "a connection to entry point {entry_point} was {ending}: it does not reach the target",
        "no application listens at the target, the other end's session is gone, or a firewall is between the gateways",
        "start the application; see the inbound end with s2uc status on its own control server, and where its session "
        "is gone, open it anew, and take its new ticket; then try again",
        *_CONNECTION,
    ),
    Code.PLAIN_TEXT_SERVER: Entry(
        "the control server {server} speaks plain text, and TLS was wanted",
        "it was started with --ssl=False, or another service answers on this port",
        "start it with TLS, or say --ssl=False here as well (module: insecure_plain_text: true) where the network is "
        "trusted",
        *_CERTIFICATE,
    ),
    Code.PORTS_EXHAUSTED: Entry(
        "{wanted} ports were asked for, {free} of {size} in {range} are free{others}",
        "sessions hold the rest, or the range is too small",
        "release sessions that are done, or widen --port-range",
        *_RESOURCE,
    ),
    Code.PORTS_MISCOUNTED: Entry(
        "{ports} ports were named for {connections} connections (num_conn)",
        "each connection is an entry point with a port of its own",
        "name as many ports as connections; the number of connections need not be said then",
        *_FORMAT,
    ),
    Code.PORT_NOT_OFFERED: Entry(
        "port {port} was asked for, and this control server offers {range}",
        "entry points lie in the range that the gateway's operator opened",
        "name ports of {range}, or none and take what is free",
        *_FORMAT,
    ),
    Code.PROVIDER_UNAVAILABLE: Entry(
        "the identity provider {provider} could not be asked: {reason}",
        "it is down or slow, it cannot be reached from there, or it is not set up as this needs it",
        "try again in a moment, and read the reason above where it stays so; running streams go on",
        *_CONNECTION,
    ),
    Code.SECRET_EXPOSED: Entry(
        "a client secret stands on the command line",
        "every user of this host can read it there, and the shell's history keeps it",
        "put it into the configuration file as client_secret (mode 0600), or into the environment as "
        "SCISTREAM_CLIENT_SECRET, or say - in its place and write it to the input; --compat takes it as it is",
        *_FORMAT,
    ),
    Code.SECRET_READABLE: Entry(
        "the client secret stands in {path}, which is not for its owner alone (mode {mode})",
        "whoever reads it can ask the identity provider in this control server's name",
        "close it: chmod 600 {path}; and have a new secret issued where others may have read this one",
        *_FORMAT,
    ),
    Code.SESSION_KEY_MISSING: Entry(
        "no key came with session {uid}, and {engine} carries nothing without one",
        "the key is in the ticket of the inbound end, and that was not given; or the control channel is plain text, or "
        "the client a deployed one",
        "take the ticket from whoever opened the inbound end (~/.local/state/scistream/tickets/{uid}, or where "
        "--ticket said) and say s2uc outbound-request --ticket FILE (module: ticket); or open both ends with "
        "--encryption none where the bytes may be read on their way, as where the inbound end is a deployed one",
        *_STATE,
    ),
    Code.SESSION_NOT_ACTIVE: Entry(
        "session {uid} is {state}, and {what} is for active ones",
        "its data server does not run, or is about to end",
        "see why: s2uc status {uid}",
        *_STATE,
    ),
    Code.SESSION_NOT_REGISTERED: Entry(
        "session {uid} waits for its hello, and {what} came first",
        "the application's end was not registered yet",
        "send the hello (s2uc does it itself, appctrl for prod-req), then try again",
        *_STATE,
    ),
    Code.SITE_SECRET_UNREADABLE: Entry(
        "the site secret {path} cannot be used: {reason}",
        "named sessions get their uid from the name and this file, which the first one that is opened makes",
        "name the right one with --site-secret (module: site_secret), or restore it; only where it is lost, remove it: "
        "the next session that is opened by a name makes a new one, and names then give other uids",
        *_FORMAT,
    ),
    Code.SOURCES_UNREACHABLE: Entry(
        "session {uid} would let nobody in: {sources} are no {family} networks, and its entry points are at {address}",
        "the control server listens on addresses of one IP version only, and clients of the other do not get there",
        "name the networks by their {family} addresses (--sources, module: sources), or ask the gateway's operator for "
        "a --listener-ip of the other version",
        *_FORMAT,
    ),
    Code.SSH_CONFIGURATION_BAD: Entry(
        "the SSH configuration {path} cannot be used: {reason}",
        "it has a mistake, it is not there, or others than its owner can write it",
        "correct it, and see what ssh makes of it: ssh -G HOST; another file is named by SCISTREAM_SSH_CONFIG in the "
        "environment",
        *_FORMAT,
    ),
    Code.SSH_DIRECTORY_UNSAFE: Entry(
        "no SSH connection can be kept here: {reason}",
        "its sockets lie in a directory that is this user's alone, below XDG_RUNTIME_DIR or where temporary files are",
        "remove what is in the way, or name a short directory of your own (mode 0700) by XDG_RUNTIME_DIR in the "
        "environment",
        *_STATE,
    ),
    Code.SSH_FORWARDING_REFUSED: Entry(
        "the SSH host {host} does not forward to {address}: {reason}",
        "its sshd forbids this user to (AllowTcpForwarding, PermitOpen, DisableForwarding), or the key is for less "
        "(restrict in authorized_keys)",
        "ask its operator for AllowTcpForwarding local and PermitOpen {address} in its sshd_config, for this user",
        *_CONNECTION,
    ),
    Code.SSH_HOST_KEY_CHANGED: Entry(
        "the SSH host {host} shows the {kind} key {fingerprint}, and {known}",
        "it was installed anew, another host has its address now, or somebody stands between",
        "ask its operator whether its key was changed, and for the fingerprint; only where that is the one above, "
        "remove the old key (ssh-keygen -R '{name}') and connect once by hand: {command}",
        *_CERTIFICATE,
    ),
    Code.SSH_HOST_KEY_UNKNOWN: Entry(
        "the SSH host {host} shows the {kind} key {fingerprint}, and no file of known hosts has one of it ({files})",
        "nobody connected to it from here, or it is known by another name; a key is never taken unseen here",
        "ask its operator for the fingerprint; where it is the one above, connect once by hand, and ssh keeps it: "
        "{command}",
        *_CERTIFICATE,
    ),
    Code.SSH_JUMP_FAILED: Entry(
        "the SSH host {host} is not reached over the jump host {jump}: {reason}",
        "the jump host (ProxyJump in the SSH configuration) is down, does not let this user in, or does not reach the "
        "next host",
        "reach the jump host by hand first: {command}",
        *_CONNECTION,
    ),
    Code.SSH_KEY_UNREADABLE: Entry(
        "there is no key for user {user} to show to the SSH host {host}: {reason}",
        "a key file is missing, damaged, for other users, or encrypted with its key in no agent; nobody is asked for a "
        "passphrase here",
        "load the key into an agent (ssh-add FILE, and SSH_AUTH_SOCK in the environment), or name another with "
        "IdentityFile in ~/.ssh/config",
        *_AUTH,
    ),
    Code.SSH_LOGIN_REFUSED: Entry(
        "the SSH host {host} does not let user {user} in: {reason}",
        "that user's authorized_keys there does not have the key, or the user is another",
        "name the user in via (ssh://USER@HOST) and the key with IdentityFile in ~/.ssh/config; try it by hand: "
        "{command}",
        *_AUTH,
    ),
    Code.SSH_LOST: Entry(
        "the SSH connection to {host} was lost: {reason}",
        "the host or its sshd ended, or the network between went away; what the control server was told before holds, "
        "and streams go on",
        "see what is there (s2uc list, or module scistream.core.session_info), and try again",
        *_CONNECTION,
    ),
    Code.SSH_NAME_UNKNOWN: Entry(
        "the name {name} of the SSH host does not resolve: {reason}",
        "it is mistyped, or known only to an SSH configuration that was not read",
        "correct it in via, or name the configuration that has it (HostName) by SCISTREAM_SSH_CONFIG in the "
        "environment",
        *_CONNECTION,
    ),
    Code.SSH_REFUSED: Entry(
        "nothing listens for SSH at {address} (connection refused)",
        "no sshd runs there, or it has another port",
        "name the port in via (ssh://HOST:PORT) or with Port in ~/.ssh/config; try it by hand: {command}",
        *_CONNECTION,
    ),
    Code.SSH_TIMEOUT: Entry(
        "no SSH connection to {host} within {seconds:g} s: {last}",
        "the host is down or slow, or a firewall swallows the packets",
        "try it by hand: {command}; where the way is slow, with a longer --timeout (module: timeout)",
        *_CONNECTION,
    ),
    Code.SSH_UNREACHABLE: Entry(
        "the SSH host {host} cannot be talked to: {reason}",
        "no way leads there, what answers is no SSH server, or a ProxyCommand of the SSH configuration fails",
        "try it by hand: {command}",
        *_CONNECTION,
    ),
    Code.STATE_DIRECTORY_FULL: Entry(
        "the state directory {directory} has no room: {reason}",
        "the disk is full, or a quota is reached",
        "make room there; running streams go on, and new ones are taken as soon as there is some",
        *_RESOURCE,
    ),
    Code.STATE_DIRECTORY_TAKEN: Entry(
        "the state directory {directory} is held by the control server with pid {pid}",
        "two control servers cannot share their sessions",
        "give this one a --state-directory of its own, or end the other",
        *_STATE,
    ),
    Code.STREAM_DAMAGED: Entry(
        "{sent} bytes were sent (SHA-256 {digest_sent}), and {received} bytes arrived (SHA-256 {digest_received})",
        "the path lost or changed bytes: a data server ended, or a connection was cut",
        "read the data servers' logs (UID.log in the control servers' state directories), and send again",
        *_DATA_SERVER,
    ),
    Code.TARGET_IN_USE: Entry(
        "session {uid} exists with other parameters: {differences}",
        "the name or uid was used before",
        "release it first, or choose another name",
        *_KNOWN_UID,
    ),
    Code.TARGET_REFUSED: Entry(
        "the target {target} is refused: {reason}",
        "the gateway's operator allows other targets only, or the stream would lead back to its own gateway and carry "
        "nothing to anybody",
        "name the application's own address, or the other gateway's entry point; ask the operator to allow it "
        "(s2cs --allowed-targets)",
        *_FORMAT,
    ),
    Code.TARGET_UNRESOLVED: Entry(
        "the name of the target {target} does not resolve on the gateway: {reason}",
        "it is mistyped, or known at another place only: the gateway asks its own resolver",
        "correct it, or name the target by its IP address; on the gateway: getent hosts {host}",
        *_FORMAT,
    ),
    Code.TLS_SERVER: Entry(
        "the control server {server} speaks TLS, and plain text was wanted",
        "--ssl=False (module: insecure_plain_text: true) was said here and not there",
        "leave it out, and name the control server's certificate with --server-cert (module: server_certificate)",
        *_CERTIFICATE,
    ),
    Code.TOKEN_EXPOSED: Entry(
        "a token stands on the command line",
        "every user of this host can read it there, and the shell's history keeps it",
        "say - in its place and put it into the environment as SCISTREAM_TOKEN; --compat takes it as it is",
        *_FORMAT,
    ),
    Code.TOKEN_IN_PLAIN_TEXT: Entry(
        "a token would go to the control server {server} in plain text, and nothing was sent",
        "--ssl=False was said (module: insecure_plain_text: true): whoever is on the way could read it, and open "
        "streams with it",
        "use TLS: leave that out, and name the control server's certificate with --server-cert (module: "
        "server_certificate); where no token is wanted, send none (SCISTREAM_TOKEN_FOR names the control servers that "
        "SCISTREAM_TOKEN goes to); where everybody on the way is trusted, say --insecure-plain-text-token (module: "
        "insecure_plain_text_token: true)",
        *_FORMAT,
    ),
    Code.TOKEN_REFUSED: Entry(
        "Authentication token is invalid for scope {scope}: {reason}",
        "the identity provider does not hold it good for this control server, for the reason above",
        "verify it: s2uc check-auth --scope {scope} --s2cs HOST:PORT; take SCISTREAM_TOKEN out of the environment, "
        "where it goes before a stored login; authenticate again: s2uc login --scope {scope} "
        "--force; see that the control server has the right client id",
        *_AUTH,
        deployed="Authentication token is invalid for scope {scope}",
    ),
    Code.TOO_MANY_CALLS: Entry(
        "{limit} {what} already",
        "a program opens calls and does not end them, or somebody tries to shut others out",
        "try again in a moment; where it stays so, look for such programs here, and tell the gateway's operator",
        *_RESOURCE,
    ),
    Code.TOO_MANY_TARGETS: Entry(
        "more targets were named ({targets}) than there are entry points ({entry_points})",
        "each target needs an entry point of its own",
        "ask for {targets} connections (num_conn), or name fewer targets",
        *_FORMAT,
    ),
    Code.TOO_MANY_WATCHERS: Entry(
        "{limit} {whose} watch this control server already",
        "a program opens watches and does not end them",
        "look once in place of watching (s2uc list), or end other watches first",
        *_RESOURCE,
    ),
    Code.TRANSPORT_MISMATCH: Entry(
        "session {uid} cannot carry a byte: its ticket says that the inbound end goes over {inbound}, and {outbound} "
        "was asked for",
        "both ends of a stream have one transport",
        "leave --transport out (module: transport) and take the ticket's, or have the inbound end opened anew with the "
        "other one, and take its new ticket",
        *_UNSUPPORTED,
    ),
    Code.UDP_UNENCRYPTED: Entry(
        "session {uid} is asked for over UDP, and with encryption {encryption}",
        "between the gateways UDP goes unencrypted, and that has to be asked for",
        "say --encryption none as well (module: encryption: none) where the packets may be read on their way, or leave "
        "--transport udp out",
        *_UNSUPPORTED,
    ),
    Code.UID_EXISTS: Entry(
        "a session with uid {uid} exists already ({state})",
        "the uid was used before and not released",
        "release it, or use another uid",
        *_KNOWN_UID,
        deployed="Entry already found for uid",
    ),
    Code.UID_PUBLISHED: Entry(
        "session {uid} cannot have encryption {encryption}: this uid never has a key",
        "it is the fixed one of --mock, which is published, and nothing secret may be derived from it",
        "leave --mock out for a uid of its own, or say --encryption none (module: encryption: none) where the bytes "
        "may be read on their way",
        *_FORMAT,
    ),
    Code.UID_UNKNOWN: Entry(
        "there is no session with uid {uid}",
        "it was released, it never was, or it lives on another control server",
        "look at what is there: s2uc list --s2cs HOST:PORT (module: scistream.core.session_info)",
        *_UNKNOWN_UID,
        deployed="entry not found for uid '{uid}'",
    ),
    Code.UNSUPPORTED_HERE: Entry(
        "{what} is not possible here: {reason}",
        "this version does not have it",
        "{alternative}",
        *_UNSUPPORTED,
    ),
    Code.WATCH_TOO_SLOW: Entry(
        "the watcher fell behind: {waiting} events wait for it",
        "its connection or its terminal is slower than what happens",
        "watch again; the state of every session is told first",
        *_RESOURCE,
    ),
}

# Of the C0 and C1 sets, and what turns the direction of text or ends a line in other ways (UAX #9, #14).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


def one_line(text: str, limit: int = 400) -> str:
    """Text of a foreign origin as one printable line of at most `limit` characters; the end is what is kept."""
    flat = _UNPRINTABLE.sub(" ", text).strip()
    return flat if len(flat) <= limit else "…" + flat[-limit:]


class SciStreamError(Exception):
    """An error of the catalogue together with its facts.

    `str()` gives one sentence each for what was seen, the cause and the next step.

    Args:
        code: what happened.
        facts: what the entry's templates name. Never a secret: they are printed, logged and sent.
    """

    def __init__(self, code: Code, **facts: Any) -> None:
        self.code = code
        # Set for an error that a control server of ours sent: it stands for that one's knowledge, not for a guess.
        self.was_sent = False
        self.facts = {key: one_line(value) if isinstance(value, str) else value for key, value in facts.items()}
        super().__init__(self._sentence())

    @property
    def entry(self) -> Entry:
        """The catalogue's entry."""
        return CATALOGUE[self.code]

    @property
    def seen(self) -> str:
        """What was seen."""
        return self.entry.seen.format(**self.facts)

    @property
    def cause(self) -> str:
        """The likely cause."""
        return self.entry.cause.format(**self.facts)

    @property
    def remedy(self) -> str:
        """What to do next."""
        return self.entry.remedy.format(**self.facts)

    @property
    def deployed(self) -> str:
        """The words that the deployed system has for it, or nothing."""
        return self.entry.deployed.format(**self.facts)

    @property
    def exit_code(self) -> ExitCode:
        """What a command ends with."""
        return self.entry.exit_code

    def _sentence(self) -> str:
        seen, cause, remedy = (_ended(part) for part in (self.seen, self.cause, self.remedy))
        return f"{seen} {cause[:1].upper()}{cause[1:]} {remedy[:1].upper()}{remedy[1:]}"

    def failure(self) -> dict[str, Any]:
        """The error as plain data, for `--json` and for modules."""
        return {
            "code": str(self.code),
            "seen": self.seen,
            "cause": self.cause,
            "remedy": self.remedy,
            "details": {key: _plain(value) for key, value in self.facts.items()},
        }

    def to_wire(self) -> bytes:
        """The error as it travels in the trailing metadata `scistream-error-bin`."""
        return json.dumps({"code": str(self.code), "facts": self.failure()["details"]}).encode()

    @classmethod
    def from_wire(cls, data: bytes) -> Self | None:
        """The error that a control server sent, or None where this version does not know it."""
        try:
            body = json.loads(data)
            error = cls(Code(body["code"]), **body["facts"])
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        error.was_sent = True
        return error


def _ended(part: str) -> str:
    return part if part.endswith((".", "?", "!")) else f"{part}."


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
