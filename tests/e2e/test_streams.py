"""exec, attach, cp, logs, port-forward and debug, with old and new kubectl and with Python's clients, on one pod.

Old ones speak SPDY/3.1, new ones WebSocket; Python's speak channels. All of them meet the same processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import filecmp
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, LocalCluster, kubectls

pytestmark = pytest.mark.e2e

VERSIONS = ('1.27', '1.30', '1.32', '1.33')
MIB = 1 << 20
PORT = 8097
ECHO = f"""
import asyncio, os
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, os.environ['POD_IP'], {PORT})
    print('ready', flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
TALK = 'echo one; echo two; echo err >&2; exec sleep 100000'
HEARD = 'while read -r line; do echo "heard $line"; done'
AGAIN = 'echo one life; [ -e once ] && exec sleep 100000; touch once; echo last words; exit 3'
NAMESPACE = 'streams'


def manifest() -> dict[str, Any]:
    address = {'name': 'POD_IP', 'valueFrom': {'fieldRef': {'fieldPath': 'status.podIP'}}}
    containers = [
        {'name': 'main', 'image': 'busybox', 'command': ['sh', '-c', TALK]},
        {'name': 'echo', 'image': 'python', 'command': ['python3', '-c', ECHO], 'env': [address]},
        {'name': 'heard', 'image': 'busybox', 'command': ['sh', '-c', HEARD], 'stdin': True},
        {'name': 'again', 'image': 'busybox', 'command': ['sh', '-c', AGAIN]},
        {'name': 'term', 'image': 'busybox', 'command': ['sh', '-c', HEARD], 'stdin': True, 'tty': True},
    ]
    spec = {'containers': containers, 'terminationGracePeriodSeconds': 1, 'restartPolicy': 'Always'}
    meta = {'name': 'p', 'labels': {'app': 'streams'}}
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': meta, 'spec': spec}


@pytest.fixture(scope='module')
def pod(cluster: LocalCluster) -> Iterator[str]:
    """Its namespace; it is called `p`."""
    cluster.kctl(
        'create',
        '-f',
        '-',
        stdin=json.dumps({'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': NAMESPACE}}),
    )
    cluster.kctl('apply', '-n', NAMESPACE, '-f', '-', stdin=json.dumps(manifest()))
    cluster.kctl('wait', '-n', NAMESPACE, '--for=condition=Ready', 'pod/p', '--timeout=60s')
    yield NAMESPACE
    cluster.kctl('delete', 'namespace', NAMESPACE, '--wait=false')


FOUND = {v: path for v, path in kubectls().items() if v in VERSIONS}


class Kubectl:
    """One version, in the pod's namespace."""

    def __init__(self, path: str, cluster: LocalCluster) -> None:
        self.path, self.env = path, cluster.environment

    def argv(self, *args: str) -> list[str]:
        return [self.path, '-n', NAMESPACE, *args]

    def run(self, *args: str, stdin: bytes = b'', check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(self.argv(*args), env=self.env, input=stdin, capture_output=True, check=False, timeout=60)
        assert not check or done.returncode == 0, done
        return done


@pytest.fixture(params=list(FOUND.items()) or [('none', '')], ids=lambda p: p[0])
def kubectl(request: pytest.FixtureRequest, cluster: LocalCluster, pod: str) -> Kubectl:
    if not request.param[1]:
        pytest.skip('no kubectl from 1.27 on this machine')
    return Kubectl(request.param[1], cluster)


def test_exec_passes_input_output_and_the_exit_code(kubectl: Kubectl) -> None:
    payload = os.urandom(10 * MIB)
    assert kubectl.run('exec', '-i', 'p', '-c', 'main', '--', 'cat', stdin=payload).stdout == payload
    failed = kubectl.run('exec', 'p', '-c', 'main', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7', check=False)
    assert (failed.returncode, failed.stdout) == (7, b'out\n')
    assert failed.stderr.splitlines() == [b'err', b'command terminated with exit code 7']
    missing = kubectl.run('exec', 'p', '-c', 'main', '--', 'no-such-program', check=False)
    assert missing.returncode not in {0, 7}
    assert b'no-such-program' in missing.stderr


def test_a_terminal_follows_the_size_of_the_window(kubectl: Kubectl) -> None:
    near, far = pty.openpty()

    def resize(rows: int, columns: int) -> None:
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    resize(33, 77)
    wait = 'until [ "$(stty size)" = "%s" ]; do sleep .05; done; echo $(stty size); '  # a command may outrun the size
    script = wait % '33 77' + wait % '20 99' + 'exit 3'
    argv = kubectl.argv('exec', '-it', 'p', '-c', 'main', '--', 'sh', '-c', script)
    child = subprocess.Popen(argv, env={**kubectl.env, 'TERM': 'xterm'}, stdin=far, stdout=far, stderr=far)
    os.close(far)
    said = b''
    while b'33 77' not in said:
        said += os.read(near, 1000)
    resize(20, 99)
    child.send_signal(signal.SIGWINCH)  # the kernel tells only those whose own terminal it is
    with contextlib.suppress(OSError):  # the end of a terminal whose other side is closed
        while data := os.read(near, 1000):
            said += data
    os.close(near)
    assert child.wait(30) == 3
    assert b'20 99' in said


def test_attach_reaches_a_running_container(kubectl: Kubectl) -> None:
    argv = kubectl.argv('attach', '-i', 'p', '-c', 'heard')
    child = subprocess.Popen(
        argv, env=kubectl.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    word = os.urandom(4).hex()
    child.stdin.write(f'{word}\n'.encode())
    child.stdin.flush()
    assert child.stdout.readline() == f'heard {word}\n'.encode()
    child.kill()
    child.communicate()


def test_attach_joins_a_terminal_and_leaves_it_running(kubectl: Kubectl) -> None:
    word, near, far = os.urandom(4).hex(), *pty.openpty()
    argv = kubectl.argv('attach', '-it', 'p', '-c', 'term')
    child = subprocess.Popen(argv, env={**kubectl.env, 'TERM': 'xterm'}, stdin=far, stdout=far, stderr=far)
    os.close(far)
    os.write(near, f'{word}\n'.encode())
    said = b''
    while f'heard {word}'.encode() not in said:
        said += os.read(near, 1000)
    child.kill()
    child.wait()
    os.close(near)
    after = kubectl.run('get', 'pod', 'p', '-o', 'jsonpath={.status.containerStatuses[?(@.name=="term")].restartCount}')
    assert after.stdout == b'0'


def test_cp_carries_files_and_directories_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    there = tmp_path / 'there'
    (tmp_path / 'from' / 'sub').mkdir(parents=True)
    there.mkdir()
    (tmp_path / 'from' / 'big').write_bytes(os.urandom(2 * MIB))
    (tmp_path / 'from' / 'sub' / 'small').write_text('x')
    kubectl.run('cp', str(tmp_path / 'from'), f'p:{there}/d', '-c', 'main')
    kubectl.run('cp', f'p:{there}/d', str(tmp_path / 'back'), '-c', 'main')
    assert filecmp.cmp(tmp_path / 'from' / 'big', tmp_path / 'back' / 'big', shallow=False)
    assert (tmp_path / 'back' / 'sub' / 'small').read_text() == 'x'


def test_logs_come_in_every_form(kubectl: Kubectl) -> None:
    def logs(*flags: str) -> str:
        return kubectl.run('logs', 'p', '-c', 'main', *flags).stdout.decode()

    assert sorted(logs().split()) == ['err', 'one', 'two']
    assert len(logs('--tail=1').splitlines()) == 1
    assert re.match(r'20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z one', logs('--timestamps'))
    assert len(logs('--limit-bytes=5')) == 5
    assert len(logs('--since=1h').splitlines()) == 3
    assert logs('--since-time=2100-01-01T00:00:00Z') == ''
    every = kubectl.run('logs', 'p', '--all-containers', '--prefix').stdout.decode()
    assert '[pod/p/echo] ready' in every
    assert logs('--since=1h', '--tail=2', '--limit-bytes=4') in {'two\n', 'err\n'}
    assert kubectl.run('logs', 'p', '-c', 'again', '--previous').stdout == b'one life\nlast words\n'
    assert kubectl.run('logs', 'p', '-c', 'again', '-p', '--tail=1').stdout == b'last words\n'
    assert kubectl.run('logs', 'p', '-c', 'again').stdout == b'one life\n'
    labelled = kubectl.run('logs', '-l', 'app=streams', '--all-containers', '--prefix', '--tail=1').stdout.decode()
    assert {'[pod/p/echo] ready', '[pod/p/again] one life'} <= set(labelled.splitlines())
    over = kubectl.run('logs', '-f', 'p', '-c', 'again', '--previous')  # ends by itself: nobody writes there any more
    assert over.stdout == b'one life\nlast words\n'
    refused = kubectl.run('logs', 'p', '-c', 'main', '--previous', check=False)
    assert b'previous terminated container "main" in pod "p" not found' in refused.stderr
    follow = subprocess.Popen(kubectl.argv('logs', '-f', 'p', '-c', 'main'), env=kubectl.env, stdout=subprocess.PIPE)
    assert follow.stdout is not None
    assert {follow.stdout.readline() for _ in range(3)} == {b'one\n', b'two\n', b'err\n'}
    follow.kill()
    follow.communicate()


async def echoed(port: int, payload: bytes) -> bytes:
    reader, writer = await asyncio.open_connection('127.0.0.1', port)

    async def send() -> None:
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    _, got = await asyncio.gather(send(), reader.read(-1))
    writer.close()
    return got


async def twenty(port: int) -> None:
    payloads = [os.urandom(MIB) for _ in range(20)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(echoed(port, p) for p in payloads)) == payloads


def forwarding(argv: Sequence[str], env: dict[str, str]) -> None:
    child = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    line = child.stdout.readline()
    found = re.search(rb'127\.0\.0\.1:(\d+)', line)
    assert found, (line, child.stderr.read() if child.stderr else '')
    try:
        asyncio.run(twenty(int(found[1])))
    finally:
        child.kill()
        child.communicate()


FORWARD = ('port-forward', 'pod/p', f':{PORT}', '--address=127.0.0.1')


def test_port_forward_carries_twenty_connections_at_once(kubectl: Kubectl) -> None:
    forwarding(kubectl.argv(*FORWARD), kubectl.env)


def test_kctl_forwards_ports_too(cluster: LocalCluster, pod: str) -> None:
    forwarding([sys.executable, '-m', 'kctl', '-n', NAMESPACE, *FORWARD], cluster.environment)


def test_debug_adds_a_container_that_can_be_entered(kubectl: Kubectl, cluster: LocalCluster) -> None:
    name = f'd{os.urandom(4).hex()}'
    kubectl.run(
        'debug', 'p', '--image=busybox', f'--container={name}', '--', 'sh', '-c', 'echo debugging; exec sleep 100000'
    )
    where = "jsonpath={.status.ephemeralContainerStatuses[?(@.name=='" + name + "')].state.running}"
    newest = Kubectl(next(iter(FOUND.values())), cluster)  # 1.27 waits for values only
    newest.run('wait', 'pod/p', f'--for={where}', '--timeout=30s')
    assert kubectl.run('logs', 'p', '-c', name).stdout == b'debugging\n'
    assert kubectl.run('exec', 'p', '-c', name, '--', 'echo', 'in').stdout == b'in\n'


# — Python's clients, each in a process of its own, as its users have it —

TERMINAL = 'until [ "$(stty size)" = "33 77" ]; do sleep .05; done; stty size; exit 5'
OFFICIAL = f"""
import io, os, tarfile
from concurrent.futures import ThreadPoolExecutor
from kubernetes import client, config, stream, watch
config.load_kube_config()
api = client.CoreV1Api()
def run(*argv, **more):
    wants = {{'stdout': True, 'stderr': True, 'stdin': False, 'tty': False, **more}}
    call = api.connect_get_namespaced_pod_exec
    return stream.stream(call, 'p', '{NAMESPACE}', container='main', command=list(argv), **wants)
assert run('echo', 'hi') == 'hi\\n'
talk = run('cat', stdin=True, _preload_content=False)
talk.write_stdin('héllo\\n')
assert talk.readline_stdout(timeout=20) == 'héllo'
talk.close()
failing = run('sh', '-c', 'echo err >&2; exit 7', _preload_content=False)
failing.run_forever(timeout=20)
assert (failing.returncode, failing.read_stderr()) == (7, 'err\\n')
terminal = run('sh', '-c', {TERMINAL!r}, stdin=True, tty=True, _preload_content=False)
terminal.write_channel(4, '{{"Height":33,"Width":77}}')
terminal.run_forever(timeout=20)
assert (terminal.returncode, terminal.read_stdout()) == (5, '33 77\\r\\n')

def through(payload, *argv):
    # Its protocol cannot end the input: the command has to know how much there is.
    both, got, left = run(*argv, stdin=True, binary=True, _preload_content=False), b'', payload
    while both.is_open():
        if left:
            both.write_stdin(left[:1 << 16])
            left = left[1 << 16:]
        both.update(timeout=0 if left else 5)
        got += both.read_stdout(timeout=0) if both.peek_stdout(timeout=0) else b''
    assert both.returncode == 0, both.read_stderr()
    return got
payload = os.urandom({10 * MIB})
assert through(payload, 'head', '-c', '{10 * MIB}') == payload
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode='w') as tar:
    entry = tarfile.TarInfo('copied')
    entry.size = {2 * MIB}
    tar.addfile(entry, io.BytesIO(payload))
size = str(len(packed.getvalue()))
back = through(packed.getvalue(), 'sh', '-c', f'head -c {{size}} | tar xf - && tar cf - copied && rm copied')
with tarfile.open(fileobj=io.BytesIO(back)) as tar:
    assert tar.extractfile('copied').read() == payload[:{2 * MIB}]

attached = stream.stream(api.connect_get_namespaced_pod_attach, 'p', '{NAMESPACE}', container='heard', stdin=True,
                         stdout=True, stderr=True, _preload_content=False)
word = os.urandom(4).hex()
attached.write_stdin(word + '\\n')
assert attached.readline_stdout(timeout=20) == 'heard ' + word
attached.close()

def log(container, **more):
    return api.read_namespaced_pod_log('p', '{NAMESPACE}', container=container, **more)
assert sorted(log('main').split()) == ['err', 'one', 'two']
assert log('again', previous=True, tail_lines=1) == 'last words\\n'
assert log('main', limit_bytes=3, since_seconds=3600) == 'one'
assert log('echo', timestamps=True).split()[1] == 'ready'
for line in watch.Watch().stream(api.read_namespaced_pod_log, 'p', '{NAMESPACE}', container='echo'):
    assert line == 'ready'
    break

def echoed(payload):
    forward = stream.portforward(api.connect_get_namespaced_pod_portforward, 'p', '{NAMESPACE}', ports='{PORT}')
    connection, got, left = forward.socket({PORT}), b'', payload
    connection.settimeout(30)
    while len(got) < len(payload):
        connection.sendall(left[:1 << 16])
        left = left[1 << 16:]
        got += connection.recv(1 << 16)
    return got
payloads = [os.urandom({MIB}) for _ in range(20)]
with ThreadPoolExecutor(20) as pool:
    assert list(pool.map(echoed, payloads)) == payloads
"""
ASYNCHRONOUS = f"""
import asyncio, json, os
from kubernetes_asyncio import client, config, stream
NAME = 'p', '{NAMESPACE}'
async def main():
    await config.load_kube_config()
    async with stream.WsApiClient() as connection, client.ApiClient() as plain:
        api, logs = client.CoreV1Api(connection), client.CoreV1Api(plain)
        said = await api.connect_get_namespaced_pod_exec(
            *NAME, container='main', stdout=True, stderr=True, command=['sh', '-c', 'echo out; echo err >&2'],
        )
        assert set(said.split()) == {{'out', 'err'}}, said

        async def session(call, send, **wants):
            got = {{1: b'', 2: b'', 3: b''}}
            async with await call(*NAME, stdout=True, stdin=True, _preload_content=False, **wants) as socket:
                sending = asyncio.ensure_future(send(socket))
                async for message in socket:
                    got[message.data[0]] += message.data[1:]
                    if got[3] or (call == api.connect_get_namespaced_pod_attach and got[1].endswith(b'\\n')):
                        break
                await sending
            return got[1], got[2], stream.WsApiClient.parse_error_data(got[3]) if got[3] else None
        run = api.connect_get_namespaced_pod_exec

        payload = os.urandom({10 * MIB})
        async def whole(socket):
            await socket.send_bytes(b'\\0' + payload)
        through = await session(run, whole, container='main', command=['head', '-c', str(len(payload))])
        assert through == (payload, b'', 0)

        async def nothing(socket):
            pass
        failing = ['sh', '-c', 'echo err >&2; exit 7']
        assert await session(run, nothing, container='main', stderr=True, command=failing) == (b'', b'err\\n', 7)

        async def resize(socket):
            await socket.send_bytes(b'\\4' + json.dumps({{'Height': 33, 'Width': 77}}).encode())
        sized = await session(run, resize, container='main', tty=True, command=['sh', '-c', {TERMINAL!r}])
        assert sized == (b'33 77\\r\\n', b'', 5), sized

        word = os.urandom(4).hex().encode()
        async def say(socket):
            await socket.send_bytes(b'\\0' + word + b'\\n')
        attached = await session(api.connect_get_namespaced_pod_attach, say, container='heard')
        assert attached[0] == b'heard ' + word + b'\\n', attached

        log = logs.read_namespaced_pod_log
        assert await log(*NAME, container='again', previous=True, tail_lines=1) == 'last words\\n'
        assert await log(*NAME, container='main', limit_bytes=3, since_seconds=3600) == 'one'
        following = await log(*NAME, container='echo', follow=True, _preload_content=False)
        assert await following.content.readline() == b'ready\\n'
        following.close()
asyncio.run(main())
"""
KR8S = f"""
import asyncio, os
from kr8s.asyncio.objects import Pod
async def main():
    pod = await Pod.get('p', namespace='{NAMESPACE}')
    done = await pod.exec(['sh', '-c', 'printf hello; echo err >&2'], container='main')
    assert (done.stdout, done.stderr, done.returncode) == (b'hello', b'err\\n', 0), done
    failed = await pod.exec(['sh', '-c', 'exit 7'], container='main', check=False)
    assert failed.returncode == 7, failed
    much = await pod.exec(['head', '-c', '{10 * MIB}', '/dev/zero'], container='main')  # its protocol ends no input
    assert much.stdout == bytes({10 * MIB})
    assert [line async for line in pod.logs(container='echo')] == ['ready']
    assert [line async for line in pod.logs(container='again', previous=True, tail_lines=1)] == ['last words']
    async for line in pod.logs(container='main', follow=True, timestamps=True):
        assert line.endswith('Z one'), line
        break
    async with pod.portforward({PORT}) as port:
        async def echoed(payload):
            reader, writer = await asyncio.open_connection('127.0.0.1', port)
            writer.write(payload)
            got = await reader.readexactly(len(payload))
            writer.close()
            return got
        payloads = [os.urandom({MIB}) for _ in range(20)]
        assert await asyncio.gather(*map(echoed, payloads)) == payloads
asyncio.run(main())
"""


@pytest.mark.parametrize('script', [OFFICIAL, ASYNCHRONOUS, KR8S], ids=['kubernetes', 'kubernetes_asyncio', 'kr8s'])
def test_the_clients_of_python_execute_read_logs_and_forward(cluster: LocalCluster, pod: str, script: str) -> None:
    cluster.run(sys.executable, '-c', script)
