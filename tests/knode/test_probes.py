"""Probes in virtual time: when they ask, what they conclude, what they tell."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from types import SimpleNamespace

import pytest

from kcore.sim import World
from knode.errors import ShimError
from knode.pods.model import View
from knode.probes.checks import http_get
from knode.probes.grpc import grpc_health
from knode.probes.manager import Prober
from knode.probes.metrics import ProbeMetrics
from knode.runtime.driver import NS


class Subject:
    """One container, whose commands answer as the test wishes; `events` are (seconds since its start, message)."""

    def __init__(self, make_pod, make_record, **container) -> None:
        self.world = World(1)
        self.env = self.world.host('n').env
        self.pod = make_pod(containers=[{'name': 'c', 'image': 'x', **container}])
        self.began = self.env.clock.wall().timestamp()
        self.record = dataclasses.replace(make_record(), started_ns=int(self.began * NS))
        self.ending = False
        self.events: list[tuple[float, str]] = []
        self.asked: list[tuple[float, str]] = []
        self.answer = lambda argv: 0
        self.checkpoint = SimpleNamespace(handle='h', address='127.0.0.1')
        self.driver = SimpleNamespace(exec=self._exec, annotate=self._annotate)

    @property
    def age(self) -> float:
        return round(self.env.clock.wall().timestamp() - self.began, 2)

    async def _annotate(self, handle, container_id, meta) -> None:
        return None

    async def _exec(self, handle, container_id, spec, io) -> int:
        self.asked.append((self.age, spec['argv'][0]))
        answer = self.answer(spec['argv'])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _emit(self, pod, kind, reason, message, *, container='', where='containers') -> None:
        assert (kind, reason, container, where) == ('Warning', 'Unhealthy', 'c', 'containers')
        self.events.append((self.age, message))

    def checks(self):
        return self.prober.checks()[self.record.id]

    def run(self, script) -> None:
        async def main() -> None:
            metrics = ProbeMetrics()
            host = SimpleNamespace(env=self.env, emit=self._emit, probe_metrics=metrics)
            self.uid = 'u1'
            self.prober = Prober(host, self, lambda: None)  # type: ignore[arg-type]
            view = View(self.pod, {'c': [self.record]}, self.began, 's')
            self.prober.adjust(view)
            await script()
            self.prober.close()

        self.world.run(main())


@pytest.fixture
def subject(make_pod, make_record):
    return lambda **container: Subject(make_pod, make_record, **container)


def probe(name, **more):
    return {'exec': {'command': [name]}, **more}


def test_a_condemned_container_is_not_asked_whether_it_lives_again(subject):
    s = subject(livenessProbe=probe('alive', initialDelaySeconds=5, periodSeconds=2, failureThreshold=3))
    s.answer = lambda argv: 1

    async def script():
        await asyncio.sleep(60)
        assert s.checks().failed == 'Container c failed liveness probe, will be restarted'

    s.run(script)
    assert s.asked == [(t, 'alive') for t in (5.0, 7.0, 9.0)]
    assert s.events == [(t, 'Liveness probe failed: ') for t in (5.0, 7.0, 9.0)]


def test_a_pod_that_ends_is_only_asked_for_its_readiness(subject):
    s = subject(
        livenessProbe=probe('alive', periodSeconds=2),
        readinessProbe=probe('ready', periodSeconds=2, failureThreshold=2),
    )
    s.answer = lambda argv: 1 if s.ending else 0

    async def script():
        await asyncio.sleep(5)
        s.ending = True
        await asyncio.sleep(5)
        assert not s.checks().failed
        assert not s.checks().ready

    s.run(script)
    assert [t for t, name in s.asked if name == 'alive'] == [0.0, 2.0, 4.0]
    assert [t for t, name in s.asked if name == 'ready'] == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ('broken', 'text'),
    [
        (probe('nosuch', periodSeconds=1), 'failed to exec in container: no such program'),
        ({'tcpSocket': {'port': 'web'}, 'periodSeconds': 1}, 'strconv.Atoi: parsing "web": invalid syntax'),
    ],
    ids=['no such command', 'no such port'],
)
def test_a_probe_that_cannot_be_made_is_told_and_not_counted(subject, broken, text):
    s = subject(livenessProbe=broken, readinessProbe=broken)
    s.answer = lambda argv: ShimError('no such program')

    async def script():
        await asyncio.sleep(9.5)
        assert not s.checks().failed
        assert not s.checks().ready

    s.run(script)
    said = {message for _, message in s.events}
    assert said == {f'{k} probe errored and resulted in unknown state: {text}' for k in ('Liveness', 'Readiness')}
    assert len(s.events) == 20


def test_the_startup_probe_holds_the_others_back(subject):
    s = subject(
        startupProbe=probe('up', periodSeconds=3, failureThreshold=5),
        livenessProbe=probe('alive', periodSeconds=10),
    )
    s.answer = lambda argv: 1 if argv == ['up'] and s.age < 6 else 0

    async def script():
        assert not s.checks().started
        await asyncio.sleep(17)
        assert s.checks().started

    s.run(script)
    assert s.asked == [(0.0, 'up'), (3.0, 'up'), (6.0, 'up'), (6.0, 'alive'), (16.0, 'alive')]


def test_readiness_changes_after_as_many_answers_in_a_row_as_it_takes(subject):
    s = subject(readinessProbe=probe('ready', periodSeconds=1, successThreshold=2, failureThreshold=3))
    seen = []
    answers = [0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0]
    s.answer = lambda argv: answers[len(s.asked) - 1]

    async def script():
        for _ in answers:
            await asyncio.sleep(0.5)
            seen.append(s.checks().ready)
            await asyncio.sleep(0.5)

    s.run(script)
    assert seen == [False, False, False, True, True, True, True, True, True, False, False, True]


def test_a_command_that_takes_too_long_has_failed(subject):
    s = subject(livenessProbe=probe('slow', periodSeconds=10, timeoutSeconds=2, failureThreshold=1))

    async def forever(handle, container_id, spec, io):
        await asyncio.sleep(1000)

    s.driver.exec = forever

    async def script():
        await asyncio.sleep(3)
        assert s.checks().failed

    s.run(script)
    assert s.events == [(2.0, 'Liveness probe failed: command timed out: "slow" timed out after 2s')]


def test_a_pod_that_never_restarts_does_not_announce_a_restart(subject):
    s = subject(livenessProbe=probe('alive', failureThreshold=1))
    s.pod['spec']['restartPolicy'] = 'Never'
    s.answer = lambda argv: 1

    async def script():
        await asyncio.sleep(1)
        assert s.checks().failed == 'Container c failed liveness probe'

    s.run(script)


@pytest.mark.parametrize(
    ('answer', 'outcome'),
    [
        ('200 OK', (True, '')),
        ('302 Found\r\nLocation: /there', (True, '')),
        (
            '302 Found\r\nLocation: http://elsewhere.invalid/',
            (True, 'Probe terminated redirects, Response body: moved'),
        ),
        ('404 Not Found', (False, 'HTTP probe failed with statuscode: 404')),
    ],
)
async def test_a_probe_that_is_sent_to_another_host_passes_with_a_warning(answer, outcome):
    async def serve(reader, writer):
        first = await reader.readuntil(b'\r\n\r\n')
        head = '200 OK' if b'/there' in first else answer
        writer.write(f'HTTP/1.1 {head}\r\nContent-Length: 5\r\n\r\nmoved'.encode())
        writer.close()

    async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await http_get({'path': '/'}, '127.0.0.1', port, 5.0) == outcome


SETTINGS = b'\0\0\0\4\0\0\0\0\0'
GOAWAY = b'\0\0\x08\7\0\0\0\0\0' + bytes(8)
HEALTH = b'\0\0\7\0\1\0\0\0\1' + b'\0\0\0\0\2\x08'
UNAVAILABLE = 'rpc error: code = Unavailable desc = error reading from server: EOF'
UNREACHED = 'timeout: failed to connect service "{}" within 0.2s: context deadline exceeded'


@pytest.mark.parametrize(
    ('says', 'outcome'),
    [
        (SETTINGS + HEALTH + b'\1', ''),
        (SETTINGS + HEALTH + b'\2', 'service unhealthy (responded with "NOT_SERVING")'),
        (SETTINGS + GOAWAY, f'error: health rpc probe failed: {UNAVAILABLE}'),
        (SETTINGS + b'\0', f'error: health rpc probe failed: {UNAVAILABLE}'),
        (SETTINGS, 'timeout: health rpc did not complete within 0.2s'),
        (b'', UNREACHED),
        (b'HTTP/1.1 400 Bad Request\r\n\r\n', UNREACHED),
        (None, UNREACHED),
    ],
    ids=['serving', 'not serving', 'going away', 'ending', 'hanging', 'silent', 'no HTTP/2', 'not there'],
)
async def test_a_grpc_probe_tells_what_upstream_tells(says, outcome):
    left = asyncio.Event()

    async def serve(reader, writer):
        writer.write(says)
        with contextlib.suppress(ConnectionError):
            await reader.read(1 if says not in {SETTINGS, b''} else -1)
        writer.close()
        left.set()

    async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
        port = server.sockets[0].getsockname()[1]
        if says is None:
            server.close()
            left.set()
        expected = not outcome, outcome.format(f'127.0.0.1:{port}')
        assert await grpc_health('127.0.0.1', port, '', 0.2) == expected
        await left.wait()


def test_a_warning_of_a_probe_is_told_and_the_container_is_ready(subject, monkeypatch):
    s = subject(readinessProbe={'httpGet': {'port': 80}, 'periodSeconds': 100})
    told = []
    monkeypatch.setattr(s, '_emit', lambda pod, kind, reason, text, **where: told.append((kind, reason, text)))

    async def redirected(*args):
        return True, 'Probe terminated redirects'

    async def script():
        await asyncio.sleep(5)
        assert s.checks().ready

    monkeypatch.setattr('knode.probes.manager.http_get', redirected)
    s.run(script)
    assert told == [('Warning', 'ProbeWarning', 'Readiness probe warning: Probe terminated redirects')]
