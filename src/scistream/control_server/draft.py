"""The `scistream.SciStreamControl` service: the names of the protocol's draft, for the same calls."""

from __future__ import annotations

from scistream.control_server.answering import Context
from scistream.control_server.service import ControlService
from scistream.protocol import control_pb2 as wire
from scistream.protocol import control_pb2_grpc

__all__ = ["DraftService"]


class DraftService(control_pb2_grpc.SciStreamControlServicer):
    """Answers with what answers the deployed names; log and audit file tell which name was used."""

    def __init__(self, control: ControlService) -> None:
        self._control = control

    async def RequestStream(self, request: wire.Request, context: Context) -> wire.Response:  # noqa: N802 - the wire's
        """See `ControlService.req`."""
        return await self._control.req(request, context, "RequestStream")

    async def Hello(self, request: wire.Hello, context: Context) -> wire.AppResponse:  # noqa: N802
        """See `ControlService.hello`."""
        return await self._control.hello(request, context, "Hello")

    async def UpdateTargets(self, request: wire.UpdateTargets, context: Context) -> wire.Response:  # noqa: N802
        """See `ControlService.update`."""
        return await self._control.update(request, context, "UpdateTargets")

    async def ReleaseStream(self, request: wire.Release, context: Context) -> wire.Response:  # noqa: N802
        """See `ControlService.release`."""
        return await self._control.release(request, context, "ReleaseStream")
