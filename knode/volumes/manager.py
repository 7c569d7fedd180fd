"""A pod's volumes: made before its sandbox opens, refreshed while it runs, removed after its last process.

Every volume is a directory (or a file of the host) at `volumes/<name>` in the pod's directory, or leads from there to a
directory in memory. Where the driver can give containers a mount namespace, `mountPath`s are real; elsewhere
`KUBELING_MOUNT_<NAME>` says where a volume is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from kclient.errors import ClientError
from kcore.meta import quantity
from kcore.meta.gvk import CONFIGMAPS, SECRETS, Resource
from knode.errors import ClaimError, ContainerConfigError, NodeError, VolumeError, os_text
from knode.pods import security
from knode.pods.environment import decode_secret, field_value, resource_value
from knode.pods.expand import expand, names
from knode.pods.model import Obj, containers_of
from knode.runtime.driver import Capabilities, ContainerSpec, Mount
from knode.runtime.shim.host import make_file, replace_file
from knode.runtime.shim.mounts import MountError, open_beneath
from knode.volumes import claims, etc, payload
from knode.volumes.payload import File
from knode.watches import Ref

if TYPE_CHECKING:
    from knode.pods.host import Host
    from knode.pods.launch import Paths

log = structlog.get_logger('knode.volumes')

DEFAULT_MODE = 0o644
TOLD_ROUNDS = 10
"""Files are looked at in one of so many rounds while changes are told and no token is old."""
TOKEN_AGE = 0.8
TOKEN_AGE_MAX_S = 86_400.0
HOST_KINDS: Mapping[str, tuple[Callable[[int], bool], str]] = {
    **dict.fromkeys(('Directory', 'DirectoryOrCreate'), (stat.S_ISDIR, 'a directory')),
    **dict.fromkeys(('File', 'FileOrCreate'), (stat.S_ISREG, 'a file')),
    'Socket': (stat.S_ISSOCK, 'a socket file'),
    'CharDevice': (stat.S_ISCHR, 'a character device'),
    'BlockDevice': (stat.S_ISBLK, 'a block device'),
}
"""`hostPath.type` → what the path has to be."""
NAME_SERVER = 'KUBELING_NAMESERVER'
CONTENT_KINDS = ('configMap', 'secret', 'downwardAPI', 'projected')
IN_MEMORY = frozenset(('secret', 'downwardAPI', 'projected'))
"""Kinds of volumes that upstream puts on a tmpfs."""


class Volumes:
    def __init__(self, host: Host, paths: Paths, address: Callable[[], str], can: Callable[[], Capabilities]) -> None:
        """can:  what the pod's driver is able to do."""
        self._host, self._paths, self._address, self._can = host, paths, address, can
        self.stale = asyncio.Event()
        """Set when what the volumes say about the pod has changed."""
        self._made = False
        self._writing = asyncio.Lock()
        self._read: dict[Ref, Obj | None] = {}
        """Of what is mounted: metadata, and whether it can change; None: there is no such object."""
        self._tokens: dict[tuple[str, int], tuple[str, float]] = {}

    def path(self, name: str) -> Path:
        return self._paths.volumes / name

    async def set_up(self, pod: Obj) -> None:
        """Idempotent. Raises VolumeError with the FailedMount event's text."""
        async with self._writing:
            for volume in pod['spec'].get('volumes') or ():
                try:
                    await self._set_up(pod, volume)
                except ClaimError as e:
                    name = volume['name']
                    which = f'unmounted volumes=[{name}], unattached volumes=[], failed to process volumes=[{name}]'
                    raise VolumeError(f'Unable to attach or mount volumes: {which}: {e}') from e
                except (NodeError, ClientError, OSError) as e:
                    why = os_text(e) if isinstance(e, OSError) else str(e)
                    raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}') from e
            self._made = True
            self._follow()

    def resume(self) -> None:
        """An earlier agent has set them up; who knows what has changed since."""
        self._made = True
        self.stale.set()

    def release(self) -> None:
        """Nobody reads them any more."""
        self._made = False
        self._read.clear()
        self._follow()

    def _follow(self) -> None:
        self._host.objects.follow(self._changeable(), self._told)

    def _changeable(self) -> frozenset[Ref]:
        return frozenset(ref for ref, found in self._read.items() if not (found or {}).get('immutable'))

    def _told(self, ref: Ref, resource_version: str) -> None:
        known = self._read.get(ref)
        if known is None or known['metadata'].get('resourceVersion') != resource_version:
            self.stale.set()

    async def _fetch(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        found = await self._host.objects.read(resource, name, namespace)
        kept = None if found is None else {'metadata': found['metadata'], 'immutable': found.get('immutable')}
        self._read[resource, namespace, name] = kept
        return found

    async def _set_up(self, pod: Obj, volume: Obj) -> None:
        path = self.path(volume['name'])
        gid = (pod['spec'].get('securityContext') or {}).get('fsGroup') if os.geteuid() == 0 else None
        if any(k in volume for k in CONTENT_KINDS):
            files = await self.files(pod, volume)
            stamp = self._host.env.new_uid()
            home = path if IN_MEMORY.isdisjoint(volume) else self._in_memory(path)
            await self._host.env.disk.sync_soon(lambda: payload.write(home, files, stamp, gid=gid))
        elif 'hostPath' in volume:
            self._host_path(volume['hostPath'], path)
        elif (name := claims.name_of(pod, volume)) is not None:
            self._host_path(await claims.source(self._host.objects, pod, volume, name), path)
        elif 'emptyDir' in volume or len(volume) == 1:
            self._empty_dir(volume.get('emptyDir') or {}, path, gid)
        else:
            kind = next(k for k in volume if k != 'name')
            raise VolumeError(f'volume type {kind} is not supported by this node')

    def _in_memory(self, path: Path) -> Path:
        """What `path` leads to: a directory in memory, if there is one for it."""
        memory = self._host.memory.directory(self._paths.uid)
        home = memory / path.name if memory else path
        if path.is_dir() and not path.is_symlink():  # an agent without memory has made it, and containers see it
            return path
        if not path.is_symlink() or Path(os.readlink(path)) != home:
            path.unlink(missing_ok=True)
            if memory:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(home)
        return home

    def _empty_dir(self, source: Obj, path: Path, gid: int | None) -> None:
        if str(source.get('medium') or '').startswith('HugePages'):
            raise VolumeError(f'emptyDir medium {source["medium"]} is not supported by this node')
        self._host.env.disk.mkdir(path, 0o777)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(0o777 if gid is None else 0o2777)  # the umask must not narrow it: other users' containers share it

    def memory(self, pod: Obj) -> dict[str, int]:
        """Directories of `emptyDir` volumes of medium Memory → most bytes; 0: no limit."""
        if not self._can().isolates_fs:
            return {}
        found = {}
        for volume in pod['spec'].get('volumes') or ():
            source = volume.get('emptyDir') or {}
            if source.get('medium') == 'Memory':
                found[str(self.path(volume['name']))] = quantity.value(source.get('sizeLimit') or '0')
        return found

    def _host_path(self, source: Obj, path: Path) -> None:
        target, kind = Path(source['path']), source.get('type') or ''
        if kind == 'DirectoryOrCreate':
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == 'FileOrCreate' and not target.exists():
            target.touch(mode=0o644)
        if kind in HOST_KINDS:
            holds, words = HOST_KINDS[kind]
            if not target.exists() or not holds(target.stat().st_mode):
                raise VolumeError(f'hostPath type check failed: {target} is not {words}')
        elif not target.exists():
            target.mkdir(mode=0o755, parents=True)
        self._host.env.disk.mkdir(path.parent)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    async def files(self, pod: Obj, volume: Obj) -> dict[str, File]:
        """By relative path: what is in a volume made of API objects."""
        if 'projected' in volume:
            found: dict[str, File] = {}
            mode = int(volume['projected'].get('defaultMode', DEFAULT_MODE))
            for source in volume['projected'].get('sources') or ():
                found |= await self._source(pod, source, mode)
            return found
        kind = next(k for k in CONTENT_KINDS if k in volume)
        return await self._source(pod, {kind: volume[kind]}, int(volume[kind].get('defaultMode', DEFAULT_MODE)))

    async def _source(self, pod: Obj, source: Obj, mode: int) -> dict[str, File]:
        namespace = pod['metadata']['namespace']
        if 'configMap' in source:
            ref = source['configMap']
            found = await self._fetch(CONFIGMAPS, ref['name'], namespace)
            data = {k: v.encode() for k, v in ((found or {}).get('data') or {}).items()}
            data |= {k: decode_secret(v) for k, v in ((found or {}).get('binaryData') or {}).items()}
            return _items(ref, data, found, f'configmap "{ref["name"]}"', mode)
        if 'secret' in source:
            ref = source['secret']
            name = ref.get('secretName') or ref.get('name')
            found = await self._fetch(SECRETS, name, namespace)
            data = {k: decode_secret(v) for k, v in ((found or {}).get('data') or {}).items()}
            return _items(ref, data, found, f'secret "{name}"', mode)
        if 'downwardAPI' in source:
            return self._downward(pod, source['downwardAPI'], mode)
        if 'serviceAccountToken' in source:
            ref = source['serviceAccountToken']
            token = await self._token(pod, ref.get('audience') or '', int(ref.get('expirationSeconds') or 3600))
            return {payload.check_path(ref['path']): _token_file(pod, token, mode)}
        raise VolumeError(f'projected source {next(iter(source), "")} is not supported by this node')

    async def _token(self, pod: Obj, audience: str, expires_s: int) -> str:
        """The one it has until TOKEN_AGE of its life (a day at most) is over. Source: pkg/kubelet/token."""
        now = self._host.env.clock.monotonic()
        token, until = self._tokens.get((audience, expires_s), ('', 0.0))
        if now >= until:
            token = await self._host.objects.token(pod, audience, expires_s)
            self._tokens[audience, expires_s] = token, now + min(TOKEN_AGE * expires_s, TOKEN_AGE_MAX_S)
        return token

    def _downward(self, pod: Obj, source: Obj, mode: int) -> dict[str, File]:
        facts = self._host.facts(self._address())
        found = {}
        for item in source.get('items') or ():
            if ref := item.get('fieldRef'):
                text = field_value(pod, ref['fieldPath'], facts)
            else:
                ref = item['resourceFieldRef']
                text = resource_value(pod, {}, ref, facts)
            found[payload.check_path(item['path'])] = File(text.encode(), int(item.get('mode') or mode))
        return found

    def mount(self, pod: Obj, c: Obj, spec: ContainerSpec) -> ContainerSpec:
        """`spec` with its mounts and the variables that tell where they are. Raises ContainerConfigError."""
        known = {v['name']: v for v in pod['spec'].get('volumes') or ()}
        env: dict[str, str] = {}
        mounts = []
        isolates = self._can().isolates_fs
        if not (isolates and self._host.cluster_dns) and self._host.name_server and etc.asks_cluster(pod):
            env[NAME_SERVER] = self._host.name_server
        for m in c.get('volumeMounts') or ():
            if m['name'] not in known:
                raise ContainerConfigError(f"volumeMount {m['name']} not found among the pod's volumes")
            if m.get('mountPropagation') == 'Bidirectional':
                raise ContainerConfigError(
                    f'mountPropagation Bidirectional of "{m["name"]}": this node shares no mounts'
                )
            if m.get('recursiveReadOnly') == 'Enabled' and not isolates:
                raise ContainerConfigError(f'recursive read-only mount of "{m["name"]}": this node mounts nothing')
            root, sub = self.path(m['name']), sub_path(m, spec.env)
            if sub and str(root) not in self.memory(pod):  # what is in memory is only reached from inside the pod
                _prepare(m, c, str(root), sub)
            env[f'KUBELING_MOUNT_{m["name"].upper().replace("-", "_")}'] = str(root / sub)
            fixed = any(k in known[m['name']] for k in CONTENT_KINDS)
            deep = m.get('recursiveReadOnly', 'Disabled') != 'Disabled'
            kept = (known[m['name']].get('persistentVolumeClaim') or {}).get('readOnly')
            mounts.append(Mount(str(root), m['mountPath'], bool(fixed or kept or m.get('readOnly')), sub, deep))
        if not isolates:
            return replace(spec, env={**env, **spec.env})
        taken = {m.target.rstrip('/') for m in mounts}
        mounts += [m for m in (*self._etc(pod), self._last_words(c, spec)) if m.target not in taken]
        staging = self._paths.root / 'staging' / spec.name
        meta = {**spec.meta, 'mounts': len(mounts)}
        return replace(
            spec, env={**env, **spec.env}, mounts=tuple(mounts), staging=str(staging), hostname=etc.hostname(pod),
            meta=meta,
        )  # fmt: skip

    def _etc(self, pod: Obj) -> Iterator[Mount]:
        """Files of /etc that tell of the pod. Written anew for each container, as upstream does."""
        contents = {'hosts': etc.hosts(pod, self._address(), self._of_machine('hosts'))}
        if resolver := etc.resolver(pod, self._of_machine('resolv.conf'), self._host.cluster_dns):
            contents['resolv.conf'] = resolver
        home = self._host.memory.directory(self._paths.uid) or self._paths.root
        for name, content in contents.items():
            file = home / f'.{name}'  # as no volume can be called
            replace_file(str(file), content.encode(), mode=0o644, sync=False)
            yield Mount(str(file), f'/etc/{name}')

    def _of_machine(self, name: str) -> str:
        path = Path('/etc') / name
        return self._host.env.disk.read(path).decode(errors='replace') if self._host.env.disk.exists(path) else ''

    def _last_words(self, c: Obj, spec: ContainerSpec) -> Mount:
        """The termination message's file, at the path that the container's program knows."""
        file = self._paths.termination(spec.name, spec.attempt)
        if spec.attempt >= 2:
            self._paths.termination(spec.name, spec.attempt - 2).unlink(missing_ok=True)
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        make_file(str(file), 0o666)  # whoever the container runs as may write it
        return Mount(str(file), c.get('terminationMessagePath') or '/dev/termination-log')

    async def keep_fresh(self, pod: Callable[[], Obj]) -> NoReturn:
        """Bring volumes made of API objects up to date when one of those or the pod's metadata changed.

        And every so often: tokens age, and a watch may not be had.
        pod:  the pod as it is now.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s()):
                    await self.stale.wait()
            self.stale.clear()
            if self._made:
                await self.refresh(pod())

    def _patience_s(self) -> float:
        """Until somebody has to look: a token ages, or an object changes that nobody watches."""
        often = self._host.sync_frequency_s
        if not self._host.objects.tells(self._changeable()):
            return often
        now = self._host.env.clock.monotonic()
        old = min((until - now for _, until in self._tokens.values()), default=float('inf'))
        return min(max(old, often), often * TOLD_ROUNDS)

    async def refresh(self, pod: Obj) -> None:
        """A missing object leaves the old files; a mounted subPath shows them for ever, as upstream."""
        async with self._writing:
            for volume in pod['spec'].get('volumes') or ():
                if not any(k in volume for k in CONTENT_KINDS):
                    continue
                try:
                    await self._set_up(pod, volume)
                except (NodeError, ClientError, OSError) as e:  # the next round may do better, and the next volume now
                    log.info('volume not refreshed', volume=volume['name'], err=str(e))
            if self._made:
                self._follow()

    async def remove(self) -> None:
        """Unlinks host paths first, so that nothing outside the pod's directory can be reached by the removal."""
        for name in self._host.env.disk.listdir(self._paths.volumes):
            path = self.path(name)
            if path.is_symlink():
                path.unlink()
        await self._host.env.disk.offload(shutil.rmtree, self._paths.volumes, True)
        self._host.memory.remove(self._paths.uid)


def sub_path(m: Obj, env: Mapping[str, str]) -> str:
    """What of its volume a mount shows; empty: all. Raises ContainerConfigError in Kubernetes' words."""
    if expression := m.get('subPathExpr'):
        missing = sorted({n for n in names(expression) if not env.get(n)})
        if missing:
            raise ContainerConfigError(f'missing value for {", ".join(missing)}')
        sub = expand(expression, env)
    else:
        sub = m.get('subPath') or ''
    if sub.startswith('/'):
        raise ContainerConfigError(f'error SubPath `{sub}` must not be an absolute path')
    if '..' in sub.split('/'):
        raise ContainerConfigError(f"unable to provision SubPath `{sub}`: must not contain '..'")
    return str(sub)


def _prepare(m: Obj, c: Obj, root: str, sub: str) -> None:
    """Make the directory, so that what is wrong with it is said before the container is started."""
    try:
        os.close(open_beneath(root, sub))
    except (MountError, OSError) as e:
        log.info('subPath refused', root=root, sub_path=sub, err=str(e))  # upstream keeps the reason from the pod, too
        text = f'failed to prepare subPath for volumeMount "{m["name"]}" of container "{c["name"]}"'
        raise ContainerConfigError(text) from e


def _token_file(pod: Obj, token: str, mode: int) -> File:
    """Readable by its container alone where one user or group is told. Source: pkg/volume/projected/projected.go."""
    users = {security.merged(pod, c).get('runAsUser') for c, _ in containers_of(pod['spec'])}
    user = users.pop() if len(users) == 1 else None
    grouped = 'fsGroup' in (pod['spec'].get('securityContext') or {})
    return File(token.encode(), 0o600 if grouped or user is not None else mode, user if os.geteuid() == 0 else None)


def _items(ref: Obj, data: Mapping[str, bytes], found: Any, what: str, mode: int) -> dict[str, File]:
    if found is None:
        if ref.get('optional'):
            return {}
        raise VolumeError(f'{what} not found')
    items = ref.get('items')
    if items is None:
        return {payload.check_path(k): File(v, mode) for k, v in data.items()}
    result = {}
    for item in items:
        if item['key'] not in data:
            if ref.get('optional'):
                continue
            words = (
                'references non-existent secret'
                if what.startswith('secret ')
                else 'configmap references non-existent config'
            )
            raise VolumeError(f'{words} key: {item["key"]}')
        result[payload.check_path(item['path'])] = File(data[item['key']], int(item.get('mode') or mode))
    return result
