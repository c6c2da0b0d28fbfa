"""How frames pass between threads."""

import threading

import pytest

from runtime.mailbox import BoundedQueue, Ended, Mailbox


def test_a_mailbox_gives_the_newest_and_returns_what_it_replaced():
    mailbox = Mailbox()
    assert mailbox.put("old") is None
    assert mailbox.put("new") == "old"
    assert mailbox.take() == "new"


def test_an_item_is_taken_once():
    mailbox = Mailbox()
    mailbox.put(1)
    mailbox.take()
    assert mailbox.take(timeout_s=0) is None


@pytest.mark.parametrize("passage", [Mailbox(), BoundedQueue(2)])
def test_what_was_left_before_closing_still_arrives_and_then_the_end(passage):
    passage.put(1)
    passage.close()
    assert passage.take() == 1
    with pytest.raises(Ended):
        passage.take()
    with pytest.raises(Ended):
        passage.take()


@pytest.mark.parametrize("passage", [Mailbox(), BoundedQueue(2)])
def test_an_error_reaches_the_taker_after_what_was_left_before_it(passage):
    passage.put(1)
    passage.close(ZeroDivisionError())
    assert passage.take() == 1
    with pytest.raises(ZeroDivisionError):
        passage.take()


@pytest.mark.parametrize("passage", [Mailbox(), BoundedQueue(2)])
def test_closing_wakes_a_waiting_taker(passage):
    ended = []

    def take():
        with pytest.raises(Ended):
            passage.take()
        ended.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    passage.close()
    thread.join(10)
    assert ended == [True]


def test_closing_wakes_a_waiting_putter_and_tells_it():
    queue = BoundedQueue(1)
    queue.put(1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(queue.put(2)))
    thread.start()
    queue.close()
    thread.join(10)
    assert answers == [False]


def test_a_bounded_queue_holds_its_capacity_and_keeps_the_order():
    queue = BoundedQueue(2)
    most = []
    taken = []

    def put():
        for number in range(200):
            queue.put(number)
        queue.close()

    def take():
        while True:
            most.append(len(queue._items))
            taken.append(queue.take())

    thread = threading.Thread(target=put)
    thread.start()
    with pytest.raises(Ended):
        take()
    thread.join(10)
    assert taken == list(range(200))
    assert max(most) <= 2
