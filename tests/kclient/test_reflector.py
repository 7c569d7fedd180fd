"""The LIST+WATCH machine as data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kclient.model import ObjectList, WatchEvent
from kclient.reflector import INITIAL_END, Begin, Commit, Delete, List, Lost, Put, Reflector, Refused, Stream, Watch


def obj(name: str, rv: int) -> dict:
    return {'metadata': {'name': name, 'resourceVersion': str(rv)}}


def test_it_lists_page_by_page_then_watches_from_the_lists_revision():
    machine = Reflector(streams=False)
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


END = WatchEvent('BOOKMARK', {'metadata': {'resourceVersion': '7', 'annotations': {INITIAL_END: 'true'}}})


def test_a_streamed_list_is_complete_at_its_marked_bookmark_and_goes_on_as_the_watch():
    machine = Reflector()
    assert machine.next_call() == Stream()
    assert machine.feed(WatchEvent('ADDED', obj('a', 1))) == [Begin(), Put(obj('a', 1))]
    assert machine.feed(WatchEvent('BOOKMARK', obj('', 6))) == []
    assert machine.feed(WatchEvent('DELETED', obj('a', 7))) == [Delete(obj('a', 7))]
    assert not machine.in_step
    assert machine.feed(END) == [Commit('7')]
    assert machine.feed(WatchEvent('ADDED', obj('b', 8))) == [Put(obj('b', 8))]
    machine.feed(Lost())
    assert machine.next_call() == Watch('8')
    machine.feed(Lost(gone=True))
    assert machine.next_call() == Stream()


def test_an_empty_streamed_list_is_complete_at_once():
    assert Reflector().feed(END) == [Begin(), Commit('7')]


def test_a_streamed_list_that_breaks_off_is_asked_for_in_pages_once():
    machine = Reflector()
    machine.feed(WatchEvent('ADDED', obj('a', 1)))
    machine.feed(Lost())
    assert machine.next_call() == List(500)
    machine.feed(ObjectList([], '7'))
    machine.feed(Lost(gone=True))
    assert machine.next_call() == Stream()


def test_a_server_that_refuses_to_stream_is_not_asked_again():
    machine = Reflector()
    machine.feed(Refused())
    machine.feed(ObjectList([], '7'))
    machine.feed(Lost(gone=True))
    assert machine.next_call() == List(500)


def test_an_expired_watch_or_page_starts_a_new_list():
    machine = Reflector(streams=False)
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


@given(
    st.booleans(),
    st.lists(
        st.sampled_from(['page', 'more', 'put', 'delete', 'end', 'mark', 'lost', 'gone', 'error', 'refused']),
        max_size=40,
    ),
)
def test_any_order_of_replies_yields_balanced_begin_and_commit(streams, replies):
    machine, rv, open_list = Reflector(streams=streams), 10, False
    for reply in replies:
        rv += 1
        fed = {
            'page': ObjectList([obj('a', rv)], str(rv)), 'more': ObjectList([obj('a', rv)], str(rv), 'x'),
            'put': WatchEvent('MODIFIED', obj('a', rv)), 'delete': WatchEvent('DELETED', obj('a', rv)),
            'end': END, 'mark': WatchEvent('BOOKMARK', obj('', rv)), 'refused': Refused(),
            'lost': Lost(), 'gone': Lost(gone=True), 'error': WatchEvent('ERROR', {'code': 410}),
        }[reply]  # fmt: skip
        for op in machine.feed(fed):
            match op:
                case Begin():
                    open_list = True
                case Commit():
                    assert open_list
                    open_list = False
                    assert machine.in_step
                case Put() | Delete():
                    assert open_list or machine.in_step
        assert isinstance(machine.next_call(), List | Stream | Watch)
