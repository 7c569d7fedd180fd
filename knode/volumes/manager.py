"""A pod's volumes: made before its sandbox opens, refreshed while it runs, removed after its last process.

Every volume is a directory (or a file of the host) at `volumes/<name>` in the pod's directory. Where the driver can
give containers a mount namespace, `mountPath`s are real; elsewhere `KUBELING_MOUNT_<NAME>` says where a volume is.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kclient.errors import ClientError
from kcore.meta.gvk import CONFIGMAPS, SECRETS
from knode.errors import VolumeError
from knode.pods.environment import decode_secret, field_value, resource_value
from knode.pods.expand import expand
from knode.pods.model import Obj, containers_of
from knode.runtime.driver import ContainerSpec, Mount
from knode.volumes import payload

if TYPE_CHECKING:
    from knode.pods.host import Host
    from knode.pods.launch import Paths

DEFAULT_MODE = 0o644
TOKEN_AGE = 0.8
TOKEN_AGE_MAX_S = 86_400.0
CONTENT_KINDS = ('configMap', 'secret', 'downwardAPI', 'projected')


class Volumes:
    def __init__(self, host: Host, paths: Paths) -> None:
        self._host, self._paths = host, paths
        self._address = ''
        self._tokens: dict[tuple[str, int], tuple[str, float]] = {}

    def path(self, name: str) -> Path:
        return self._paths.volumes / name

    async def set_up(self, pod: Obj, address: str) -> None:
        """Idempotent. Raises VolumeError with the FailedMount event's text."""
        self._address = address
        for volume in pod['spec'].get('volumes') or ():
            try:
                await self._set_up(pod, volume)
            except (VolumeError, ClientError, OSError) as e:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {e}') from e

    async def _set_up(self, pod: Obj, volume: Obj) -> None:
        path = self.path(volume['name'])
        if any(k in volume for k in CONTENT_KINDS):
            files = await self.files(pod, volume)
            gid = (pod['spec'].get('securityContext') or {}).get('fsGroup')
            stamp = self._host.env.new_uid()
            owner = gid if os.geteuid() == 0 else None
            await self._host.env.disk.offload(lambda: payload.write(path, files, stamp, gid=owner))
        elif 'hostPath' in volume:
            self._host_path(volume['hostPath'], path)
        elif 'emptyDir' in volume or len(volume) == 1:
            self._host.env.disk.mkdir(path, 0o777)
            path.chmod(0o777)  # the umask must not narrow it: other users' containers share it
        else:
            kind = next(k for k in volume if k != 'name')
            raise VolumeError(f'volume type {kind} is not supported by this node')

    def _host_path(self, source: Obj, path: Path) -> None:
        target, kind = Path(source['path']), source.get('type') or ''
        if kind == 'DirectoryOrCreate':
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == 'FileOrCreate' and not target.exists():
            target.touch(mode=0o644)
        checks = {
            'Directory': stat.S_ISDIR, 'DirectoryOrCreate': stat.S_ISDIR,
            'File': stat.S_ISREG, 'FileOrCreate': stat.S_ISREG,
            'Socket': stat.S_ISSOCK, 'CharDevice': stat.S_ISCHR, 'BlockDevice': stat.S_ISBLK,
        }  # fmt: skip
        if kind in checks:
            if not target.exists() or not checks[kind](target.stat().st_mode):
                words = {
                    'Directory': 'a directory',
                    'DirectoryOrCreate': 'a directory',
                    'File': 'a file',
                    'FileOrCreate': 'a file',
                }
                raise VolumeError(f'hostPath type check failed: {target} is not {words.get(kind, "a " + kind)}')
        elif not target.exists():
            target.mkdir(mode=0o755, parents=True)
        self._host.env.disk.mkdir(path.parent)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    async def files(self, pod: Obj, volume: Obj) -> dict[str, tuple[bytes, int]]:
        """Relative path → (content, mode) of a volume made of API objects."""
        if 'projected' in volume:
            found: dict[str, tuple[bytes, int]] = {}
            mode = int(volume['projected'].get('defaultMode', DEFAULT_MODE))
            for source in volume['projected'].get('sources') or ():
                found |= await self._source(pod, source, mode)
            return found
        kind = next(k for k in CONTENT_KINDS if k in volume)
        return await self._source(pod, {kind: volume[kind]}, int(volume[kind].get('defaultMode', DEFAULT_MODE)))

    async def _source(self, pod: Obj, source: Obj, mode: int) -> dict[str, tuple[bytes, int]]:
        namespace = pod['metadata']['namespace']
        if 'configMap' in source:
            ref = source['configMap']
            found = await self._host.objects.read(CONFIGMAPS, ref['name'], namespace)
            data = {k: v.encode() for k, v in ((found or {}).get('data') or {}).items()}
            data |= {k: decode_secret(v) for k, v in ((found or {}).get('binaryData') or {}).items()}
            return _items(ref, data, found, f'configmap "{ref["name"]}"', mode)
        if 'secret' in source:
            ref = source['secret']
            name = ref.get('secretName') or ref.get('name')
            found = await self._host.objects.read(SECRETS, name, namespace)
            data = {k: decode_secret(v) for k, v in ((found or {}).get('data') or {}).items()}
            return _items(ref, data, found, f'secret "{name}"', mode)
        if 'downwardAPI' in source:
            return self._downward(pod, source['downwardAPI'], mode)
        if 'serviceAccountToken' in source:
            ref = source['serviceAccountToken']
            token = await self._token(pod, ref.get('audience') or '', int(ref.get('expirationSeconds') or 3600))
            return {payload.check_path(ref['path']): (token.encode(), 0o600 if mode == DEFAULT_MODE else mode)}
        raise VolumeError(f'projected source {next(iter(source), "")} is not supported by this node')

    async def _token(self, pod: Obj, audience: str, expires_s: int) -> str:
        """The one it has until TOKEN_AGE of its life (a day at most) is over. Source: pkg/kubelet/token."""
        now = self._host.env.clock.monotonic()
        token, until = self._tokens.get((audience, expires_s), ('', 0.0))
        if now >= until:
            token = await self._host.objects.token(pod, audience, expires_s)
            self._tokens[audience, expires_s] = token, now + min(TOKEN_AGE * expires_s, TOKEN_AGE_MAX_S)
        return token

    def _downward(self, pod: Obj, source: Obj, mode: int) -> dict[str, tuple[bytes, int]]:
        facts = self._host.facts(self._address)
        found = {}
        for item in source.get('items') or ():
            if ref := item.get('fieldRef'):
                text = field_value(pod, ref['fieldPath'], facts)
            else:
                ref = item['resourceFieldRef']
                text = resource_value(pod, {}, ref, facts)
            found[payload.check_path(item['path'])] = (text.encode(), int(item.get('mode') or mode))
        return found

    def mount(self, pod: Obj, c: Obj, spec: ContainerSpec) -> ContainerSpec:
        """`spec` with its mounts and the variables that tell where they are. Raises VolumeError."""
        known = {v['name'] for v in pod['spec'].get('volumes') or ()}
        env: dict[str, str] = {}
        mounts = []
        for m in c.get('volumeMounts') or ():
            if m['name'] not in known:
                raise VolumeError(f"volumeMount {m['name']} not found among the pod's volumes")
            source = self._sub_path(m, self.path(m['name']), spec.env)
            env[f'KUBELING_MOUNT_{m["name"].upper().replace("-", "_")}'] = str(source)
            mounts.append(Mount(str(source), m['mountPath'], bool(m.get('readOnly'))))
        if not self._host.driver_for(pod).capabilities.isolates_fs:
            return replace(spec, env={**env, **spec.env})
        mounts.append(self._last_words(c, spec))
        staging = self._paths.root / 'staging' / spec.id
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        meta = {**spec.meta, 'mounts': len(mounts)}
        return replace(spec, env={**env, **spec.env}, mounts=tuple(mounts), staging=str(staging), meta=meta)

    def _last_words(self, c: Obj, spec: ContainerSpec) -> Mount:
        """The termination message's file, at the path that the container's program knows."""
        file = self._paths.termination(spec.name, spec.attempt)
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        file.touch(mode=0o666)
        file.chmod(0o666)  # whoever the container runs as may write it
        return Mount(str(file), c.get('terminationMessagePath') or '/dev/termination-log')

    def _sub_path(self, m: Obj, root: Path, env: Mapping[str, str]) -> Path:
        sub = expand(m['subPathExpr'], env) if m.get('subPathExpr') else m.get('subPath') or ''
        if not sub:
            return root
        if sub.startswith('/') or '..' in Path(sub).parts:
            raise VolumeError(
                f'failed to prepare subPath for volumeMount "{m["name"]}": {sub!r} must stay inside the volume'
            )
        path = root / sub
        if not path.exists():
            path.mkdir(mode=0o755, parents=True)
        # A symlink inside the volume must not lead out of it.
        if not path.resolve().is_relative_to(root.resolve()):
            raise VolumeError(f'failed to prepare subPath for volumeMount "{m["name"]}": {sub!r} leaves the volume')
        return path

    async def refresh(self, pod: Obj, address: str) -> None:
        """Bring volumes made of API objects up to date; a missing object leaves the old files. Raises ClientError."""
        self._address = address
        for volume in pod['spec'].get('volumes') or ():
            if not any(k in volume for k in CONTENT_KINDS):
                continue
            if any(m.get('subPath') or m.get('subPathExpr') for c, _ in containers_of(pod['spec'])
                   for m in c.get('volumeMounts') or () if m['name'] == volume['name']):  # fmt: skip
                continue  # a subPath shows the old file for ever, as upstream
            await self._set_up(pod, volume)

    async def remove(self) -> None:
        """Unlinks host paths first, so that nothing outside the pod's directory can be reached by the removal."""
        for name in self._host.env.disk.listdir(self._paths.volumes):
            path = self.path(name)
            if path.is_symlink():
                path.unlink()
        await self._host.env.disk.offload(shutil.rmtree, self._paths.volumes, True)


def _items(ref: Obj, data: Mapping[str, bytes], found: Any, what: str, mode: int) -> dict[str, tuple[bytes, int]]:
    if found is None:
        if ref.get('optional'):
            return {}
        raise VolumeError(f'{what} not found')
    items = ref.get('items')
    if items is None:
        return {payload.check_path(k): (v, mode) for k, v in data.items()}
    result = {}
    for item in items:
        if item['key'] not in data:
            if ref.get('optional'):
                continue
            raise VolumeError(f'{what} references non-existent config key: {item["key"]}')
        result[payload.check_path(item['path'])] = (data[item['key']], int(item.get('mode') or mode))
    return result
