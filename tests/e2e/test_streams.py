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
NAMESPACE = 'streams'


def manifest() -> dict[str, Any]:
    address = {'name': 'POD_IP', 'valueFrom': {'fieldRef': {'fieldPath': 'status.podIP'}}}
    containers = [
        {'name': 'main', 'image': 'busybox', 'command': ['sh', '-c', TALK]},
        {'name': 'echo', 'image': 'python', 'command': ['python3', '-c', ECHO], 'env': [address]},
        {'name': 'heard', 'image': 'busybox', 'command': ['sh', '-c', HEARD], 'stdin': True},
    ]
    spec = {'containers': containers, 'terminationGracePeriodSeconds': 1, 'restartPolicy': 'Always'}
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p'}, 'spec': spec}


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

OFFICIAL = f"""
from kubernetes import client, config, stream
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
failing = run('sh', '-c', 'exit 7', _preload_content=False)
failing.run_forever(timeout=20)
assert failing.returncode == 7
assert len(run('head', '-c', '{10 * MIB}', '/dev/zero', binary=True)) == {10 * MIB}
forward = stream.portforward(api.connect_get_namespaced_pod_portforward, 'p', '{NAMESPACE}', ports='{PORT}')
connection = forward.socket({PORT})
connection.settimeout(20)
connection.sendall(b'ping')
assert connection.recv(100) == b'ping'
"""
ASYNCHRONOUS = f"""
import asyncio
from kubernetes_asyncio import client, config, stream
async def main():
    await config.load_kube_config()
    async with stream.WsApiClient() as connection:
        api = client.CoreV1Api(connection)
        said = await api.connect_get_namespaced_pod_exec(
            'p', '{NAMESPACE}', container='main', stdout=True, stderr=True,
            command=['sh', '-c', 'echo out; echo err >&2'],
        )
        assert set(said.split()) == {{'out', 'err'}}, said
asyncio.run(main())
"""
KR8S = f"""
import asyncio, os
from kr8s.asyncio.objects import Pod
async def main():
    pod = await Pod.get('p', namespace='{NAMESPACE}')
    done = await pod.exec(['sh', '-c', 'printf hello; echo err >&2'], container='main')
    assert (done.stdout, done.stderr, done.returncode) == (b'hello', b'err\\n', 0), done
    assert [line async for line in pod.logs(container='echo')] == ['ready']
    async with pod.portforward({PORT}) as port:
        payload = os.urandom(1 << 20)
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(payload)
        assert await reader.readexactly(len(payload)) == payload
        writer.close()
asyncio.run(main())
"""


@pytest.mark.parametrize('script', [OFFICIAL, ASYNCHRONOUS, KR8S], ids=['kubernetes', 'kubernetes_asyncio', 'kr8s'])
def test_the_clients_of_python_execute_read_logs_and_forward(cluster: LocalCluster, pod: str, script: str) -> None:
    cluster.run(sys.executable, '-c', script)
