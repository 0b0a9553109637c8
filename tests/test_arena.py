"""Memory that is lent and given back: used again, never twice at once, never somebody else's."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle._runtime.arena import ALIGNMENT, Arena


def test_what_is_lent_is_not_lent_again() -> None:
    arena = Arena()
    first, second = arena.borrow((8, 8), np.float32), arena.borrow((8, 8), np.float32)
    assert not np.shares_memory(first, second)


def test_what_is_given_back_is_lent_again() -> None:
    arena = Arena()
    first = arena.borrow((8, 8, 4), np.float64)
    arena.release(first)
    second = arena.borrow((3, 5), np.float32)
    assert np.shares_memory(first, second)
    assert second.shape == (3, 5)
    assert second.dtype == np.float32
    assert second.flags.c_contiguous


def test_views_give_back_the_whole() -> None:
    arena = Arena()
    first = arena.borrow((8, 8, 4), np.float32)
    arena.release(first.reshape(-1)[10:20])
    assert np.shares_memory(first, arena.borrow((8, 8, 4), np.float32))


def test_the_smallest_block_that_fits_is_taken() -> None:
    arena = Arena()
    large, small = arena.borrow((1000,), np.float32), arena.borrow((10,), np.float32)
    arena.release(large)
    arena.release(small)
    first, second = arena.borrow((10,), np.float32), arena.borrow((10,), np.float32)
    assert np.shares_memory(small, first)
    assert np.shares_memory(large, second)


def test_arrays_from_elsewhere_are_left_alone() -> None:
    arena = Arena()
    foreign = np.zeros(100)
    arena.release(foreign)
    arena.release(foreign[:10])
    assert not np.shares_memory(foreign, arena.borrow((10,), np.float64))


def test_blocks_too_small_for_the_next_picture_are_let_go() -> None:
    arena = Arena()
    arena.release(arena.borrow((10,), np.float32))
    large = arena.borrow((1000,), np.float32)
    gc.collect()
    assert arena.nbytes == large.nbytes + -large.nbytes % ALIGNMENT


def test_what_is_not_asked_for_stays_for_others() -> None:
    arena = Arena()
    whole = arena.borrow((4096,), np.uint8)
    arena.release(whole)
    parts = [arena.borrow((1000,), np.uint8) for _ in range(4)]
    assert all(np.shares_memory(whole, part) for part in parts)
    assert all(part.ctypes.data % ALIGNMENT == 0 for part in parts)
    assert not any(np.shares_memory(parts[i], parts[j]) for i in range(4) for j in range(i))
    assert arena.nbytes == 4096


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_free_neighbors_are_one_part_again(order: tuple[int, ...]) -> None:
    arena = Arena()
    whole = arena.borrow((3072,), np.uint8)
    arena.release(whole)
    parts = [arena.borrow((1024,), np.uint8) for _ in range(3)]
    for index in order:
        arena.release(parts[index])
    assert np.shares_memory(whole, arena.borrow((3072,), np.uint8))
    assert arena.nbytes == 3072


def test_what_is_forgotten_comes_back_when_its_last_view_is_gone() -> None:
    arena = Arena()
    view = arena.borrow((8, 128), np.float32)[2:]
    gc.collect()
    other = arena.borrow((8, 128), np.float32)
    assert not np.shares_memory(view, other)
    address = view.ctypes.data - 2 * 128 * 4
    del view
    gc.collect()
    assert arena.borrow((8, 128), np.float32).ctypes.data == address


def test_lent_parts_never_overlap_in_a_long_life() -> None:
    arena, rng = Arena(), np.random.default_rng(0)
    lent: list[tuple[int, NDArray[Any]]] = []
    for number in range(2000):
        if lent and rng.random() < 0.5:
            filled, array = lent.pop(rng.integers(len(lent)))
            assert (array == filled).all()
            if rng.random() < 0.8:
                arena.release(array)
        else:
            array = arena.borrow((int(rng.integers(1, 3000)),), np.int64)
            array[...] = number
            lent.append((number, array))
    assert all((array == filled).all() for filled, array in lent)


def test_what_is_given_back_twice_is_lent_once() -> None:
    arena = Arena()
    first = arena.borrow((8, 8), np.float32)
    arena.release(first)
    arena.release(first)
    assert not np.shares_memory(arena.borrow((8, 8), np.float32), arena.borrow((8, 8), np.float32))
