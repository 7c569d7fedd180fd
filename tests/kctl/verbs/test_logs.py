"""`kctl logs` and the connection, against a small server that says what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kctl.main import main


def pod(name: str, *containers: str, phase: str = 'Running') -> dict[str, Any]:
    return {
        'metadata': {'name': name, 'namespace': 'default', 'labels': {'app': 'x'}},
        'spec': {'containers': [{'name': c} for c in containers]},
        'status': {'phase': phase, 'startTime': f'2026-01-01T00:00:0{len(name)}Z'},
    }


PODS = {
    p['metadata']['name']: p for p in (pod('one', 'main'), pod('two', 'a', 'b'), pod('waits', 'c', phase='Pending'))
}
DEPLOYMENT = {'kind': 'Deployment', 'metadata': {'name': 'web'}, 'spec': {'selector': {'matchLabels': {'app': 'x'}}}}
RESOURCES = {
    '/api': [('', 'v1', [('pods', 'Pod', 'po')])],
    '/apis': [('apps', 'v1', [('deployments', 'Deployment', 'deploy')])],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    busy = 1

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.strip('/').split('/')
        if url.path in RESOURCES:
            return self._json(_discovery(url.path))
        if parts[-1] == 'log':
            return self._log(parts[-2], {k: v[0] for k, v in parse_qs(url.query).items()})
        if parts[-1] == 'pods':
            return self._json({'items': [*PODS.values()]})
        if parts[-1] == 'web':
            return self._json(DEPLOYMENT)
        if parts[-1] == 'busy' and Handler.busy:
            Handler.busy -= 1
            return self._json({'kind': 'Status', 'code': 429, 'message': 'later'}, 429, {'Retry-After': '0'})
        if parts[-1] in PODS or parts[-1] == 'busy':
            return self._json(PODS.get(parts[-1], PODS['one']))
        return self._json({'kind': 'Status', 'reason': 'NotFound', 'message': 'pods "no" not found', 'code': 404}, 404)

    def _log(self, name: str, params: dict[str, str]) -> None:
        asked = ','.join(f'{k}={v}' for k, v in sorted(params.items()))
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        for piece in (f'{name} {asked}\nsec', 'ond\nunfinished'):
            self.wfile.write(f'{len(piece):x}\r\n{piece}\r\n'.encode())
        self.wfile.write(b'0\r\n\r\n')

    def _json(self, body: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def _discovery(root: str) -> dict[str, Any]:
    items = [
        {'metadata': {'name': group}, 'versions': [{'version': version, 'resources': [
            {'resource': r, 'responseKind': {'kind': k}, 'scope': 'Namespaced', 'shortNames': [s], 'verbs': ['get']}
            for r, k, s in resources]}]}
        for group, version, resources in RESOURCES[root]
    ]  # fmt: skip
    return {'kind': 'APIGroupDiscoveryList', 'items': items}


@pytest.fixture
def kctl(tmp_path, capfdbinary) -> Iterator[Any]:
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    config = tmp_path / 'config'
    config.write_text(json.dumps({
        'current-context': 'c',
        'contexts': [{'name': 'c', 'context': {'cluster': 'c'}}],
        'clusters': [
            {'name': 'c', 'cluster': {'server': f'http://127.0.0.1:{server.server_address[1]}'}},
        ],
    }))  # fmt: skip

    def call(*args: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        code = main(['--kubeconfig', str(config), *args])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    yield call
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_log_is_copied_with_the_flags_as_parameters(kctl):
    code, out, err = kctl('logs', 'one', '--tail=5', '--since=1m', '-p', '--timestamps')
    asked = 'container=main,previous=true,sinceSeconds=60,tailLines=5,timestamps=true'
    assert (code, out, err) == (0, f'one {asked}\nsecond\nunfinished', '')


def test_of_several_containers_the_first_is_taken_and_named(kctl):
    _, out, err = kctl('logs', 'two')
    assert out.startswith('two container=a\n')
    assert err == 'Defaulted container "a" out of: a, b\n'
    assert kctl('logs', 'two', '-c', 'b')[1].startswith('two container=b\n')
    assert kctl('logs', 'two', 'b')[1].startswith('two container=b\n')
    assert kctl('logs', 'two', '-c', 'z') == (1, '', 'error: container z is not valid for pod two\n')


def test_a_workloads_log_is_that_of_its_longest_running_pod(kctl):
    code, out, err = kctl('logs', 'deploy/web')
    assert (code, out.splitlines()[0]) == (0, 'one container=main')
    assert err == 'Found 3 pods, using pod/one\n'


def test_a_selector_means_ten_lines_of_each_pod(kctl):
    out = kctl('logs', '-l', 'app=x', '--prefix')[1]
    assert '[pod/one/main] one container=main,tailLines=10\n' in out
    assert '[pod/two/a] two container=a,tailLines=10\n' in out


def test_following_several_logs_has_a_limit(kctl):
    code, _, err = kctl('logs', '-f', '-l', 'app=x', '--max-log-requests=2')
    assert code == 1
    assert 'you are attempting to follow 3 log streams, but maximum allowed concurrency is 2' in err
    out = kctl('logs', '-f', '-l', 'app=x')[1]
    assert sorted(line for line in out.splitlines() if 'follow=true' in line) == [
        'one container=main,follow=true,tailLines=10',
        'two container=a,follow=true,tailLines=10',
        'waits container=c,follow=true,tailLines=10',
    ]


def test_a_missing_pod_is_named(kctl):
    assert kctl('logs', 'no') == (
        1, '', 'error: error from server (NotFound): pods "no" not found in namespace "default"\n'
    )  # fmt: skip


def test_a_busy_server_is_asked_again(kctl):
    assert kctl('get', 'pod', 'busy', '-o', 'jsonpath={.metadata.name}')[:2] == (0, 'one')


def test_a_server_that_is_not_there_is_one_line(tmp_path, capfd):
    config = tmp_path / 'config'
    config.write_text(json.dumps({
        'current-context': 'c',
        'contexts': [{'name': 'c', 'context': {'cluster': 'c'}}],
        'clusters': [{'name': 'c', 'cluster': {'server': 'http://127.0.0.1:1'}}],
    }))  # fmt: skip
    assert main(['--kubeconfig', str(config), 'get', 'pods']) == 1
    assert capfd.readouterr().err == (
        'The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n'
    )


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (
            ['scale', 'x', '--replicas=-1'],
            "error: Invalid value for '--replicas': -1 is not in the range x>=0.\nSee 'kctl scale --help' for usage.\n",
        ),
        (['wibble'], "error: No such command 'wibble'.\nSee 'kctl --help' for usage.\n"),
        (['--kubeconfig', '/none', 'get', 'pods'], 'error: /none: no such kubeconfig file\n'),
    ],
)
def test_a_wrong_command_line_is_told_apart(capfd, args, message):
    assert main(args) == 1
    assert capfd.readouterr().err == message
