"""Memory that is lent and given back: used again, never twice at once, never somebody else's."""

from __future__ import annotations

import gc

import numpy as np

from npstyle._buffers import ALIGNMENT, Buffers


def test_what_is_lent_is_not_lent_again() -> None:
    buffers = Buffers()
    first, second = buffers.empty((8, 8), np.float32), buffers.empty((8, 8), np.float32)
    assert not np.shares_memory(first, second)


def test_what_is_given_back_is_lent_again() -> None:
    buffers = Buffers()
    first = buffers.empty((8, 8, 4), np.float64)
    buffers.give(first)
    second = buffers.empty((3, 5), np.float32)
    assert np.shares_memory(first, second)
    assert second.shape == (3, 5)
    assert second.dtype == np.float32
    assert second.flags.c_contiguous


def test_views_give_back_the_whole() -> None:
    buffers = Buffers()
    first = buffers.empty((8, 8, 4), np.float32)
    buffers.give(first.reshape(-1)[10:20])
    assert np.shares_memory(first, buffers.empty((8, 8, 4), np.float32))


def test_the_smallest_block_that_fits_is_taken() -> None:
    buffers = Buffers()
    large, small = buffers.empty((1000,), np.float32), buffers.empty((10,), np.float32)
    buffers.give(large)
    buffers.give(small)
    assert np.shares_memory(small, buffers.empty((10,), np.float32))
    assert np.shares_memory(large, buffers.empty((10,), np.float32))


def test_arrays_from_elsewhere_are_left_alone() -> None:
    buffers = Buffers()
    foreign = np.zeros(100)
    buffers.give(foreign)
    buffers.give(foreign[:10])
    assert not np.shares_memory(foreign, buffers.empty((10,), np.float64))


def test_blocks_too_small_for_the_next_picture_are_let_go() -> None:
    buffers = Buffers()
    buffers.give(buffers.empty((10,), np.float32))
    large = buffers.empty((1000,), np.float32)
    gc.collect()
    assert [block.nbytes for block in buffers._ours.values()] == [large.nbytes + ALIGNMENT]


def test_what_is_given_back_twice_is_lent_once() -> None:
    buffers = Buffers()
    first = buffers.empty((8, 8), np.float32)
    buffers.give(first)
    buffers.give(first)
    assert not np.shares_memory(buffers.empty((8, 8), np.float32), buffers.empty((8, 8), np.float32))
