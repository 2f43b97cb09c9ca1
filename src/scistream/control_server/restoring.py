"""A control server's sessions, made of what its state directory tells."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from scistream.addresses import Endpoint
from scistream.control_server.allowed_targets import AllowedTargets
from scistream.control_server.configuration import Settings
from scistream.control_server.data_servers import Engines, Survey, merged, survey, survey_engines, survey_processes
from scistream.control_server.events import Events
from scistream.control_server.leases import Leases, LeaseTerms
from scistream.control_server.leftovers import Leftovers, find_in_kernel, find_leftovers
from scistream.control_server.observing import open_audit
from scistream.control_server.policy import Policy
from scistream.control_server.ports import PortPool
from scistream.control_server.recovery import Recovery
from scistream.control_server.registry import Patience, Registry
from scistream.control_server.salvage import open_journal
from scistream.control_server.state_directory import StateDirectory
from scistream.control_server.supervisor import Supervisor
from scistream.engines import find_engine, guarding, shaping
from scistream.engines.base import Engine
from scistream.engines.holders import who_listens
from scistream.errors import Code, SciStreamError

__all__ = ["release_leftovers", "restored"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_JOURNAL: Final = "journal.sqlite3"


async def release_leftovers(settings: Settings, log: FilteringBoundLogger) -> int:
    """Release the sessions that an ended control server left running; returns how many there were.

    Raises:
        SciStreamError: STATE_DIRECTORY_TAKEN, JOURNAL_UNREADABLE, DATA_SERVER_STUCK.
    """
    directory = settings.state_directory
    if not (directory / _JOURNAL).exists() and not (directory.is_dir() and survey(directory)):
        return 0
    async with AsyncExitStack() as stack:
        stack.enter_context(StateDirectory(directory))
        events = Events()
        audit = open_audit(settings, events, log)
        if audit is not None:
            stack.callback(audit.close)
        registry = await restored(settings, log, stack, events)
        await registry.close()
        released = await registry.release_all()
        # Also of data servers that had ended before.
        await guarding.sweep(directory, tuple)
        await shaping.sweep(directory, tuple)
        return released


async def restored(settings: Settings, log: FilteringBoundLogger, stack: AsyncExitStack, events: Events) -> Registry:
    """The registry, with the sessions of the journal in it; what happens to them is told to `events`."""
    directory, engine = settings.state_directory, find_engine(settings.type)
    processes, in_kernel = survey_processes(directory), survey_engines(directory)
    with _naming_survivors(processes, in_kernel):
        journal, warnings = open_journal(directory / _JOURNAL, _BOOT_ID.read_text().strip())
    stack.callback(journal.close)
    pool = PortPool(settings.listener_ip, settings.port_range, who_listens, quarantine=settings.quarantine)
    proxies = Engines()
    supervisor = Supervisor(journal=journal, directory=directory, data_servers=proxies, events=events, log=log)
    recovery = Recovery(journal, directory, pool, proxies, supervisor, engine)
    known = {record.stem for record in journal.records()}
    sessions = recovery.sessions(merged(processes, *in_kernel.values()))
    unknown = find_leftovers(_without(processes, known), directory, pool)
    for each, found in in_kernel.items():
        unknown += find_in_kernel(each, _without(found, known), pool)
    leftovers = Leftovers(directory, unknown, warnings)
    for warning in leftovers.warnings():
        log.warning(warning)
    patience = Patience(hello=settings.hello_timeout)
    leases = Leases(LeaseTerms(settings.lease, settings.longest_lease))
    policy = _policy(settings)
    registry = Registry(engine, pool, supervisor, patience=patience, leases=leases, leftovers=leftovers, policy=policy)
    registry.take_over(sessions)
    return registry


def _without(found: Survey, known: Collection[str]) -> Survey:
    return {stem: marks for stem, marks in found.items() if stem not in known}


def _policy(settings: Settings) -> Policy:
    own = {settings.address: "this control server's own control port"}
    if settings.metrics_port:
        own[Endpoint(settings.metrics_ip, settings.metrics_port)] = "this control server's own metrics port"
    return Policy(own, settings.ports_per_owner, AllowedTargets(settings.allowed_targets))


@contextlib.contextmanager
def _naming_survivors(processes: Survey, in_kernel: Mapping[Engine, Survey]) -> Iterator[None]:
    """Who cannot read the journal has to end by hand what it knew: this says which processes, and which rules."""
    try:
        yield
    except SciStreamError as error:
        there = [f"{engine.title} {stem}" for engine, found in in_kernel.items() for stem in sorted(found)]
        if pids := sorted(mark.pid for marks in processes.values() for mark in marks):
            there.insert(0, f"pid {', '.join(map(str, pids))}")
        if error.code is not Code.JOURNAL_UNREADABLE or not there:
            raise
        facts = error.facts | {"reason": f"{error.facts['reason']}; data servers still run: {', '.join(there)}"}
        raise SciStreamError(error.code, **facts) from None
