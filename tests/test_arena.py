"""The arena: memory is used again once it is released, and never borrowed twice at a time."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle._runtime.arena import ALIGNMENT, Arena


def test_borrowed_arrays_share_no_memory() -> None:
    arena = Arena()
    first, second = arena.borrow((8, 8), np.float32), arena.borrow((8, 8), np.float32)
    assert not np.shares_memory(first, second)


def test_released_memory_is_borrowed_again() -> None:
    arena = Arena()
    first = arena.borrow((8, 8, 4), np.float64)
    arena.release(first)
    second = arena.borrow((3, 5), np.float32)
    assert np.shares_memory(first, second)
    assert second.shape == (3, 5)
    assert second.dtype == np.float32
    assert second.flags.c_contiguous


def test_releasing_a_view_releases_the_array() -> None:
    arena = Arena()
    first = arena.borrow((8, 8, 4), np.float32)
    arena.release(first.reshape(-1)[10:20])
    assert np.shares_memory(first, arena.borrow((8, 8, 4), np.float32))


def test_smallest_part_that_fits_is_taken() -> None:
    arena = Arena()
    large, small = arena.borrow((1000,), np.float32), arena.borrow((10,), np.float32)
    arena.release(large)
    arena.release(small)
    first, second = arena.borrow((10,), np.float32), arena.borrow((10,), np.float32)
    assert np.shares_memory(small, first)
    assert np.shares_memory(large, second)


def test_releasing_a_foreign_array_does_nothing() -> None:
    arena = Arena()
    foreign = np.zeros(100)
    arena.release(foreign)
    arena.release(foreign[:10])
    assert not np.shares_memory(foreign, arena.borrow((10,), np.float64))


def test_slabs_too_small_for_next_picture_are_freed() -> None:
    arena = Arena()
    arena.release(arena.borrow((10,), np.float32))
    large = arena.borrow((1000,), np.float32)
    gc.collect()
    assert arena.nbytes == large.nbytes + -large.nbytes % ALIGNMENT


def test_rest_of_a_part_stays_free() -> None:
    arena = Arena()
    whole = arena.borrow((4096,), np.uint8)
    arena.release(whole)
    parts = [arena.borrow((1000,), np.uint8) for _ in range(4)]
    assert all(np.shares_memory(whole, part) for part in parts)
    assert all(part.ctypes.data % ALIGNMENT == 0 for part in parts)
    assert not any(np.shares_memory(parts[i], parts[j]) for i in range(4) for j in range(i))
    assert arena.nbytes == 4096


def test_slabs_have_a_least_size() -> None:
    arena = Arena()
    arena.least_slab = 4096
    small, other = arena.borrow((1000,), np.uint8), arena.borrow((2000,), np.uint8)
    assert arena.nbytes == 4096
    assert not np.shares_memory(small, other)
    large = arena.borrow((5000,), np.uint8)
    assert arena.nbytes == 4096 + large.nbytes + -large.nbytes % ALIGNMENT


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_free_neighbors_are_joined(order: tuple[int, ...]) -> None:
    arena = Arena()
    whole = arena.borrow((3072,), np.uint8)
    arena.release(whole)
    parts = [arena.borrow((1024,), np.uint8) for _ in range(3)]
    for index in order:
        arena.release(parts[index])
    assert np.shares_memory(whole, arena.borrow((3072,), np.uint8))
    assert arena.nbytes == 3072


def test_array_is_released_with_its_last_view() -> None:
    arena = Arena()
    view = arena.borrow((8, 128), np.float32)[2:]
    gc.collect()
    other = arena.borrow((8, 128), np.float32)
    assert not np.shares_memory(view, other)
    address = view.ctypes.data - 2 * 128 * 4
    del view
    gc.collect()
    assert arena.borrow((8, 128), np.float32).ctypes.data == address


def test_borrowed_arrays_never_overlap() -> None:
    arena, rng = Arena(), np.random.default_rng(0)
    borrowed: list[tuple[int, NDArray[Any]]] = []
    for number in range(2000):
        if borrowed and rng.random() < 0.5:
            filled, array = borrowed.pop(rng.integers(len(borrowed)))
            assert (array == filled).all()
            if rng.random() < 0.8:
                arena.release(array)
        else:
            array = arena.borrow((int(rng.integers(1, 3000)),), np.int64)
            array[...] = number
            borrowed.append((number, array))
    assert all((array == filled).all() for filled, array in borrowed)


def test_array_released_twice_is_borrowed_once() -> None:
    arena = Arena()
    first = arena.borrow((8, 8), np.float32)
    arena.release(first)
    arena.release(first)
    assert not np.shares_memory(arena.borrow((8, 8), np.float32), arena.borrow((8, 8), np.float32))


def test_trim_frees_what_is_not_borrowed() -> None:
    arena = Arena()
    kept, released = arena.borrow((1000,), np.uint8), arena.borrow((5000,), np.uint8)
    kept[:] = 7
    arena.release(released)
    assert arena.nbytes >= 6000
    arena.trim()
    assert 1000 <= arena.nbytes < 6000
    assert (kept == 7).all()


def test_slabs_are_smaller_where_there_is_no_address_space_for_large_ones() -> None:
    arena = Arena()
    arena.least_slab = 1 << 62
    assert arena.borrow((10,), np.float32).shape == (10,)
    assert arena.nbytes == ALIGNMENT
    with pytest.raises(MemoryError):
        arena.borrow((1 << 62,), np.uint8)
