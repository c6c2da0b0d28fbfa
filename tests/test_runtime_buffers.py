"""Buffers: lent, held as long as anyone looks at them, used again."""

import threading

import numpy as np

from runtime.buffers import FrameBuffers


def address(image):
    return image.__array_interface__["data"][0]


def test_a_forgotten_array_is_lent_again():
    buffers = FrameBuffers()
    first = address(buffers.take((48, 64)))
    assert address(buffers.take((48, 64))) == first


def test_an_array_that_someone_holds_is_never_lent_again():
    buffers = FrameBuffers()
    held = buffers.take((48, 64))
    others = [buffers.take((48, 64)) for _ in range(5)]
    assert address(held) not in {address(other) for other in others}
    assert buffers.lent == 6


def test_a_view_of_a_view_holds_the_array():
    buffers = FrameBuffers()
    image = buffers.take((48, 64))
    image[:] = 7
    view = image[10:20].reshape(-1)[::2]
    del image
    buffers.take((48, 64))[:] = 9
    assert set(view.tolist()) == {7}
    del view
    assert buffers.lent == 0


def test_another_size_gets_another_array_and_the_old_memory_goes():
    buffers = FrameBuffers()
    small = buffers.take((48, 64))
    large = buffers.take((96, 64))
    assert large.shape == (96, 64, 3)
    assert large.flags.c_contiguous
    del small
    assert len(buffers._idle) == 0


def test_no_more_than_asked_stays_idle():
    buffers = FrameBuffers(most_idle=2)
    held = [buffers.take((8, 8)) for _ in range(5)]
    held.clear()
    assert len(buffers._idle) == 2


def test_threads_that_borrow_at_once_never_share_an_array():
    buffers = FrameBuffers()
    wrong = []

    def borrow(value):
        for _ in range(300):
            image = buffers.take((16, 16))
            image[:] = value
            if np.ptp(image):
                wrong.append(value)

    threads = [threading.Thread(target=borrow, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
