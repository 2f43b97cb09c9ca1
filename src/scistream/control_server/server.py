"""A control server from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from structlog.typing import FilteringBoundLogger

from scistream.auth import NoAuthentication
from scistream.control_server import banner, listening
from scistream.control_server.answering import Calls, Reading
from scistream.control_server.configuration import Settings
from scistream.control_server.judgement import judge
from scistream.control_server.operations import Operations, ServerIdentity
from scistream.control_server.registry import Registry
from scistream.control_server.restoring import restored
from scistream.control_server.service import ControlService
from scistream.control_server.state_directory import StateDirectory
from scistream.engines.children import raise_descriptor_limit
from scistream.protocol import control_pb2, control_pb2_grpc, operations_pb2, operations_pb2_grpc

__all__ = ["serve"]

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
        calls = Calls(log, NoAuthentication())
        server = grpc.aio.server(interceptors=[Reading(calls)], options=listening.OPTIONS)
        listening.bind(server, settings.address, _credentials(settings))
        registry = await restored(settings, log, stack)
        reporter = _add_services(server, registry, ServerIdentity(settings, certificate, time.time()), calls, log)
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
    server: grpc.aio.Server, registry: Registry, identity: ServerIdentity, calls: Calls, log: FilteringBoundLogger
) -> health.aio.HealthServicer:
    settings = identity.settings
    told_host = listening.told_host(settings.address)
    control = ControlService(registry, calls, log, tls=settings.ssl, told_host=told_host)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    operations_pb2_grpc.add_OperationsServicer_to_server(Operations(registry, identity, calls), server)
    reporter = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(reporter, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*_SERVICES, health_name, reflection.SERVICE_NAME), server)
    return reporter


async def _set_health(reporter: health.aio.HealthServicer, status: Any) -> None:
    for service in ("", *_SERVICES):
        await reporter.set(service, status)
