"""A control server's sessions, made of what its state directory tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from scistream.control_server.configuration import Settings
from scistream.control_server.data_servers import Proxies, writers_below
from scistream.control_server.events import Events
from scistream.control_server.journal import Journal
from scistream.control_server.ports import PortPool
from scistream.control_server.recovery import Recovery
from scistream.control_server.registry import Patience, Registry
from scistream.control_server.state_directory import StateDirectory
from scistream.control_server.supervisor import Supervisor
from scistream.engines import find_engine
from scistream.engines.processes import who_listens
from scistream.errors import Code, SciStreamError

__all__ = ["release_leftovers", "restored"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_JOURNAL: Final = "journal.sqlite3"


async def release_leftovers(settings: Settings, log: FilteringBoundLogger) -> int:
    """Release the sessions that an ended control server left running; returns how many there were.

    Raises:
        SciStreamError: STATE_DIRECTORY_TAKEN, JOURNAL_UNREADABLE, DATA_SERVER_STUCK.
    """
    if not (settings.state_directory / _JOURNAL).exists():
        return 0
    async with AsyncExitStack() as stack:
        stack.enter_context(StateDirectory(settings.state_directory))
        registry = await restored(settings, log, stack)
        await registry.close()
        return await registry.release_all()


async def restored(settings: Settings, log: FilteringBoundLogger, stack: AsyncExitStack) -> Registry:
    """The registry, with the sessions of the journal in it."""
    directory, engine = settings.state_directory, find_engine(settings.type)
    with _naming_survivors(directory):
        journal = Journal(directory / _JOURNAL, _BOOT_ID.read_text().strip())
        stack.callback(journal.close)
        journal.records()
    pool = PortPool(settings.listener_ip, settings.port_range, who_listens)
    proxies = Proxies()
    supervisor = Supervisor(journal=journal, directory=directory, data_servers=proxies, events=Events(), log=log)
    registry = Registry(engine, pool, supervisor, patience=Patience(hello=settings.hello_timeout))
    recovery = Recovery(journal, pool, proxies, supervisor, engine)
    registry.take_over(await recovery.sessions())
    return registry


@contextlib.contextmanager
def _naming_survivors(directory: Path) -> Iterator[None]:
    """Who cannot read the journal has to end by hand what it knew: this says which processes."""
    try:
        yield
    except SciStreamError as error:
        if error.code is not Code.JOURNAL_UNREADABLE or not (pids := writers_below(directory)):
            raise
        facts = error.facts | {
            "reason": f"{error.facts['reason']}; data servers still run: pid {', '.join(map(str, pids))}"
        }
        raise SciStreamError(error.code, **facts) from None
