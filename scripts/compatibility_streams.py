"""Checks of `compatibility.py` that move bytes: terminals, copies, logs in every form, forwarded ports, debugging.

`p` is the pod of SETUP. Each script cleans up after itself; files are made in a directory of its own.
"""

# ruff: noqa: E501

from __future__ import annotations

TERMINAL = r"""
import fcntl, os, pty, struct, sys, termios

def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

pid, terminal = pty.fork()
if pid == 0:
    resize(0, 33, 77)
    os.execvp(sys.argv[1], sys.argv[1:])
said, steps = b'', [(b'FIRST', lambda: resize(terminal, 44, 88)), (b'SECOND', lambda: os.write(terminal, b'word\n'))]
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    said += data
    while steps and steps[0][0] in said:
        steps.pop(0)[1]()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert code == 5 and b'got word' in said, (code, said)
"""
IN_THE_TERMINAL = (
    'until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; echo FI""RST; '
    'until [ "$(stty size)" = "44 88" ]; do sleep 0.05; done; echo SEC""OND; read x; echo got $x; exit 5'
)
ECHO = (
    'import asyncio, os\n'
    'async def echo(r, w):\n'
    '    while data := await r.read(65536):\n'
    '        w.write(data)\n'
    '        await w.drain()\n'
    '    w.close()\n'
    'async def main():\n'
    '    await (await asyncio.start_server(echo, os.environ["POD_IP"], 8098)).serve_forever()\n'
    'asyncio.run(main())\n'
)
TWENTY = """
import asyncio, os, sys

async def one():
    reader, writer = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))
    payload = os.urandom(1 << 20)
    async def send():
        writer.write(payload)
        await writer.drain()
        writer.write_eof()
    sending = asyncio.ensure_future(send())
    assert await reader.read(-1) == payload
    await sending
    writer.close()

async def main():
    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(20))), 60)

asyncio.run(main())
"""

STREAM_VERBS: dict[str, str] = {
    'exec -t (size, resize, exit code)': f"""cat >terminal.py <<'END'{TERMINAL}END
python3 terminal.py $K exec -it p -- sh -c '{IN_THE_TERMINAL}'""",
    'cp (directory, 5 MB, both ways)': """mkdir -p sent/e; head -c 5000000 /dev/urandom >sent/big; echo small >sent/e/small
$K cp sent p:/tmp/$NS-sent; $K cp p:/tmp/$NS-sent back; diff -r sent back; $K exec p -- rm -r /tmp/$NS-sent""",
    'logs (previous, since, tail, limits)': """$K run crash --image=busybox -- sh -c 'echo one; echo two; echo three; sleep 1; exit 1'
$K wait --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 pod/crash --timeout=60s
test "$($K logs crash --previous)" = "$(printf 'one\\ntwo\\nthree')"; test "$($K logs crash -p --tail=1)" = three
test "$($K logs crash -p --limit-bytes=5)" = "$(printf 'one\\nt')"; test -n "$($K logs crash -p --since=1h)"
test -z "$($K logs crash -p --since-time=2999-01-01T00:00:00Z)"; $K logs crash -p --timestamps --prefix --all-containers | grep -E 'Z two'
$K delete pod crash --now --wait=false""",
    'port-forward (20 connections of 1 MB)': f"""$K run echo --image=python --restart=Never --command -- python3 -c '{ECHO}'
$K wait --for=condition=Ready pod/echo --timeout=60s
cat >twenty.py <<'END'{TWENTY}END
$K port-forward pod/echo :8098 >pf 2>&1 & PF=$!; trap 'kill $PF || true; $K delete pod echo --now --wait=false' EXIT
until grep -q Forwarding pf; do sleep 0.1; done; until $K exec echo -- sh -c 'exec 3<>/dev/tcp/$POD_IP/8098' || $K exec echo -- python3 -c 'import os,socket; socket.create_connection((os.environ["POD_IP"], 8098))'; do sleep 0.2; done 2>/dev/null
python3 twenty.py $(grep -m1 -oE '127.0.0.1:[0-9]+' pf | cut -d: -f2)""",
    'debug -i (answers its caller)': """echo word | $K debug p -i --quiet --image=busybox --target=c --container=dbg-i -- sh -c 'read x; echo got $x' | grep 'got word'""",
}

_POD = """
import time
from kubernetes import client as k8s, config as k8s_config
k8s_config.load_kube_config()
v1 = k8s.CoreV1Api()
def pod_runs(name, image, command):
    container = {'name': 'c', 'image': image, 'command': command}
    spec = {'containers': [container], 'terminationGracePeriodSeconds': 0}
    v1.create_namespaced_pod('default', {'metadata': {'name': name}, 'spec': spec})
    while v1.read_namespaced_pod(name, 'default').status.phase != 'Running':
        time.sleep(0.1)
def port_answers(name):
    ask = 'import os, socket; socket.create_connection((os.environ["POD_IP"], 8098))'
    from kubernetes.stream import stream
    while True:
        asked = stream(v1.connect_get_namespaced_pod_exec, name, 'default', command=['python3', '-c', ask],
                       stdout=True, stderr=True, _preload_content=False)
        asked.run_forever(timeout=10)
        if asked.returncode == 0:
            return
        time.sleep(0.2)
"""
_ECHO = f'ECHO = {ECHO!r}\n'

STREAM_CLIENTS: dict[str, dict[str, str]] = {
    'kubernetes': {
        'exec (stdin, terminal, exit code), attach, port-forward': _POD
        + _ECHO
        + """
from kubernetes.stream import portforward, stream
pod_runs('py-streams', 'python', ['python3', '-c', ECHO])
def run(*command, **more):
    return stream(v1.connect_get_namespaced_pod_exec, 'py-streams', 'default', command=list(command), stdin=True, stdout=True,
                  stderr=True, _preload_content=False, **more)
r = run('sh', '-c', 'head -c 1000000 | wc -c; echo err >&2; exit 3')
for _ in range(10):
    r.write_stdin('x' * 100000)
r.run_forever(timeout=30)
assert (r.read_stdout().strip(), r.read_stderr().strip(), r.returncode) == ('1000000', 'err', 3)
r = run('sh', '-c', 'until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; stty size', tty=True)
r.write_channel(4, '{"Height":33,"Width":77}')
r.run_forever(timeout=30)
assert '33 77' in r.read_stdout(), 'size'
a = stream(v1.connect_get_namespaced_pod_attach, 'py-streams', 'default', stdout=True, _preload_content=False)
a.update(timeout=0.2)
a.close()
port_answers('py-streams')
f = portforward(v1.connect_get_namespaced_pod_portforward, 'py-streams', 'default', ports='8098')
s = f.socket(8098)
s.setblocking(True)
s.sendall(b'ping')
assert s.recv(4) == b'ping'
s.close()
v1.delete_namespaced_pod('py-streams', 'default')
""",
    },
    'kubernetes_asyncio': {
        'logs, exec with its exit code': _POD
        + """
import asyncio, json
from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient
pod_runs('py-async-exec', 'busybox', ['sh', '-c', 'echo said; exec sleep 1000'])
async def main():
    await config.load_kube_config()
    async with client.ApiClient() as api:
        text = await client.CoreV1Api(api).read_namespaced_pod_log('py-async-exec', 'default')
        assert text == 'said\\n', text
    async with WsApiClient() as ws:
        out = await client.CoreV1Api(ws).connect_get_namespaced_pod_exec(
            'py-async-exec', 'default', command=['echo', 'hi'], stdout=True, stderr=True, stdin=False, tty=False)
        assert out == 'hi\\n', out
        session = await client.CoreV1Api(ws).connect_get_namespaced_pod_exec(
            'py-async-exec', 'default', command=['sh', '-c', 'exit 3'], stdout=True, stderr=True, _preload_content=False)
        async with session as socket:
            async for message in socket:
                if message.data[0] == 3:
                    assert WsApiClient.parse_error_data(message.data[1:].decode()) == 3
                    break
asyncio.run(main())
v1.delete_namespaced_pod('py-async-exec', 'default')
""",
    },
    'kr8s': {
        'logs, exec with its exit code, port-forward': _POD
        + _ECHO
        + """
import socket
from kr8s.objects import Pod
pod_runs('py-kr8s-exec', 'python', ['python3', '-c', 'print("said", flush=True)\\n' + ECHO])
pod = Pod.get('py-kr8s-exec', namespace='default')
assert next(iter(pod.logs(follow=True))) == 'said'
assert pod.exec(['echo', 'hi']).stdout == b'hi\\n'
assert pod.exec(['sh', '-c', 'exit 3'], check=False).returncode == 3
port_answers('py-kr8s-exec')
with pod.portforward(remote_port=8098) as port:
    with socket.create_connection(('127.0.0.1', port)) as s:
        s.sendall(b'ping')
        assert s.recv(4) == b'ping'
pod.delete()
""",
    },
}
