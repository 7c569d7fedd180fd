"""`/exec` and `/attach`: a command beside a container, or the container itself, joined to a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import os

from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.errors import BadRequestError, NotFoundError, ShimError
from knode.pods.execute import exec_spec
from knode.pods.manager import PodManager
from knode.pods.worker import PodWorker
from knode.runtime.driver import Handle, Record, Streams
from knode.streams.channels import STDERR, STDOUT, Channels, exit_status, failure
from knode.streams.portforward import PROTOCOL, Forwarder


class StreamHandlers:
    def __init__(self, manager: PodManager) -> None:
        self._manager = manager

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get('/exec/{namespace}/{pod}/{container}', self._exec)
        router.add_get('/portForward/{namespace}/{pod}', self._forward)
        router.add_get('/attach/{namespace}/{pod}/{container}', self._attach)

    def _target(self, request: web.Request) -> tuple[PodWorker, Handle, Record]:
        where = request.match_info
        worker = self._manager.find(where['namespace'], where['pod'])
        if worker is None:
            raise NotFoundError(f'pod does not exist: {where["pod"]}_{where["namespace"]}')
        records = worker.records().get(where['container']) or []
        handle = worker.checkpoint.handle
        if not records or handle is None or not records[-1].running:
            raise NotFoundError(f'container not found ("{where["container"]}")')
        if request.headers.get('Upgrade', '').lower() != 'websocket':
            raise BadRequestError('Upgrade request required')
        return worker, handle, records[-1]

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        worker = self._manager.find(where['namespace'], where['pod'])
        if worker is None:
            raise NotFoundError(f'pod does not exist: {where["pod"]}_{where["namespace"]}')
        if PROTOCOL not in request.headers.get('Sec-WebSocket-Protocol', ''):
            raise BadRequestError(f'port forwarding needs the WebSocket protocol {PROTOCOL}')
        return await Forwarder(worker.checkpoint.address).serve(request)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        worker, handle, record = self._target(request)
        argv = request.query.getall('command', [])
        if not argv:
            raise BadRequestError('you must specify at least 1 command for the container')
        wants = _wants(request)
        channels = Channels()
        await channels.open(request)
        theirs = _open_streams(channels, wants)
        try:
            run = start_detached('exec', worker.driver.exec(handle, record.id, exec_spec(record, argv), theirs))
            gone = start_detached('exec client', channels.left.wait())
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
        await channels.finish(outcome)
        return channels.response

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, handle, record = self._target(request)
        wants = _wants(request)
        channels = Channels()
        await channels.open(request)
        out, child_out = os.pipe2(os.O_CLOEXEC)
        err, child_err = os.pipe2(os.O_CLOEXEC)
        try:
            attached = await worker.driver.attach(handle, record.id, child_out, child_err)
        except ShimError as e:
            os.close(out)
            os.close(err)
            await channels.finish(failure(str(e)))
            return channels.response
        finally:
            os.close(child_out)
            os.close(child_err)
        channels.carry(
            stdin=attached.stdin if 'stdin' in wants else -1,
            outputs=[(STDOUT, out), (STDERR, err)],
            terminal=attached.stdin if attached.tty else -1,
        )
        ended = start_detached('attach output', channels.outputs_ended())
        gone = start_detached('attach client', channels.left.wait())
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        await stop(ended, gone)
        if 'stdin' in wants and (_container(worker, record.name) or {}).get('stdinOnce') and record.running:
            with contextlib.suppress(ShimError):  # it ended: there is no input left to close
                await worker.driver.close_stdin(handle, record.id)
        await channels.finish(exit_status(0))
        return channels.response


def _container(worker: PodWorker, name: str) -> dict[str, object] | None:
    return next((dict(c) for c in worker.pod['spec']['containers'] if c['name'] == name), None)


def _wants(request: web.Request) -> set[str]:
    """Which of stdin, stdout, stderr, tty the caller asked for."""
    yes = {'true', '1'}
    return {k for k in ('stdin', 'stdout', 'stderr', 'tty') if request.query.get(k, '').lower() in yes} | {
        k for k, old in (('stdin', 'input'), ('stdout', 'output'), ('stderr', 'error')) if request.query.get(old) in yes
    }


def _open_streams(channels: Channels, wants: set[str]) -> Streams:
    """The command's side of the streams; our side is the channels' from now on."""
    if 'tty' in wants:
        master, slave = os.openpty()
        os.set_inheritable(slave, False)
        channels.carry(stdin=os.dup(master) if 'stdin' in wants else -1, outputs=[(STDOUT, master)], terminal=master)
        return Streams(slave, os.dup(slave), os.dup(slave), tty=True)
    out, child_out = os.pipe2(os.O_CLOEXEC)
    err, child_err = os.pipe2(os.O_CLOEXEC)
    ours = -1
    if 'stdin' in wants:
        child_in, ours = os.pipe2(os.O_CLOEXEC)
    else:
        child_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    channels.carry(stdin=ours, outputs=[(STDOUT, out), (STDERR, err)], terminal=-1)
    return Streams(child_in, child_out, child_err)


def _close(streams: Streams) -> None:
    for fd in (streams.stdin, streams.stdout, streams.stderr):
        os.close(fd)
