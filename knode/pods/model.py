"""What the pod worker's pure parts speak about: a view of a pod, and actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from knode.runtime.driver import Record

Obj = Mapping[str, Any]
Kind = Literal['init', 'sidecar', 'main', 'ephemeral']

WHERE: Mapping[str, str] = {
    'init': 'initContainers', 'sidecar': 'initContainers', 'main': 'containers', 'ephemeral': 'ephemeralContainers',
}  # fmt: skip
"""Kind → the spec's list that holds it."""

MINIMUM_GRACE_S = 1.0
"""What a container gets when a pod is deleted with grace 0 or by force."""
SIGNAL_GRACE_S = 2.0
"""What lies at least between a container's two signals, whatever its grace and its hook have left."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a container has not been started."""

    reason: str
    message: str = ''
    retry_at: float = 0.0
    """Wall seconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The pod was ended from outside its containers: its phase is Failed, whatever they answered."""

    reason: str
    message: str
    grace_s: float | None = None
    """What the containers get; None: the pod's own grace."""
    disruption: str = ''
    """Reason of the DisruptionTarget condition; empty: the pod was not in anybody's way."""
    disruption_message: str = ''
    """Where it is not `message`."""
    refused: bool = False
    """The node has never taken the pod: there is nothing to say of its containers."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a pod goes on with the resources that it has, although others are wanted."""

    reason: Literal['Deferred', 'Infeasible']
    message: str


@dataclass(frozen=True, slots=True)
class Checks:
    """What the probes found of one running container."""

    started: bool = True
    ready: bool = True
    failed: str = ''
    """Why it has to be restarted; empty: it has not."""


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision may depend on."""

    pod: Obj
    """As the API has it, with the resources that the node has granted."""
    records: Mapping[str, Sequence[Record]]
    """By container name, oldest attempt first."""
    now: float
    """Wall seconds."""
    sandbox: str = ''
    """Identity of the living sandbox; empty: there is none."""
    grace_s: float | None = None
    """Not None: the pod has to end, its containers have this long."""
    verdict: Verdict | None = None
    waits: Mapping[str, Wait] = field(default_factory=dict)
    checks: Mapping[str, Checks] = field(default_factory=dict)
    """By container id; a missing one has no probes."""
    hooked: frozenset[str] = frozenset()
    """Ids of containers whose postStart hook is under way or has failed: they have not become running ones."""
    pending: Pending | None = None
    """Of a resize that was not granted."""
    resize_error: str = ''
    """Why a resize that was granted could not be carried out."""

    @property
    def spec(self) -> Obj:
        spec: Obj = self.pod['spec']
        return spec

    @property
    def restart_policy(self) -> str:
        return str(self.spec.get('restartPolicy') or 'Always')

    def latest(self, name: str) -> Record | None:
        records = self.records.get(name)
        return records[-1] if records else None

    def check(self, record: Record | None) -> Checks:
        return self.checks.get(record.id, Checks()) if record else Checks(started=False, ready=False)

    def running(self) -> list[Record]:
        return [r for records in self.records.values() for r in records if r.running]


def containers_of(spec: Obj) -> list[tuple[Obj, Kind]]:
    """Every container with its kind, in the order of starting."""
    found: list[tuple[Obj, Kind]] = [
        (c, 'sidecar' if c.get('restartPolicy') == 'Always' else 'init') for c in spec.get('initContainers') or ()
    ]
    found += [(c, 'main') for c in spec.get('containers') or ()]
    found += [(c, 'ephemeral') for c in spec.get('ephemeralContainers') or ()]
    return found


@dataclass(frozen=True, slots=True)
class OpenSandbox:
    pass


@dataclass(frozen=True, slots=True)
class CloseSandbox:
    pass


@dataclass(frozen=True, slots=True)
class Start:
    container: Obj
    kind: Kind
    attempt: int
    backoff_s: float
    """Pause to keep after this attempt ends, before the next."""


@dataclass(frozen=True, slots=True)
class Stop:
    record: Record
    grace_s: float
    message: str
    """The Killing event's text."""
    prestop: bool = True
    held: bool = False
    """Its turn has not come: the preStop hook runs, the signal waits."""
    replaces: bool = False
    """Another attempt follows, whatever the restart policy says."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Hold a running container to other limits than it was started with."""

    record: Record
    container: Obj


Action = OpenSandbox | CloseSandbox | Start | Stop | Resize


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    """Wall seconds at which time alone changes the decision."""
    done: bool = False
    """The pod had to end and nothing of it runs any more."""
