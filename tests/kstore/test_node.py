"""A cluster of nodes on virtual time: what a caller of `Node` can rely on."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from kcore.sim.disk import LATENCY_S
from kcore.tasks import Died
from kstore.node import Node
from kstore.raft.confchange import ConfChange, parse
from kstore.raft.errors import LeadershipLost, LogCorrupt, LogFull, NotLeader, ProposalDropped, RaftError, ReadDropped
from kstore.raft.messages import Entry, Message, MessageType
from tests.sim.kstore.node_world import DATA, SimCluster

Body = Callable[[SimCluster], Coroutine[Any, Any, None]]


def play(body: Body, members: int = 3, *, prompt: bool = False) -> SimCluster:
    """Run `body` on a healthy cluster and stop it afterwards. prompt: its disks are quick, and waited for."""
    cluster = SimCluster(1, members)
    cluster.prompt = prompt
    cluster.drop = cluster.duplicate = 0
    cluster.delay_s = (0.0001, 0.0005)

    async def main() -> None:
        for i in cluster.ids:
            cluster.start(i)
            if prompt:
                cluster.world.host(f'h{i}').disk.latency_s = LATENCY_S
        await body(cluster)
        for i in list(cluster.nodes):
            await cluster.crash(i)

    cluster.world.run(main())
    return cluster


async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def leader_of(c: SimCluster) -> Node:
    def one() -> bool:
        leaders = [n for n in c.nodes.values() if n.is_leader]
        return len(leaders) == 1 and all(n.leader_id == leaders[0].config.id for n in c.nodes.values())

    await until(one)
    return next(n for n in c.nodes.values() if n.is_leader)


async def ask(start: Callable[[Callable[[Any], None]], None]) -> Any:
    """The answer of a callback-style request; raises it when it is an exception."""
    answer = asyncio.get_running_loop().create_future()
    start(answer.set_result)
    result = await answer
    if isinstance(result, Exception):
        raise result
    return result


async def put(node: Node, data: bytes) -> Any:
    return await ask(lambda done: node.propose(data, done))


def test_a_proposal_is_answered_with_the_state_machines_result() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        assert [await put(leader, b'a'), await put(leader, b'b')] == [1, 2]
        await until(lambda: all(f.commands == [b'a', b'b'] for f in c.fsms.values()))

    play(body)


def test_proposals_of_one_turn_share_one_sync() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        disk = c.world.host(f'h{leader.config.id}').disk
        calls = 0
        offload = disk.offload

        async def counting(call: Callable[..., Any], *args: Any) -> Any:
            nonlocal calls
            calls += 1
            return await offload(call, *args)

        disk.offload = counting  # type: ignore[method-assign]
        await asyncio.gather(*(put(leader, b'%d' % i) for i in range(500)))
        assert calls == 1

    play(body)


def test_a_follower_acknowledges_what_it_wrote_before_it_applies_what_was_committed_before() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        follower = next(n for n in c.nodes.values() if n is not leader)
        fsm, disk = c.fsms[follower.config.id], c.world.host(f'h{follower.config.id}').disk
        happened: list[str] = []
        receive, send, apply = follower.receive, follower._transport.send, fsm.apply

        async def at_once(call: Callable[..., Any], *args: Any) -> Any:
            return call(*args)

        def sending(messages: Sequence[Message]) -> None:
            happened.extend(f'acknowledged {m.index}' for m in messages if m.type == MessageType.APPEND_RESP)
            send(messages)

        def applying(entries: Sequence[Entry]) -> Any:
            happened.extend(f'applied {e.index}' for e in entries)
            return apply(entries)

        disk.sync_soon = at_once  # type: ignore[method-assign]
        follower._transport.send = sending  # type: ignore[method-assign]
        fsm.apply = applying  # type: ignore[method-assign]
        follower.receive = lambda m: receive(m) if m.entries else None  # type: ignore[method-assign]
        await put(leader, b'a')
        last = leader.status().last
        await until(lambda: f'acknowledged {last}' in happened)
        await put(leader, b'b')
        await until(lambda: f'applied {last}' in happened)
        assert happened.index(f'acknowledged {last + 1}') < happened.index(f'applied {last}')

    play(body)


def test_a_follower_refuses_proposals_and_names_the_leader() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        follower = next(n for n in c.nodes.values() if n is not leader)
        with pytest.raises(NotLeader) as refused:
            await put(follower, b'x')
        assert refused.value.leader == leader.config.id

    play(body)


def test_a_read_on_any_member_sees_what_was_acknowledged_before() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        for i in range(20):
            await put(leader, b'%d' % i)
            for n, node in c.nodes.items():
                index = await ask(node.read_index)
                assert b'%d' % i in c.fsms[n].commands
                assert c.fsms[n].applied_index >= index

    play(body)


def test_a_read_without_a_majority_is_given_up() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        for i in list(c.nodes):
            if i != leader.config.id:
                await c.crash(i)
        with pytest.raises(ReadDropped):
            await ask(leader.read_index)

    play(body)


def test_a_proposal_without_a_majority_ends_when_leadership_does() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        for i in list(c.nodes):
            if i != leader.config.id:
                await c.crash(i)
        with pytest.raises(LeadershipLost):
            await put(leader, b'x')
        assert not leader.is_leader

    play(body)


def test_a_dead_leader_is_replaced_soon_and_sooner_when_its_connections_broke() -> None:
    async def body(c: SimCluster) -> None:
        loop = asyncio.get_running_loop()
        gaps = []
        for notice in (False, True):
            leader = await leader_of(c)
            await c.crash(leader.config.id)
            began = loop.time()
            if notice:
                for n in c.nodes.values():
                    n.peer_lost(leader.config.id)
            await put(await leader_of(c), b'x')
            gaps.append(loop.time() - began)
            c.start(leader.config.id)
            await until(lambda: all(n.running for n in c.nodes.values()))
        assert gaps[0] < 0.6
        assert gaps[1] < 0.2

    play(body)


def test_a_member_that_was_away_catches_up_through_a_snapshot() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        away = next(i for i in c.nodes if i != leader.config.id)
        await c.crash(away)
        for i in range(200):
            await put(leader, b'%d' % i)
        await until(lambda: leader.status().first > 100)
        c.start(away)
        await until(lambda: c.fsms[away].commands == c.fsms[leader.config.id].commands)
        assert c.nodes[away].status().first > 100
        await put(leader, b'more')
        await until(lambda: c.fsms[away].commands[-1] == b'more')

    play(body)


def test_a_snapshot_holds_all_that_its_index_says_also_what_is_committed_in_the_same_turn() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        core, fsm = leader._running(), leader._fsm
        peer = next(i for i in c.ids if i != leader.config.id)
        ready, step, snapshot = core.ready, core.step, fsm.snapshot
        taken: list[tuple[int, int]] = []

        def stepping(m: Message) -> None:
            before = core.log.committed
            step(m)
            if core.log.committed > before:
                core.propose(b'more')

        def asking() -> Any:
            rd = ready()
            if rd is None or not (rd.committed and rd.entries) or peer in leader._senders:
                return rd
            wanted = Message(MessageType.SNAPSHOT, peer, core.id, core.term, core.log.applied)
            return rd._replace(send_now=(*rd.send_now, wanted))

        def looking() -> Any:
            taken.append((fsm.applied_index, core.log.applied))
            return snapshot()

        core.ready, core.step, fsm.snapshot = asking, stepping, looking  # type: ignore[method-assign]
        c.delay_s = (0.05, 0.06)  # a follower's word, not our own disk, is what commits
        await put(leader, b'first')
        await until(lambda: taken)
        assert all(holds == says for holds, says in taken), taken

    play(body)


def test_everything_restarts_from_disk() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        for i in range(70):
            await put(leader, b'%d' % i)
        for i in c.ids:
            await c.crash(i)
        for i in c.ids:
            c.start(i)
        leader = await leader_of(c)
        await ask(leader.read_index)
        assert c.fsms[leader.config.id].commands == [b'%d' % i for i in range(70)]

    play(body)


def test_leadership_moves_when_asked_to() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        target = next(i for i in c.nodes if i != leader.config.id)
        seen: list[tuple[int, int]] = []
        leader.on_leader_change(lambda who, term: seen.append((who, term)))
        c.nodes[next(i for i in c.nodes if i not in (leader.config.id, target))].transfer_leader(target)
        await until(lambda: c.nodes[target].is_leader)
        await until(lambda: seen and seen[-1][0] == target)
        with pytest.raises(ProposalDropped, match='no voter'):
            leader.transfer_leader(9)

    play(body)


def test_a_member_joins_by_a_snapshot_and_may_then_lead() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        await put(leader, b'before')
        c.ids = []  # a joining member knows nobody
        c.start(4)
        c.ids = [1, 2, 3, 4]
        await ask(lambda done: leader.propose_conf_change(ConfChange(parse('v4')), done))
        await put(leader, b'after')
        await until(lambda: c.fsms[4].commands == [b'before', b'after'])
        assert c.nodes[4].status().conf.voters == (1, 2, 3, 4)
        leader.transfer_leader(4)
        await until(lambda: c.nodes[4].is_leader)
        await ask(lambda done: c.nodes[4].propose_conf_change(ConfChange(parse('r1')), done))
        assert c.nodes[4].status().conf.voters == (2, 3, 4)

    play(body)


def test_an_invalid_membership_change_is_refused() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        with pytest.raises(RaftError, match='removed all voters'):
            await ask(lambda done: leader.propose_conf_change(ConfChange(parse('r1')), done))

    play(body, members=1)


@pytest.mark.parametrize('prompt', [False, True], ids=['', 'prompt disk'])
def test_a_failing_sync_ends_the_member(prompt: bool) -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        c.world.host(f'h{leader.config.id}').disk.sync_error = OSError(errno.EIO, 'bad disk')
        with pytest.raises((LeadershipLost, ProposalDropped)):
            await put(leader, b'x')
        await until(c.running[leader.config.id].done)
        assert 'bad disk' in c.died[0]
        del c.nodes[leader.config.id]
        c.fsms.pop(leader.config.id)

    play(body, prompt=prompt)


def test_what_a_failed_sync_should_have_written_is_confirmed_by_no_later_turn() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        follower = next(n for n in c.nodes.values() if n is not leader)
        host, send = c.world.host(f'h{follower.config.id}'), follower._transport.send
        acknowledged: list[int] = []

        def sending(messages: Sequence[Message]) -> None:
            acknowledged.extend(m.index for m in messages if m.type == MessageType.APPEND_RESP)
            send(messages)

        def failing_once(call: Callable[..., Any], *args: Any) -> Any:
            if host.disk.sync_error is None:
                host.disk.sync_error = OSError(errno.EIO, 'bad disk')
                follower._schedule()  # there is more to do
                raise host.disk.sync_error
            return None  # the kernel has dropped the dirty pages, and says that all is well

        await put(leader, b'before')
        host.disk.sync_now = failing_once  # type: ignore[method-assign]
        follower._transport.send = sending  # type: ignore[method-assign]
        await put(leader, b'x')
        await until(c.running[follower.config.id].done)
        assert not [index for index in acknowledged if index >= leader.status().last]
        del c.nodes[follower.config.id]
        c.fsms.pop(follower.config.id)

    play(body, prompt=True)


def test_a_quick_disk_is_written_without_another_turn_of_the_loop() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)

        async def offload(call: Callable[..., Any], *args: Any) -> Any:
            raise AssertionError('a quick disk was not asked at once')

        for i in c.ids:
            c.world.host(f'h{i}').disk.offload = offload  # type: ignore[method-assign]
        assert [await put(leader, b'%d' % i) for i in range(5)] == [1, 2, 3, 4, 5]
        for i in c.ids:
            del c.world.host(f'h{i}').disk.offload

    play(body, prompt=True)


@pytest.mark.parametrize('prompt', [False, True], ids=['', 'prompt disk'])
def test_a_full_disk_makes_a_lone_member_refuse_writes_and_recover(prompt: bool) -> None:
    async def body(c: SimCluster) -> None:
        node = await leader_of(c)
        await put(node, b'before')
        disk = c.world.host('h1').disk
        disk.capacity = disk.used
        lost: list[Any] = []
        node.propose(b'stuck', lost.append)  # taken in before anybody knew
        await until(lambda: node.status().log_full)
        with pytest.raises(LogFull, match='full'):
            await put(node, b'refused')
        await ask(node.read_index)
        assert c.fsms[1].commands == [b'before']
        assert not lost
        disk.capacity = None
        await until(lambda: not node.status().log_full)
        await put(node, b'after')
        assert c.fsms[1].commands == [b'before', b'stuck', b'after']
        assert lost == [2]

    play(body, members=1, prompt=prompt)


@pytest.mark.parametrize('prompt', [False, True], ids=['', 'prompt disk'])
def test_a_leader_with_a_full_disk_hands_over_and_nobody_misses_a_write(prompt: bool) -> None:
    async def body(c: SimCluster) -> None:
        old = await leader_of(c)
        disk = c.world.host(f'h{old.config.id}').disk
        disk.capacity = disk.used
        old.propose(b'on the way', lambda _: None)
        await until(lambda: old.leader_id not in (0, old.config.id))
        new = c.nodes[old.leader_id]
        for i in range(50):
            await put(new, b'%d' % i)
        assert old.status().log_full
        disk.capacity = None
        await until(lambda: c.fsms[old.config.id].commands == c.fsms[new.config.id].commands)
        assert b'on the way' in c.fsms[old.config.id].commands

    play(body, prompt=prompt)


def test_a_leader_whose_disk_is_slow_hands_over_but_not_when_all_are_slow() -> None:
    async def body(c: SimCluster) -> None:
        old = await leader_of(c)
        for i in c.ids:
            c.world.host(f'h{i}').disk.latency_s = 2.0
        await put(old, b'all wait')
        assert old.is_leader
        for i in c.ids:
            c.world.host(f'h{i}').disk.latency_s = 0.0002 if i != old.config.id else 2.0
        old.propose(b'one waits', lambda _: None)
        await until(lambda: not old.is_leader)
        assert c.fsms[old.leader_id or old.config.id % 3 + 1].commands[-1] == b'one waits'

    play(body)


def test_a_raising_state_machine_ends_the_member() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        i = leader.config.id

        def broken(entries: object) -> Any:
            raise RuntimeError('cannot apply')

        c.fsms[i].apply = broken  # type: ignore[method-assign]
        with pytest.raises(LeadershipLost):
            await put(leader, b'x')
        with pytest.raises(Died, match='cannot apply'):
            await c.running.pop(i)
        del c.nodes[i]

    play(body)


def test_a_log_that_lost_its_end_refuses_to_start_and_says_what_to_do() -> None:
    async def body(c: SimCluster) -> None:
        leader = await leader_of(c)
        for i in range(10):
            await put(leader, b'%d' % i)
        i = leader.config.id
        c.fsms[i].persist()
        await c.crash(i)
        disk = c.world.host(f'h{i}').disk
        for name in disk.listdir(DATA / 'wal'):
            disk.remove(DATA / 'wal' / name)
        c.start(i)
        with pytest.raises(LogCorrupt, match='remove this member and add it anew'):
            await c.running.pop(i)
        del c.nodes[i]

    play(body)


def test_a_node_that_does_not_run_answers_at_once() -> None:
    c = SimCluster(1)
    node = Node.__new__(Node)
    node._core = None
    answers: list[Any] = []
    node.propose(b'x', answers.append)
    node.read_index(answers.append)
    assert [type(a) for a in answers] == [ProposalDropped, ReadDropped]
    assert node.leader_id == 0
    assert not c.nodes
