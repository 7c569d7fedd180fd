"""Backups as files, and data directories made from them or from what a disaster left.

A backup file is the stream that members send each other (see `kstore.fsm`): length-prefixed msgpack frames, first a
header `['kstore-snapshot', version, log index]`, then `[table, [key, value, key, value, ...]]`, last `[-1, CRC-32]` of
all bytes before. `restore` founds a *new* cluster on it: run it once for each member, from the same file. `recover`
makes one surviving member of a cluster that lost its majority the only member of a new one, with all that its log
holds. Neither is to be run on the directory of a running member.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from kcore.env import Env
from kstore import wire
from kstore.datadir import claim, hold
from kstore.engine.disk import LmdbBackend
from kstore.engine.layers import Engine, Table
from kstore.errors import BadRequest, Corrupt, ProtocolError
from kstore.fsm import SNAPSHOT_MAGIC, SNAPSHOT_VERSION, StoreFsm, load_snapshot
from kstore.raft.messages import NO_ONE, ConfState, HardState, SnapshotMeta
from kstore.wal import Wal

READ_BYTES = 1024 * 1024
RESTORED_TERM = 1


class Summary(NamedTuple):
    """What a backup holds."""

    log_index: int
    """Of the state."""
    revision: int
    keys: int
    leases: int
    versions: int
    """Retained versions of all keys."""
    size_bytes: int


async def save(chunks: AsyncIterator[bytes], path: Path, env: Env) -> int:
    """Write a backup; the file has its name only once it is whole and on disk. Returns its size in bytes.

    Raises OSError; BadRequest for an existing file.
    """
    if env.disk.exists(path):
        raise BadRequest(f'{path} exists')
    part = path.with_name(path.name + '.part')
    env.disk.remove(part)
    file = env.disk.open_append(part)
    try:
        async for chunk in chunks:
            file.append(chunk)
        await env.disk.offload(file.sync)
        size = file.size
    finally:
        file.close()
    env.disk.rename(part, path)
    return size


def summarize(path: Path, env: Env) -> Summary:
    """Check a whole backup and count what is in it. Raises Corrupt, OSError."""
    try:
        return _summarize(path, env.disk.read(path))
    except (ProtocolError, ValueError, TypeError, IndexError) as e:
        raise Corrupt(f'{path} is no backup, or damaged: {e}') from e


def _summarize(path: Path, data: bytes) -> Summary:
    reader, crc, complete, index, revision = wire.FrameReader(), 0, False, -1, 0
    counts = dict.fromkeys(Table, 0)
    for at in range(0, len(data), READ_BYTES):
        for payload in reader.feed(data[at : at + READ_BYTES]):
            value = wire.unpack(payload)
            if index < 0:
                if not isinstance(value, list) or value[:2] != [SNAPSHOT_MAGIC, SNAPSHOT_VERSION]:
                    raise Corrupt(f'{path} is no backup of this version')
                index = value[2]
            elif value[0] == -1:
                complete = value[1] == crc
            else:
                counts[Table(value[0])] += len(value[1]) // 2
                if value[0] == Table.META:
                    records = dict(zip(value[1][::2], value[1][1::2], strict=True))
                    revision = int.from_bytes(records.get(b'revision', b''), 'big')
            crc = zlib.crc32(wire.frame(payload), crc)
    if not complete:
        raise Corrupt(f'{path} is cut short or damaged: its checksum does not match')
    return Summary(index, revision, counts[Table.KEYS], counts[Table.LEASES], counts[Table.LOG], len(data))


async def restore(path: Path, data_dir: Path, members: tuple[int, ...], env: Env, *, bump: int = 0) -> Summary:
    """Make the data directory of one member of a new cluster with these members.

    bump: added to the revision, and everything before it counts as compacted, so that watchers from before the backup
    start over instead of believing that nothing happened. Raises BadRequest, Corrupt, OSError.
    """
    if env.disk.listdir(data_dir):
        raise BadRequest(f'{data_dir} is not empty')
    found = summarize(path, env)
    env.disk.mkdir(data_dir)
    engine = Engine(LmdbBackend(data_dir / 'state'))
    try:
        await load_snapshot(engine, _pieces(env.disk.read(path)), found.log_index)
        fsm = StoreFsm(engine)
        for member in fsm.members():
            engine.delete(Table.MEMBERS, member.to_bytes(8, 'big'))
        if bump:
            fsm.store.revision += bump
            fsm.store.compact(fsm.store.revision)
        await fsm.flush()
    finally:
        engine.close()
    _found(data_dir / 'wal', env, SnapshotMeta(found.log_index, RESTORED_TERM, ConfState(tuple(sorted(members)))))
    return found._replace(revision=found.revision + bump)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), READ_BYTES):
        yield data[at : at + READ_BYTES]


async def recover(data_dir: Path, member: int, address: str, env: Env) -> Summary:
    """Make `member`, whose data this is, the only member; the old log stays as `wal.before-recover`.

    Everything in its log is kept, even what no majority had confirmed. Raises LogCorrupt, BadRequest, OSError; Refused
    while the member runs.
    """
    if not env.disk.listdir(data_dir / 'wal'):
        raise BadRequest(f'{data_dir} is no data directory of a member')
    with hold(data_dir):
        found = await _recover(data_dir, member, address, env)
        claim(data_dir, env.disk, member, anew=True)  # nobody is left whom its votes could contradict
        return found


async def _recover(data_dir: Path, member: int, address: str, env: Env) -> Summary:
    old = data_dir / 'wal.before-recover'
    if env.disk.exists(old):
        raise BadRequest(f'{old} exists: this directory was recovered before; move it away to do it again')
    wal = Wal(data_dir / 'wal', env.disk)
    found = wal.open(ConfState(()))
    wal.close()
    engine = Engine(LmdbBackend(data_dir / 'state'))
    try:
        fsm = StoreFsm(engine)
        if fsm.applied_index < found.snapshot.index:
            raise BadRequest(f'{data_dir}: the state ends before the log begins: restore from a backup instead')
        fsm.apply([e for e in found.entries if e.index > fsm.applied_index])
        for other in {*fsm.members(), *_everyone(found.snapshot.conf)} - {member}:
            engine.put(Table.MEMBERS, other.to_bytes(8, 'big'), b'')
        engine.put(Table.MEMBERS, member.to_bytes(8, 'big'), address.encode())
        await fsm.flush()
        index, revision = fsm.applied_index, fsm.store.revision
        keys = sum(1 for _ in engine.scan(Table.KEYS))
        size = engine.backend.size_bytes
        leases = len(fsm.store.leases)
    finally:
        engine.close()
    term = found.entries[-1].term if found.entries else found.snapshot.term
    env.disk.rename(data_dir / 'wal', old)
    meta = SnapshotMeta(index, term, ConfState((member,)))
    _found(data_dir / 'wal', env, meta, max(term, found.hard_state.term))
    return Summary(index, revision, keys, leases, 0, size)


def _everyone(conf: ConfState) -> set[int]:
    return {*conf.voters, *conf.outgoing, *conf.learners, *conf.learners_next}


def _found(directory: Path, env: Env, begin: SnapshotMeta, term: int = RESTORED_TERM) -> None:
    """A log that begins behind a state."""
    wal = Wal(directory, env.disk)
    wal.open(begin.conf)
    wal.mark(begin, replaces=True)
    wal.append(HardState(term, NO_ONE, begin.index), ())
    wal.flush()
    wal.close()
