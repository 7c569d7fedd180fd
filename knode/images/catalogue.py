"""The image catalogue: what `image:` names on a node that runs host processes.

`host:/path` is a program of this machine, `py://module:function` a Python function run by this interpreter in a
process of its own; the names of common images stand for the nearest thing a host has. Anything else is not found,
and the pod says so (ErrImagePull), rather than doing something that merely looks like it ran.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from knode.errors import ImageError, InvalidImageName

RUN_PY = str(Path(__file__).with_name('run.py'))

_PYTHON = re.compile(r'py://([A-Za-z_][\w.]*):([A-Za-z_]\w*)')
_REFERENCE = re.compile(
    r'(?:(?P<repo>[a-zA-Z0-9][a-zA-Z0-9._:-]*(?:/[a-z0-9][a-z0-9._-]*)*)/)?(?P<name>[a-z0-9][a-z0-9._-]*)'
    r'(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@sha256:[0-9a-f]{64})?'
)
_WELL_KNOWN_REPOS = frozenset({
    '', 'library', 'docker.io', 'docker.io/library', 'index.docker.io/library', 'public.ecr.aws/docker/library',
    'registry.k8s.io', 'registry.k8s.io/e2e-test-images', 'k8s.gcr.io', 'gcr.io/google-containers',
    'gcr.io/google_containers', 'gcr.io/google-samples', 'us-docker.pkg.dev/google-samples/containers/gke',
    'hashicorp', 'docker.io/hashicorp', 'curlimages', 'docker.io/curlimages', 'nginxinc', 'docker.io/nginxinc',
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """What a container starts from."""

    reference: str
    id: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    """What is part of this program, or of the host, has no size."""


def _python(target: str) -> tuple[str, ...]:
    return (sys.executable, RUN_PY, target)


NAMED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(('busybox', 'alpine', 'debian', 'ubuntu', 'centos', 'fedora'), ((), ('sh',))),
    'bash': ((), ('bash',)),
    'perl': ((), ('perl',)),
    'curl': (('curl',), ()),
    'python': ((), (sys.executable,)),
    'hello': (_python('knode.images.hello:main'), ()),
    **dict.fromkeys(('nginx', 'httpd'), (_python('knode.images.static:main'), ())),
    'nginx-unprivileged': (_python('knode.images.static:unprivileged'), ()),
    'hello-app': (_python('knode.images.echo:hello_app'), ()),
    'http-echo': (_python('knode.images.echo:http_echo'), ()),
    **dict.fromkeys(('pause', 'pause-amd64'), (_python('knode.images.pause:main'), ())),
    'agnhost': (_python('knode.images.agnhost:main'), ('pause',)),
}
"""Short name → (entrypoint, default arguments); tags are accepted and mean nothing here."""


def resolve(reference: str) -> Image:
    """Raises InvalidImageName (not a reference) and ImageError (not in the catalogue)."""
    if reference.startswith('host:'):
        path = reference.removeprefix('host:')
        if not os.path.isabs(path):
            raise InvalidImageName(f'Failed to apply default image tag "{reference}": host: needs an absolute path')
        if not os.path.exists(path):
            raise ImageError(f'image "{reference}" not found: no such file on this node')
        return Image(reference, f'host://{path}', (path,))
    if reference.startswith('py://'):
        found = _PYTHON.fullmatch(reference)
        if found is None:
            raise InvalidImageName(f'Failed to apply default image tag "{reference}": must be py://module:function')
        return Image(reference, reference, _python(f'{found[1]}:{found[2]}'))
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise InvalidImageName(
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name: invalid reference format'
        )
    if (found['repo'] or '') not in _WELL_KNOWN_REPOS or found['name'] not in NAMED:
        raise ImageError(
            f'image "{reference}" not found: this node runs host processes; use host:/path, py://module:function '
            f'or one of {", ".join(sorted(NAMED))}'
        )
    entrypoint, cmd = NAMED[found['name']]
    return Image(reference, f'catalogue://{found["name"]}', entrypoint, cmd)


def host_environment() -> dict[str, str]:
    """The few variables of the agent's own that a program cannot do without."""
    kept = {k: v for k in ('PATH', 'LANG', 'LC_ALL', 'TZ') if (v := os.environ.get(k))}
    return {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', **kept}
