"""The runtime driver's interface: a few verbs over a pod's sandbox, a capabilities record and a JSON-safe handle.

Theory: a driver answers from what it observes, never from what it was asked to do, and its handle (pid + start
time) survives the agent: after a restart `recover` says whether the sandbox is still the same one. Adding a driver
is one module and one line in `knode.runtime.registry`. Source: nomad plugins/drivers/driver.go, the CRI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the driver can honour; the rest is refused or announced, never dropped in silence."""

    exec: bool = True
    attach: bool = True
    stats: bool = True
    signals: bool = True
    change_user: bool = False
    isolates_fs: bool = False
    isolates_network: bool = False
    limits_memory: bool = False
    """The kernel holds containers to their memory limits; else somebody has to look."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Names one sandbox on this machine for ever."""

    driver: str
    uid: str
    """The pod's uid."""
    directory: str
    pid: int
    start_ticks: int
    """Clock ticks since boot: with the pid it is never reused."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Handle:
        return cls(**{k: data[k] for k in ('driver', 'uid', 'directory', 'pid', 'start_ticks')})


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt to run one container. Times are nanoseconds since 1970; 0: has not happened."""

    id: str
    name: str
    attempt: int
    pid: int = 0
    start_ticks: int = 0
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ''
    message: str = ''
    log: str = ''
    stopping: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The agent's own facts about the attempt: image, hash, backoff_s, kind, …"""

    @property
    def running(self) -> bool:
        return self.started_ns > 0 and not self.finished_ns

    @property
    def finished_s(self) -> float:
        return self.finished_ns / NS

    @property
    def ran_s(self) -> float:
        return (self.finished_ns - self.started_ns) / NS if self.started_ns and self.finished_ns else 0.0


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of this machine at a place of the container's choice."""

    source: str
    target: str
    read_only: bool = False
    sub_path: str = ''
    """What of the source, relative to it and never outside of it; made when it is missing."""
    recursive: bool = False
    """`read_only` holds for what is mounted below the source, too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container is held to where the kernel can; 0: no limit."""

    cpu_milli: int = 0
    cpu_request_milli: int = 0
    memory_bytes: int = 0
    pids: int = 0
    pod_pids: int = 0
    """Of the whole pod."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything a container needs, resolved: no reference is left to look up."""

    id: str
    name: str
    attempt: int
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    log: str
    tty: bool = False
    stdin: bool = False
    uid: int | None = None
    gid: int | None = None
    groups: Sequence[int] = ()
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adj: int | None = None
    limits: Limits = Limits()
    no_new_privs: bool = False
    capabilities: Sequence[int] | None = None
    """What its bounding set keeps; None: everything."""
    read_only_root: bool = False
    """All but the writable mounts, /dev and /proc."""
    mounts: Sequence[Mount] = ()
    hostname: str = ''
    """What the container takes for its machine's name, where it has mounts; empty: the machine's own."""
    staging: str = ''
    """A directory that the driver may make for its own use while it arranges the mounts; empty if it is there."""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Shallow: the encoder knows what to do with the dataclasses in it, and copying an environment costs."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a driver has to know to make a pod's surroundings."""

    uid: str
    namespace: str
    name: str
    directory: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    """Directories that have to be in memory while the sandbox lives → most bytes; 0: as much as the system gives."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Use of one container at one moment."""

    cpu_ns: int
    """CPU time used since its start by the processes that are alive."""
    rss_bytes: int
    processes: int


@dataclass(frozen=True, slots=True)
class Streams:
    """Three descriptors for an exec session; the driver does not close them. `tty`: all three are one terminal."""

    stdin: int
    stdout: int
    stderr: int
    tty: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """A running container's streams: `stdin` is -1 when it has none. The receiver closes it."""

    stdin: int
    tty: bool


class RuntimeDriver(Protocol):
    """Every verb may raise `ShimError`; a sandbox that is gone is an observation, not an error."""

    name: str
    capabilities: Capabilities

    async def prepare(self) -> None:
        """Find out what this machine allows; `capabilities` are final afterwards. Raises ShimError."""

    async def close(self) -> None:
        """Let go of every sandbox; none of them ends."""

    async def open(self, sandbox: Sandbox, changed: Callable[[], None]) -> Handle:
        """Make the sandbox. `changed` is called, on the loop, after each change of what `observe` returns.

        Records of an earlier sandbox in the same directory stay visible, their running ones as killed.
        """

    async def recover(self, handle: Handle, changed: Callable[[], None]) -> bool:
        """Take hold of a sandbox made before. True: still the same one and alive. Its records are visible anyway."""

    def alive(self, handle: Handle) -> bool: ...

    def observe(self, handle: Handle) -> tuple[Record, ...]:
        """All records, oldest attempt first; the latest known ones when the sandbox is gone."""

    async def start(self, handle: Handle, spec: ContainerSpec) -> Record:
        """Failure to start is a record with reason StartError."""

    async def stop(self, handle: Handle, container_id: str, *, grace_s: float) -> None:
        """Ask to end, then kill after `grace_s`; returns at once. A repeated call can only shorten the grace."""

    async def kill(self, handle: Handle, container_id: str, reason: str) -> None:
        """SIGKILL at once; `reason` is what the record says afterwards."""

    async def resize(self, handle: Handle, container_id: str, limits: Limits) -> None:
        """Hold a running container to these limits from now on, where the driver holds it to any."""

    async def annotate(self, handle: Handle, container_id: str, meta: Mapping[str, Any]) -> None:
        """Add the agent's own facts to a record, durably."""

    async def exec(self, handle: Handle, container_id: str, spec: Mapping[str, Any], io: Streams) -> int:
        """Run argv beside the container until it ends. Returns the exit code. Cancelling kills it.

        spec:    argv, env, cwd and the container's user.
        Raises:  ShimError when it cannot be started.
        """

    async def attach(self, handle: Handle, container_id: str, stdout: int, stderr: int) -> Attachment:
        """Copy output to the two pipes from now on; they are closed when the container ends."""

    async def close_stdin(self, handle: Handle, container_id: str) -> None: ...

    def forget(self, handle: Handle) -> None:
        """The pod is gone for good."""

    async def remove(self, handle: Handle) -> None:
        """Kill whatever runs, end the sandbox, leave no process; returns when that is so."""

    def stats(self, handle: Handle) -> Mapping[str, Stats]:
        """By container id."""

    def memory_bytes(self, handle: Handle, container_id: str) -> int:
        """Like `rss_bytes` of its stats, but memory that processes share is counted once. Slow: for doubtful cases."""
