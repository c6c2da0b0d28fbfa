"""How frames pass between threads."""

import threading
import time

import pytest

from runtime.mailbox import Ended, Inbox


def newest(slots=1):
    return Inbox(slots, newest=True)


def every(slots=1, capacity=2):
    return Inbox(slots, newest=False, capacity=capacity)


def test_the_newest_replaces_an_older_one_that_nobody_took():
    inbox = newest()
    assert inbox.put("old") is None
    assert inbox.put("new") == "old"
    assert inbox.take() == [(0, "new")]


def test_an_item_is_taken_once():
    inbox = newest()
    inbox.put(1)
    inbox.take()
    assert inbox.take(timeout_s=0) == []


@pytest.mark.parametrize("make", [newest, every])
def test_what_was_left_before_closing_still_arrives_and_then_the_end(make):
    inbox = make()
    inbox.put(1)
    inbox.close()
    assert inbox.take() == [(0, 1)]
    for _ in range(2):
        with pytest.raises(Ended):
            inbox.take()


@pytest.mark.parametrize("make", [newest, every])
def test_an_error_reaches_the_taker_after_what_was_left_before_it(make):
    inbox = make()
    inbox.put(1)
    inbox.close(ZeroDivisionError())
    assert inbox.take() == [(0, 1)]
    with pytest.raises(ZeroDivisionError):
        inbox.take()


@pytest.mark.parametrize("make", [newest, every])
def test_closing_wakes_a_waiting_taker(make):
    inbox = make()
    ended = []

    def take():
        with pytest.raises(Ended):
            inbox.take()
        ended.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    inbox.close()
    thread.join(10)
    assert ended == [True]


def test_closing_wakes_a_waiting_putter_and_gives_the_item_back():
    inbox = every(capacity=1)
    inbox.put(1)
    lost = []
    thread = threading.Thread(target=lambda: lost.append(inbox.put(2)))
    thread.start()
    inbox.close()
    thread.join(10)
    assert lost == [2]


@pytest.mark.parametrize("make", [newest, every])
def test_what_is_put_after_closing_is_lost_and_told(make):
    inbox = make()
    inbox.close()
    assert inbox.put("late") == "late"


def test_every_item_arrives_in_order_and_never_more_than_the_capacity_waits():
    inbox = every(capacity=2)
    most, taken = [], []

    def put():
        for number in range(200):
            assert inbox.put(number) is None
        inbox.close()

    def take():
        while True:
            most.append(len(inbox._items[0]))
            taken.extend(item for _, item in inbox.take())

    thread = threading.Thread(target=put)
    thread.start()
    with pytest.raises(Ended):
        take()
    thread.join(10)
    assert taken == list(range(200))
    assert max(most) <= 2


def test_slots_are_served_in_turn_however_busy_one_is():
    inbox = newest(slots=3)
    served = []
    for _ in range(12):
        inbox.put("busy", 0)
        inbox.put("busy", 1)
        inbox.put("busy", 2)
        served += [slot for slot, _ in inbox.take()]
    assert sorted(served) == sorted([0, 1, 2] * 4)


def test_several_slots_are_taken_at_once_each_with_one_item():
    inbox = every(slots=3)
    inbox.put("a", 0)
    inbox.put("b", 0)
    inbox.put("c", 2)
    assert inbox.take(most=4) == [(0, "a"), (2, "c")]
    assert inbox.take(most=4) == [(0, "b")]


def test_the_last_slot_that_ends_closes():
    inbox = every(slots=2)
    inbox.put("a", 1)
    inbox.end(0)
    assert not inbox.closed
    inbox.end(1)
    assert inbox.take() == [(1, "a")]
    with pytest.raises(Ended):
        inbox.take()


def test_waiting_for_a_newer_item_ends_when_it_comes():
    inbox = newest()
    inbox.put("old")
    later = threading.Timer(0.05, inbox.put, ["new"])
    later.start()
    assert inbox.waits_for_newer(0, 10)
    later.join()
    assert inbox.take() == [(0, "new")]


def test_waiting_for_a_newer_item_ends_in_time_and_leaves_the_old_one():
    inbox = newest()
    inbox.put("old")
    started_s = time.monotonic()
    assert not inbox.waits_for_newer(0, 0.05)
    assert time.monotonic() - started_s >= 0.05
    assert inbox.take() == [(0, "old")]


def test_where_nothing_waits_there_is_nothing_newer_to_wait_for():
    assert not newest().waits_for_newer(0, 10)


def test_emptying_throws_away_what_waits_and_makes_room():
    inbox = every(capacity=1)
    inbox.put(1)
    assert inbox.empty() == 1
    assert inbox.put(2) is None
