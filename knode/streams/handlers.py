"""`/exec` and `/attach`: a command beside a container, or the container itself, joined to a client's streams."""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog
from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.errors import BadRequestError, NotFoundError, ShimError
from knode.pods.execute import exec_spec
from knode.pods.manager import PodManager
from knode.pods.worker import PodWorker
from knode.runtime.driver import Handle, Record, Streams
from knode.streams import portchannels, portforward
from knode.streams.channels import Channels
from knode.streams.portforward import TUNNELLED
from knode.streams.remote import STDERR, STDOUT, RemoteStreams, exit_status, failure
from knode.streams.spdy_remote import SpdyStreams
from knode.streams.upgraded import asks_for_spdy

log = structlog.get_logger('knode.streams')


class StreamHandlers:
    def __init__(self, manager: PodManager) -> None:
        self._manager = manager

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for method in ('GET', 'POST'):  # WebSockets begin with the one, SPDY with either
            router.add_route(method, '/exec/{namespace}/{pod}/{container}', self._exec)
            router.add_route(method, '/portForward/{namespace}/{pod}', self._forward)
            router.add_route(method, '/attach/{namespace}/{pod}/{container}', self._attach)

    def _target(self, request: web.Request) -> tuple[PodWorker, Handle, Record]:
        where = request.match_info
        worker = self._manager.find(where['namespace'], where['pod'])
        if worker is None:
            raise NotFoundError(f'pod does not exist: {where["pod"]}_{where["namespace"]}')
        records = worker.records().get(where['container']) or []
        handle = worker.checkpoint.handle
        if not records or handle is None or not records[-1].running:
            raise NotFoundError(f'container not found ("{where["container"]}")')
        if not _is_websocket(request) and not asks_for_spdy(request):
            raise BadRequestError('Upgrade request required')
        return worker, handle, records[-1]

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        worker = self._manager.find(where['namespace'], where['pod'])
        if worker is None:
            raise NotFoundError(f'pod does not exist: {where["pod"]}_{where["namespace"]}')
        address = worker.checkpoint.address
        if asks_for_spdy(request) or TUNNELLED in request.headers.get('Sec-WebSocket-Protocol', ''):
            return await portforward.serve(request, address)
        if _is_websocket(request):
            return await portchannels.serve(request, address)
        raise BadRequestError('Upgrade request required')

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        worker, handle, record = self._target(request)
        argv = request.query.getall('command', [])
        if not argv:
            raise BadRequestError('you must specify at least 1 command for the container')
        wants = _wants(request)
        streams = _streams(request, wants)
        try:
            await streams.open(request)
        except ConnectionError as e:
            log.info('a client left before its command began', object=worker.key, err=str(e))
            return streams.response
        theirs = _open_streams(streams, wants)
        try:
            run = start_detached('exec', worker.driver.exec(handle, record.id, exec_spec(record, argv), theirs))
            gone = start_detached('exec client', streams.left.wait())
            # The child has its copies once the shim answered; ours would keep the streams from ending.
            try:
                await asyncio.wait({run, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                _close(theirs)
            try:
                outcome = exit_status(run.result()) if run.done() else failure('client disconnected')
            except ShimError as e:
                outcome = failure(f'error executing command in container: {e}')
        finally:
            await stop(gone)
            run.cancel()
            await asyncio.wait({run})
        await streams.finish(outcome)
        return streams.response

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, handle, record = self._target(request)
        wants = _wants(request)
        streams = _streams(request, wants)
        try:
            await streams.open(request)
        except ConnectionError as e:
            log.info('a client left before it was attached', object=worker.key, err=str(e))
            return streams.response
        out, child_out = os.pipe2(os.O_CLOEXEC)
        err, child_err = os.pipe2(os.O_CLOEXEC)
        try:
            attached = await worker.driver.attach(handle, record.id, child_out, child_err)
        except ShimError as e:
            os.close(out)
            os.close(err)
            await streams.finish(failure(str(e)))
            return streams.response
        finally:
            os.close(child_out)
            os.close(child_err)
        streams.carry(
            stdin=attached.stdin if 'stdin' in wants else -1,
            outputs=[(STDOUT, out), (STDERR, err)],
            terminal=attached.stdin if attached.tty else -1,
        )
        ended = start_detached('attach output', streams.outputs_ended())
        gone = start_detached('attach client', streams.left.wait())
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        await stop(ended, gone)
        if 'stdin' in wants and (_container(worker, record.name) or {}).get('stdinOnce') and record.running:
            with contextlib.suppress(ShimError):  # it ended: there is no input left to close
                await worker.driver.close_stdin(handle, record.id)
        await streams.finish(exit_status(0))
        return streams.response


def _container(worker: PodWorker, name: str) -> dict[str, object] | None:
    return next((dict(c) for c in worker.pod['spec']['containers'] if c['name'] == name), None)


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get('Upgrade', '').lower() == 'websocket'


def _streams(request: web.Request, wants: set[str]) -> RemoteStreams:
    return SpdyStreams(wants) if asks_for_spdy(request) else Channels()


def _wants(request: web.Request) -> set[str]:
    """Which of stdin, stdout, stderr, tty the caller asked for."""
    yes = {'true', '1'}
    return {k for k in ('stdin', 'stdout', 'stderr', 'tty') if request.query.get(k, '').lower() in yes} | {
        k for k, old in (('stdin', 'input'), ('stdout', 'output'), ('stderr', 'error')) if request.query.get(old) in yes
    }


def _open_streams(streams: RemoteStreams, wants: set[str]) -> Streams:
    """The command's side of the streams; our side is the channels' from now on."""
    if 'tty' in wants:
        master, slave = os.openpty()
        os.set_inheritable(slave, False)
        streams.carry(stdin=os.dup(master) if 'stdin' in wants else -1, outputs=[(STDOUT, master)], terminal=master)
        return Streams(slave, os.dup(slave), os.dup(slave), tty=True)
    out, child_out = os.pipe2(os.O_CLOEXEC)
    err, child_err = os.pipe2(os.O_CLOEXEC)
    ours = -1
    if 'stdin' in wants:
        child_in, ours = os.pipe2(os.O_CLOEXEC)
    else:
        child_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    streams.carry(stdin=ours, outputs=[(STDOUT, out), (STDERR, err)], terminal=-1)
    return Streams(child_in, child_out, child_err)


def _close(streams: Streams) -> None:
    for fd in (streams.stdin, streams.stdout, streams.stderr):
        os.close(fd)
