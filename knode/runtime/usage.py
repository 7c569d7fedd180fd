"""What the processes of one pod use, by container, from /proc. Blocking; costs some 50 µs a process.

Only the pod's own processes are visited, along the kernel's lists of children. A process whose parent has ended is
the shim's child (its subreaper); the mark in its environment says which container it belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from knode.runtime.driver import NS, Stats
from knode.runtime.shim import host
from knode.runtime.shim.container import MARK

_TICK_NS = NS // os.sysconf('SC_CLK_TCK')
_PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')


def by_container(shim: int, running: Mapping[str, int]) -> dict[str, Stats]:
    """Container id → use.

    shim:     pid of the pod's shim.
    running:  container id → pid of its first process.
    """
    return {i: _sum(pids) for i, pids in _roots(shim, running).items()}


def shared_once(shim: int, running: Mapping[str, int]) -> int:
    """Bytes of memory of these containers together, each page divided among those that share it. Slow."""
    roots = [pid for pids in _roots(shim, running).values() for pid in pids]
    return sum(_proportional_bytes(member) for pid in roots for member in _family(pid))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = host.read_file(f'/proc/{pid}/smaps_rollup').splitlines()
    except OSError:  # it has ended, or has become another user's: what it shares is not known
        found = of_process(pid)
        return found.rss_bytes if found else 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith(b'Pss:')), 0)


def _roots(shim: int, running: Mapping[str, int]) -> dict[str, list[int]]:
    """Container id → its processes that are the shim's children."""
    roots = {pid: container_id for container_id, pid in running.items()}
    families: dict[str, list[int]] = {container_id: [] for container_id in running}
    for pid in {*host.children(shim), *roots}:
        container_id = roots.get(pid) or _marked(pid, running)
        if container_id:
            families[container_id].append(pid)
    return families


def _marked(pid: int, running: Mapping[str, int]) -> str:
    environ = b'\0' + host.environ(pid)
    return next((i for i in running if f'\0{MARK}={i}\0'.encode() in environ), '')


def _sum(roots: list[int]) -> Stats:
    cpu = memory = count = 0
    for pid in roots:
        for member in _family(pid):
            found = of_process(member)
            if found is not None:
                cpu, memory, count = cpu + found.cpu_ns, memory + found.rss_bytes, count + 1
    return Stats(cpu, memory, count)


def _family(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += host.all_children(pid)


def of_process(pid: int) -> Stats | None:
    """One process, with the CPU time of children that it has waited for; None when it has ended."""
    try:
        text = host.read_file(f'/proc/{pid}/stat')
    except OSError:
        return None
    fields = text[text.rindex(b')') + 2 :].split()
    ticks = sum(int(fields[i]) for i in (11, 12, 13, 14))  # utime, stime, cutime, cstime
    return Stats(ticks * _TICK_NS, int(fields[21]) * _PAGE_BYTES, 1)
