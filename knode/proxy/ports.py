"""Brings the sockets of one agent in line with the plans of all Services."""

from __future__ import annotations

import errno
from collections.abc import Callable

from knode.proxy.choice import Choice
from knode.proxy.model import NOTHING, Frontend, Plan, Target
from knode.proxy.tcp import TcpPort
from knode.proxy.udp import UdpPort
from knode.proxy.work import Work

KINDS: dict[str, type[TcpPort] | type[UdpPort]] = {'TCP': TcpPort, 'UDP': UdpPort}
Refused = Callable[[str, Frontend, str], None]
"""Called with a Service, one of its frontends, and why nobody listens there."""


class Ports:
    """A frontend that several Services claim belongs to the first of them, and to the next when that is gone."""

    def __init__(self, work: Work, refused: Refused) -> None:
        self._work, self._refused = work, refused
        self._plans: dict[str, Plan] = {}
        self._claims: dict[Frontend, dict[str, Target]] = {}
        self._open: dict[Frontend, TcpPort | UdpPort] = {}
        self._choices: dict[str, Choice] = {}
        self.closed: dict[Frontend, str] = {}
        """Where nobody listens though somebody should, and why."""

    def __len__(self) -> int:
        return len(self._open)

    def set(self, service: str, plan: Plan) -> None:
        before = self._plans.pop(service, NOTHING)
        if plan.targets:
            self._plans[service] = plan
        for frontend in before.targets.keys() - plan.targets.keys():
            del self._claims[frontend][service]
            self._settle(frontend)
        for frontend, target in plan.targets.items():
            if before.targets.get(frontend) != target:
                self._claims.setdefault(frontend, {})[service] = target
                self._settle(frontend)
        gone = {t.port_name for t in before.targets.values()} - {t.port_name for t in plan.targets.values()}
        for name in gone:
            self._choices.pop(name, None)

    def retry(self) -> None:
        """Listen where it was not possible before."""
        for frontend in [*self.closed]:
            self._settle(frontend)

    def close(self) -> None:
        for port in self._open.values():
            port.close()
        self._open.clear()

    def _settle(self, frontend: Frontend) -> None:
        claims = self._claims.get(frontend)
        if not claims:
            self._claims.pop(frontend, None)
            self.closed.pop(frontend, None)
            if port := self._open.pop(frontend, None):
                port.close()
            return
        target = next(iter(claims.values()))
        choice = self._choices.setdefault(target.port_name, Choice())
        if not target.affinity_s:
            choice.forget()
        if port := self._open.get(frontend):
            port.lead(target, choice)
            return
        why = self._listen(frontend, target, choice)
        if not why:
            self.closed.pop(frontend, None)
        elif self.closed.get(frontend) != why:
            self.closed[frontend] = why
            self._refused(target.service, frontend, why)

    def _listen(self, frontend: Frontend, target: Target, choice: Choice) -> str:
        """Why it cannot be; empty: it is."""
        kind = KINDS.get(frontend.protocol)
        if kind is None:
            return f'{frontend.protocol} is not served'
        if len(self._open) >= self._work.ports_max:
            return f'this node listens at {self._work.ports_max} addresses already'
        try:
            self._open[frontend] = kind((frontend.ip, frontend.port), target, choice, self._work)
        except OSError as e:
            return reason(e)
        return ''


def reason(e: OSError) -> str:
    """What a person can do something about."""
    match e.errno:
        case errno.EACCES | errno.EPERM:
            return 'ports below net.ipv4.ip_unprivileged_port_start take privilege that the node agent does not have'
        case errno.EADDRINUSE:
            return 'another process has taken the port, perhaps on all addresses (0.0.0.0)'
        case errno.EADDRNOTAVAIL:
            return 'it is no address of this machine'
    return str(e.strerror or e)
