"""A control server from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from structlog.typing import FilteringBoundLogger

from scistream.control_server import banner, listening
from scistream.control_server.answering import Reading
from scistream.control_server.configuration import Settings
from scistream.control_server.data_servers import Proxies, writers_below
from scistream.control_server.journal import Journal
from scistream.control_server.judgement import judge
from scistream.control_server.operations import Operations, ServerIdentity
from scistream.control_server.ports import PortPool
from scistream.control_server.recovery import Recovery
from scistream.control_server.registry import Patience, Registry
from scistream.control_server.service import ControlService
from scistream.control_server.state_directory import StateDirectory
from scistream.control_server.supervisor import Supervisor
from scistream.engines import find_engine
from scistream.engines.children import raise_descriptor_limit
from scistream.engines.processes import who_listens
from scistream.errors import Code, SciStreamError
from scistream.protocol import control_pb2, control_pb2_grpc, operations_pb2, operations_pb2_grpc

__all__ = ["release_leftovers", "serve"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_JOURNAL: Final = "journal.sqlite3"
# Seconds that calls get to end when the server does.
_GRACE: Final = 1.0

_SERVICES: Final = (
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
)


async def serve(settings: Settings, log: FilteringBoundLogger) -> None:
    """Run until a signal: SIGTERM and SIGHUP leave the data servers running, SIGINT releases every session first.

    Raises:
        SciStreamError: AUTHENTICATION_..., CERTIFICATE_..., STATE_DIRECTORY_TAKEN, CONTROL_PORT_IN_USE,
            LISTEN_ADDRESS_FOREIGN, JOURNAL_UNREADABLE; at the end DATA_SERVER_STUCK.
    """
    certificate = judge(settings)
    raise_descriptor_limit()
    os.umask(0o077)
    ending = _signals()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(StateDirectory(settings.state_directory))
        server = grpc.aio.server(interceptors=[Reading(log)], options=listening.OPTIONS)
        listening.bind(server, settings.address, _credentials(settings))
        registry = await _registry(settings, log, stack)
        reporter = _add_services(server, registry, ServerIdentity(settings, certificate, time.time()), log)
        await server.start()
        stack.push_async_callback(server.stop, _GRACE)
        await _set_health(reporter, health_pb2.HealthCheckResponse.SERVING)
        directory.announce(banner.announcement(settings, certificate))
        banner.tell(settings, registry.engine, certificate, log)
        number = await ending
        log.info("ending", signal=number.name, sessions="released" if number is signal.SIGINT else "go on")
        await _set_health(reporter, health_pb2.HealthCheckResponse.NOT_SERVING)
        await registry.close()
        if number is signal.SIGINT:
            await registry.release_all()


async def release_leftovers(settings: Settings, log: FilteringBoundLogger) -> int:
    """Release the sessions that an ended control server left running; returns how many there were.

    Raises:
        SciStreamError: STATE_DIRECTORY_TAKEN, JOURNAL_UNREADABLE, DATA_SERVER_STUCK.
    """
    if not (settings.state_directory / _JOURNAL).exists():
        return 0
    async with AsyncExitStack() as stack:
        stack.enter_context(StateDirectory(settings.state_directory))
        registry = await _registry(settings, log, stack)
        await registry.close()
        return await registry.release_all()


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if not settings.ssl:
        return None
    pair = (settings.server_key.read_bytes(), settings.server_crt.read_bytes())
    return grpc.ssl_server_credentials([pair])


def _signals() -> asyncio.Future[signal.Signals]:
    """Done with the first signal that ends the server."""
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[signal.Signals] = loop.create_future()

    def end(number: signal.Signals) -> None:
        if not ending.done():
            ending.set_result(number)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    return ending


async def _registry(settings: Settings, log: FilteringBoundLogger, stack: AsyncExitStack) -> Registry:
    """The registry, with the sessions of the journal in it."""
    directory, engine = settings.state_directory, find_engine(settings.type)
    with _naming_survivors(directory):
        journal = Journal(directory / _JOURNAL, _BOOT_ID.read_text().strip())
        stack.callback(journal.close)
        journal.records()
    pool = PortPool(settings.listener_ip, settings.port_range, who_listens)
    proxies = Proxies()
    supervisor = Supervisor(journal=journal, directory=directory, data_servers=proxies, log=log)
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


def _add_services(
    server: grpc.aio.Server, registry: Registry, identity: ServerIdentity, log: FilteringBoundLogger
) -> health.aio.HealthServicer:
    settings = identity.settings
    told_host = listening.told_host(settings.address)
    control = ControlService(registry, log, tls=settings.ssl, told_host=told_host)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    operations_pb2_grpc.add_OperationsServicer_to_server(Operations(registry, identity, log), server)
    reporter = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(reporter, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*_SERVICES, health_name, reflection.SERVICE_NAME), server)
    return reporter


async def _set_health(reporter: health.aio.HealthServicer, status: Any) -> None:
    for service in ("", *_SERVICES):
        await reporter.set(service, status)
