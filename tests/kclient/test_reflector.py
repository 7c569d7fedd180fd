"""The LIST+WATCH machine as data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kclient.model import ObjectList, WatchEvent
from kclient.reflector import Begin, Commit, Delete, List, Lost, Put, Reflector, Watch


def obj(name: str, rv: int) -> dict:
    return {'metadata': {'name': name, 'resourceVersion': str(rv)}}


def test_it_lists_page_by_page_then_watches_from_the_lists_revision():
    machine = Reflector()
    assert machine.next_call() == List(500)
    assert machine.feed(ObjectList([obj('a', 1)], '7', 'token')) == [Begin(), Put(obj('a', 1))]
    assert machine.next_call() == List(500, 'token')
    assert machine.feed(ObjectList([obj('b', 2)], '7')) == [Put(obj('b', 2)), Commit('7')]
    assert machine.next_call() == Watch('7')


def test_a_lost_watch_resumes_after_the_last_event():
    machine = Reflector()
    machine.feed(ObjectList([], '7'))
    assert machine.feed(WatchEvent('ADDED', obj('a', 9))) == [Put(obj('a', 9))]
    machine.feed(Lost())
    assert machine.next_call() == Watch('9')


def test_a_bookmark_moves_the_revision_and_nothing_else():
    machine = Reflector()
    machine.feed(ObjectList([], '7'))
    assert machine.feed(WatchEvent('BOOKMARK', obj('', 50))) == []
    assert machine.next_call() == Watch('50')


def test_an_expired_watch_or_page_starts_a_new_list():
    machine = Reflector()
    machine.feed(ObjectList([], '7'))
    machine.feed(WatchEvent('ERROR', {'code': 410}))
    assert machine.next_call() == List(500)
    machine.feed(ObjectList([obj('a', 1)], '9', 'token'))
    machine.feed(Lost(gone=True))
    assert machine.feed(ObjectList([], '10')) == [Begin(), Commit('10')]


def test_another_error_in_a_watch_keeps_the_place():
    machine = Reflector()
    machine.feed(ObjectList([], '7'))
    machine.feed(WatchEvent('ERROR', {'code': 500}))
    assert machine.next_call() == Watch('7')


@given(st.lists(st.sampled_from(['page', 'more', 'put', 'delete', 'lost', 'gone', 'error']), max_size=40))
def test_any_order_of_replies_yields_balanced_begin_and_commit(replies):
    machine, rv, open_list = Reflector(), 10, False
    for reply in replies:
        rv += 1
        fed = {
            'page': ObjectList([obj('a', rv)], str(rv)), 'more': ObjectList([obj('a', rv)], str(rv), 'x'),
            'put': WatchEvent('MODIFIED', obj('a', rv)), 'delete': WatchEvent('DELETED', obj('a', rv)),
            'lost': Lost(), 'gone': Lost(gone=True), 'error': WatchEvent('ERROR', {'code': 410}),
        }[reply]  # fmt: skip
        for op in machine.feed(fed):
            match op:
                case Begin():
                    open_list = True
                case Commit():
                    assert open_list
                    open_list = False
                case Delete():
                    assert not open_list
        assert isinstance(machine.next_call(), List | Watch)
