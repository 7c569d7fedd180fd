"""Kill the parts of a node in any order; look whether the API still tells the truth and whether anything is left over.

    python -m tests.knode.kills --steps 1000 --seed 7

Each step kills one to three of: agent, zygote, a pod's shim, its containers, their children, one process of it; or
replaces a pod. Then the API has to agree with the process table, which is asked by the mark that every process of a
container carries. At the end, and every `CENSUS_STEPS`, zombies, orphans, descriptors, files and ports are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil

from kclient.api import Client
from kclient.errors import NotFound
from kcore.env import Env
from kcore.meta.gvk import PODS
from knode.runtime.process import kill_marked, kill_shim
from knode.runtime.shim.container import MARK
from knode.runtime.shim.state import latest
from knode.volumes.memory import LINK, discard
from tests.knode.agent_world import CIDR, World, connected, pod

PODS_AT_ONCE = 6
CENSUS_STEPS = 25
STEADY_STEPS = 6
"""Between two counts of the agent's descriptors."""
WARM_ROUNDS = 3
"""An agent that has just started still opens its watches and connections."""
AGREE_WITHIN_S = 240.0
FILES_MAX = 60
"""Of one pod's directory, whatever has happened to it."""
SHIM_FDS_MAX = 40
AGENT_FDS_SPARE = 12
"""How much the agent's descriptors may vary with the moment (connections to the API, probes)."""
DAEMON = '(setsid sleep 1000 &); sleep 1000 & wait'
KINDS: tuple[tuple[str, Callable[[str], dict[str, Any]]], ...] = (
    ('daemon', lambda name: pod(name, 'sh', '-c', DAEMON)),
    ('deaf', lambda name: pod(name, 'sh', '-c', f'trap "" TERM HUP; {DAEMON}')),
    ('crash', lambda name: pod(name, 'sh', '-c', 'sleep 1; exit 3')),
    ('once', lambda name: _with(
        pod(name, 'sh', '-c', 'cat /v/name; sleep 1000', restartPolicy='Never', volumes=[{'name': 'v', 'downwardAPI': {
            'items': [{'path': 'name', 'fieldRef': {'fieldPath': 'metadata.name'}}]}}]),
        volumeMounts=[{'name': 'v', 'mountPath': '/v'}],
    )),
    ('server', lambda name: _with(pod(name), image='py://knode.images.hello:main', command=[])),
    ('probed', lambda name: _with(
        pod(name, 'sh', '-c', 'echo ok > /v/ok; sleep 1000', volumes=[{'name': 'v', 'emptyDir': {'medium': 'Memory'}}]),
        volumeMounts=[{'name': 'v', 'mountPath': '/v'}],
        livenessProbe={'exec': {'command': ['cat', '/v/ok']}, 'periodSeconds': 1, 'timeoutSeconds': 5},
    )),
    ('sidecar', lambda name: pod(name, 'sleep', '1000', initContainers=[
        {'name': 'side', 'image': 'busybox', 'command': ['sleep', '1000'], 'restartPolicy': 'Always'},
        {'name': 'init', 'image': 'busybox', 'command': ['true']},
    ])),
)  # fmt: skip


def _with(made: dict[str, Any], **container: Any) -> dict[str, Any]:
    made['spec']['containers'][0].update(container)
    return made


class Found(Exception):
    """What should not be."""


class Storm:
    def __init__(self, world: World, client: Client, seed: int) -> None:
        self.world, self.client, self.rng = world, client, random.Random(seed)
        self.names: list[str] = []
        self.serial = 0
        self.done: Counter[str] = Counter()

    # --- the processes of this node, from /proc

    def marked(self) -> dict[str, list[int]]:
        """Container id → pids that carry its mark."""
        found: dict[str, list[int]] = {}
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                ours = MARK in environ and environ.get('KUBELING_POD_DIR', '').startswith(str(self.world.root))
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(environ[MARK], []).append(process.pid)
            except psutil.Error:
                continue
        return found

    def shims(self) -> dict[str, int]:
        """Pod uid → pid, from the shims' own books."""
        found = {}
        for path in (self.world.root / 'n1' / 'pods').glob('*/shim.json'):
            try:
                state = latest(path.read_bytes())
                if psutil.Process(state['pid']).status() != psutil.STATUS_ZOMBIE:
                    found[path.parent.name] = int(state['pid'])
            except (psutil.Error, FileNotFoundError):
                continue
        return found

    def homed(self) -> list[int]:
        """Processes in pods' directories, also removed ones: a shim of which nobody has a book is one."""
        pods, found = f'{self.world.root / "n1" / "pods"}/', []
        for pid in psutil.pids():
            try:
                if os.readlink(f'/proc/{pid}/cwd').startswith(pods):
                    found.append(pid)
            except OSError:
                continue
        return found

    def in_memory(self) -> set[str]:
        """Uids of pods with volumes there."""
        memory = self.world.root / 'n1' / LINK
        return set(os.listdir(memory)) if memory.exists() else set()

    def zygotes(self) -> list[int]:
        agent = self.world.processes['knode']
        if agent.returncode is not None:
            return []
        return [p.pid for p in psutil.Process(agent.pid).children()]

    # --- steps

    async def create(self) -> None:
        self.serial += 1
        kind, make = self.rng.choice(KINDS)
        name = f'{kind}-{self.serial}'
        await self.client.create(PODS, make(name))
        self.names.append(name)

    async def replace(self) -> None:
        name = self.names.pop(self.rng.randrange(len(self.names)))
        grace = self.rng.choice((None, 0, 1))
        await self.client.delete(PODS, name, 'default', grace_period_s=grace)
        await self.create()

    async def step(self) -> None:
        what = self.rng.choices(
            ('agent', 'zygote', 'shim', 'containers', 'children', 'process', 'replace'), (2, 1, 3, 3, 3, 3, 2),
            k=self.rng.randint(1, 3),
        )  # fmt: skip
        restart = False
        for victim in what:
            self.done[victim] += 1
            match victim:
                case 'agent':
                    if self.world.processes['knode'].returncode is None:
                        await self.world.kill('knode')
                    restart = True
                case 'zygote':
                    _kill(self.zygotes())
                case 'replace':
                    await self.replace()
                case _:
                    self.kill_in_a_pod(victim)
        if restart:
            await self.world.start_agent()

    def kill_in_a_pod(self, victim: str) -> None:
        shims = self.shims()
        if not shims:
            return
        shim = shims[self.rng.choice(sorted(shims))]
        try:
            children = psutil.Process(shim).children()
            everybody = psutil.Process(shim).children(recursive=True)
        except psutil.Error:
            return
        match victim:
            case 'shim':
                _kill([shim])
            case 'containers':
                _kill([c.pid for c in children])
            case 'children':
                _kill(self.rng.sample([p.pid for p in everybody], len(everybody)))
            case 'process' if everybody:
                _kill([self.rng.choice(everybody).pid])

    # --- judgement

    async def disagreement(self) -> str:
        """Empty: what the API calls running runs, and nothing else does."""
        listed = {p['metadata']['name']: p for p in (await self.client.list(PODS, 'default')).items}
        said = {i for p in listed.values() for i in running_ids(p)}
        marks = set(self.marked())
        if said != marks:
            return f'the API says {sorted(said)}, /proc {sorted(marks)}'
        if set(listed) != set(self.names):
            return f'pods are {sorted(listed)}, wanted {sorted(self.names)}'
        unborn = [n for n, p in listed.items() if not (p.get('status') or {}).get('containerStatuses')]
        return f'no status yet: {unborn}' if unborn else ''

    async def agreed(self) -> None:
        """Raises Found. Twice in a row: the two sides are not looked at in the same instant."""
        try:
            async with asyncio.timeout(AGREE_WITHIN_S):
                quiet = 0
                while quiet < 2:
                    text = await self.disagreement()
                    quiet = 0 if text else quiet + 1
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise Found(text) from None

    def leftovers(self) -> str:
        """What a node of living pods may not have; empty: nothing."""
        root, shims = self.world.root / 'n1', self.shims()
        uids = {p.name for p in (root / 'pods').iterdir()}
        if uids != set(shims) and len(uids) > len(self.names):
            return f'directories {sorted(uids)} for shims {sorted(shims)}'
        if strangers := self.in_memory() - uids:
            return f'volumes of {sorted(strangers)} in memory'
        for uid in uids:
            files = list((root / 'pods' / uid).rglob('*'))
            if len(files) > FILES_MAX:
                return f'{len(files)} files in {uid}: {Counter(f.parent.name for f in files).most_common(3)}'
        for uid, pid in shims.items():
            fds = _fds(pid)
            if fds > SHIM_FDS_MAX:
                return f'shim of {uid} has {fds} descriptors'
        parents = {self.world.processes['knode'].pid, *self.zygotes(), *shims.values(), os.getpid()}
        zombies = [p for p in psutil.process_iter(['status', 'ppid', 'name'])
                   if p.info['status'] == psutil.STATUS_ZOMBIE and p.info['ppid'] in parents]  # fmt: skip
        return f'zombies: {zombies}' if zombies else ''

    async def census(self) -> None:
        text = await _until_empty(self.leftovers)
        if text:
            raise Found(text)

    async def run(self, steps: int, report: Callable[[str], None] = lambda _: None) -> None:
        """Raises Found with the number of the step."""
        while len(self.names) < PODS_AT_ONCE:
            await self.create()
        await self.agreed()
        for n in range(steps):
            try:
                await self.step()
                await self.agreed()
                if n % CENSUS_STEPS == CENSUS_STEPS - 1:
                    await self.census()
                    report(f'{n + 1} steps: {dict(self.done)}')
            except Found as e:
                raise Found(f'step {n}: {e}') from None
        await self.steady()
        await self.end()

    async def steady(self) -> None:
        """An agent that lives through kills keeps as many descriptors as it had once it was warm."""
        agent = self.world.processes['knode'].pid
        if text := await _until_empty(lambda: '' if _listens(agent) else 'the agent does not serve'):
            raise Found(text)  # one that still starts, among pods in back-off, would be counted with next to nothing
        counts = []
        for _ in range(WARM_ROUNDS + 2):
            for _ in range(STEADY_STEPS):
                self.kill_in_a_pod(self.rng.choice(('shim', 'containers', 'children')))
                await self.agreed()
            counts.append(_fds(agent))
        warm = max(counts[:WARM_ROUNDS])
        if text := await _until_empty(lambda: _more(_fds(agent), warm)):
            raise Found(f'{text}, {counts} on the way')

    async def end(self) -> None:
        for name in self.names:
            try:
                await self.client.delete(PODS, name, 'default')
            except NotFound:
                continue
        self.names.clear()
        await self.agreed()

        def remains() -> str:
            prefix = CIDR.rpartition('.')[0]
            ports = [c.laddr for c in psutil.net_connections('tcp') if c.laddr and c.laddr.ip.startswith(prefix)
                     and c.status == psutil.CONN_LISTEN]  # fmt: skip
            files = [*(self.world.root / 'n1' / 'pods').iterdir(), *self.in_memory()]
            found = {'ports': ports, 'files': files, 'shims': self.homed(), 'processes': self.marked()}
            return ', '.join(f'{k}: {v}' for k, v in found.items() if v)

        if text := await _until_empty(remains):
            raise Found(f'left at the end: {text}')


async def _until_empty(look: Callable[[], str], within_s: float = 30.0) -> str:
    try:
        async with asyncio.timeout(within_s):
            while text := look():
                await asyncio.sleep(0.05)
    except TimeoutError:
        return text
    return ''


def running_ids(p: dict[str, Any]) -> list[str]:
    status = p.get('status') or {}
    lists = ('containerStatuses', 'initContainerStatuses', 'ephemeralContainerStatuses')
    statuses = [s for k in lists for s in status.get(k) or ()]
    return [s['containerID'].rpartition('/')[2] for s in statuses if 'running' in (s.get('state') or {})]


def _listens(pid: int) -> bool:
    return any(c.status == psutil.CONN_LISTEN for c in psutil.Process(pid).net_connections('tcp'))


def _fds(pid: int) -> int:
    try:
        return psutil.Process(pid).num_fds()
    except psutil.Error:
        return 0


def _more(now: int, before: int) -> str:
    return f'agent: {now} descriptors, {before} before' if now > before + AGENT_FDS_SPARE else ''


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


async def storm(root: Path, steps: int, seed: int, report: Callable[[str], None] = lambda _: None) -> None:
    world = World(root, Env.real())
    try:
        await world.start_api()
        await world.start_agent()
        async with connected(world) as client:
            await Storm(world, client, seed).run(steps, report)
    finally:
        await world.close()
        bury(root)


def bury(root: Path) -> None:
    """End what outlives its agent, which is everything: a storm that was cut short must leave nothing either."""
    for path in (root / 'n1' / 'pods').glob('*/shim.json'):
        state = latest(path.read_bytes())
        kill_shim(state)
        kill_marked([c['id'] for c in state['containers']])
    discard(root / 'n1')


async def until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """False: stopped by Ctrl-C or SIGTERM, which may have reached the API server first."""
    task, loop, stopped = asyncio.ensure_future(work), asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: stopped.set() or task.cancel())
    await asyncio.wait({task})
    if not stopped.is_set():
        task.result()
    return not stopped.is_set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='kills-') as root:
        try:
            work = storm(Path(root), given.steps, given.seed, lambda line: print(line, flush=True))
            if not asyncio.run(until_stopped(work)):
                print(f'seed {given.seed}: stopped', file=sys.stderr)
                return 130
        except Found as e:
            print(f'seed {given.seed}: {e}', file=sys.stderr)
            for log in Path(root).glob('*.log'):
                Path(f'/tmp/kills-{given.seed}-{log.name}').write_bytes(log.read_bytes())
            return 1
    print(f'{given.steps} steps of seed {given.seed}: the API told the truth, nothing is left')
    return 0


if __name__ == '__main__':
    sys.exit(main())
