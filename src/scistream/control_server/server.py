"""A control server from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from structlog.typing import FilteringBoundLogger

from scistream.addresses import Endpoint
from scistream.control_server import banner, listening
from scistream.control_server.answering import Calls
from scistream.control_server.authentication import authentication, operators
from scistream.control_server.configuration import Settings
from scistream.control_server.data_servers import Engines
from scistream.control_server.draft import DraftService
from scistream.control_server.events import Events
from scistream.control_server.judgement import judge
from scistream.control_server.observing import Observers
from scistream.control_server.operations import Operations, ServerIdentity
from scistream.control_server.readiness import READY, STOPPING, tell_manager
from scistream.control_server.reading import Reading
from scistream.control_server.registry import Registry
from scistream.control_server.restoring import restored
from scistream.control_server.service import ControlService
from scistream.control_server.state_directory import StateDirectory
from scistream.engines import guarding, shaping
from scistream.engines.children import raise_descriptor_limit
from scistream.errors import SciStreamError
from scistream.protocol import control_pb2, control_pb2_grpc, operations_pb2, operations_pb2_grpc

__all__ = ["serve"]

# Seconds that calls get to end when the server does.
_GRACE: Final = 1.0

# How gRPC calls what a task of its does for a call.
_CALL: Final = "_schedule_rpc_coro"

_SERVICES: Final = (
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["SciStreamControl"].full_name,
    operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
)


async def serve(settings: Settings, log: FilteringBoundLogger) -> None:
    """Run until a signal: SIGTERM and SIGHUP leave the data servers running, SIGINT releases every session first.

    Raises:
        SciStreamError: AUTHENTICATION_..., CERTIFICATE_..., STATE_DIRECTORY_TAKEN, CONTROL_PORT_IN_USE,
            METRICS_PORT_IN_USE, LISTEN_ADDRESS_FOREIGN, FILE_UNWRITABLE, JOURNAL_UNREADABLE; at the end
            DATA_SERVER_STUCK.
    """
    certificate = judge(settings)
    raise_descriptor_limit()
    os.umask(0o077)
    ending = _signals()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(StateDirectory(settings.state_directory))
        host_secret = secrets.token_urlsafe(32)
        identity = ServerIdentity(settings, certificate, time.time())
        registry, reporter = await _begin(identity, host_secret, log, stack)
        await _set_health(reporter, health_pb2.HealthCheckResponse.SERVING)
        directory.announce(banner.announcement(settings, certificate, host_secret))
        banner.tell(settings, registry.engine, certificate, log)
        tell_manager(READY, os.environ)
        number = await ending
        tell_manager(STOPPING, os.environ)
        log.info("ending", signal=number.name, sessions="released" if number is signal.SIGINT else "go on")
        await _set_health(reporter, health_pb2.HealthCheckResponse.NOT_SERVING)
        await registry.close()
        if number is signal.SIGINT:
            await registry.release_all()


async def _begin(
    identity: ServerIdentity, host_secret: str, log: FilteringBoundLogger, stack: AsyncExitStack
) -> tuple[Registry, health.aio.HealthServicer]:
    """Answer calls, and look on. The stack ends it in the opposite order: those who watch are told before they go."""
    settings, events = identity.settings, Events()
    verifier = await stack.enter_async_context(authentication(settings, host_secret))
    observers = stack.enter_context(contextlib.closing(Observers(identity, events, log)))
    calls = Calls(log, verifier, operators=operators(settings), observers=observers.of_calls())
    server = _bound(settings, calls)
    registry = await restored(settings, log, stack, events)
    await _sweep(registry, settings, log)

    def warnings() -> Sequence[str]:
        now = datetime.datetime.now(datetime.UTC)
        return *registry.warnings(), *observers.warnings(), *banner.expiry(identity.certificate, now)

    operations = Operations(registry, identity, calls, events, warnings=warnings)
    told_host = listening.told_host(Endpoint(settings.listener_ip, settings.port))
    control = ControlService(
        registry, calls, log, tls=settings.ssl, told_host=told_host, old_clients=settings.for_old_clients
    )
    reporter = _add_services(server, operations, control)
    await server.start()
    stack.push_async_callback(_stop, server)
    stack.callback(events.close)
    await stack.enter_async_context(observers.observing(registry, Engines()))
    stack.callback(asyncio.create_task(registry.keep_promises()).cancel)
    return registry, reporter


async def _sweep(registry: Registry, settings: Settings, log: FilteringBoundLogger) -> None:
    """Take away the bounds of sessions that ended while no control server ran."""

    def running() -> set[str]:
        return set(registry.stems()).difference(each.stem for each in registry.sessions() if not each.may_run)

    try:
        await shaping.sweep(settings.state_directory, running)
        await guarding.sweep(settings.state_directory, running)
    except SciStreamError as error:
        log.warning("bounds of ended sessions not taken away", why=str(error))


def _bound(settings: Settings, calls: Calls) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[Reading(calls)], options=listening.OPTIONS, maximum_concurrent_rpcs=listening.RPC_LIMIT
    )
    listening.bind(server, settings.address, _credentials(settings))
    return server


async def _stop(server: grpc.aio.Server) -> None:
    await server.stop(_GRACE)
    # It cancels the calls that are left, and does not wait for them. Those that the event loop's end finds and cancels
    # again have a traceback each on stderr.
    left = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == _CALL]
    if left:
        await asyncio.wait(left, timeout=_GRACE)


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


def _add_services(
    server: grpc.aio.Server, operations: Operations, control: ControlService
) -> health.aio.HealthServicer:
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    control_pb2_grpc.add_SciStreamControlServicer_to_server(DraftService(control), server)
    operations_pb2_grpc.add_OperationsServicer_to_server(operations, server)
    reporter = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(reporter, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*_SERVICES, health_name, reflection.SERVICE_NAME), server)
    return reporter


async def _set_health(reporter: health.aio.HealthServicer, status: Any) -> None:
    for service in ("", *_SERVICES):
        await reporter.set(service, status)
