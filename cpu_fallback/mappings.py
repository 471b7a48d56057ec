"""Compiled functions that allocate, free and replace the mappings of large arrays.

They keep a table of these in an array of words, the state, which `LargeArrays` makes. NumPy calls
these functions for every array, so no Python runs within them. They run with the GIL.
"""

from __future__ import annotations

import functools
import mmap
from typing import Any

import numba
import numpy as np
from numba import types

LARGE_BYTES = 1 << 20  # a smaller array is the C library's
_PAGE = 4096
_ROUNDING = 1 << 16  # of the sizes of mappings, bytes
# Those of so many bytes are rounded to huge pages: Linux then lets them begin at one.
_HUGE_BYTES, _HUGE_ROUNDING = 1 << 24, 1 << 21
_FIT_SHIFT = 2  # a spare mapping serves arrays down to 3 quarters of its size
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", 14)
_PROTECTION = 3  # read and write
_SHARED, _ANONYMOUS = 1, 0x22  # MAP_SHARED; MAP_PRIVATE | MAP_ANONYMOUS, of Linux
_PRIVATE = 0x4002  # MAP_PRIVATE | MAP_NORESERVE
_MAY_MOVE, _REPLACING, _REMOVE = 1, 3, 9  # MREMAP_MAYMOVE, with MREMAP_FIXED; MADV_REMOVE
TEMPLATE = "large-array-XXXXXX"  # of the name that a file has until it is opened

# Words of the state, int64, behind which the mappings and the files' template follow.
LIMIT = 0  # bytes of anonymous memory in large arrays
ERROR = 1  # errno of the last file that could not be made, 0 for none
LIVE, SPARE, PEAK = 2, 4, 6  # bytes: of anonymous memory, and in the next word of files
_N_USED = 8  # mappings in the table, free places among them
_N_SAVED, N_MAPPED = 9, 10  # arrays that were saved, and those of them that got a file's pages
_FIRST = 16
N_PLACES = 1024  # of mappings; more large arrays are the C library's
_ADDRESS, _BYTES, _STATE, _COUNTED = 0, 1, 2, 3  # words of a mapping; those that are in `LIVE`
# Of one that was saved: 1 + the file's descriptor, where it begins there, how much, and its turn.
_SAVED_FILE, _SAVED_AT, _SAVED_BYTES, _SAVED_TURN = 4, 5, 6, 7
_WIDTH = 8
_FREE, _IS_LIVE, _IS_SPARE = 0, 1, 3  # states of a mapping in memory; of one in a file: plus 1
_IS_MAPPED = 5  # live, with the pages of the file that it was saved to; plus 1 as above
TEMPLATE_AT = _FIRST + N_PLACES * _WIDTH
TEMPLATE_WORDS = 512

_word, _size = types.int64, types.uintp
_c_malloc = types.ExternalFunction("malloc", _word(_size))
_c_calloc = types.ExternalFunction("calloc", _word(_size, _size))
_c_realloc = types.ExternalFunction("realloc", _word(_word, _size))
_c_free = types.ExternalFunction("free", types.void(_word))
_c_memset = types.ExternalFunction("memset", _word(_word, types.int32, _size))
_c_memcpy = types.ExternalFunction("memcpy", _word(_word, _word, _size))
_c_mmap = types.ExternalFunction(
    "mmap", _word(_word, _size, types.int32, types.int32, types.int32, _word)
)
_c_munmap = types.ExternalFunction("munmap", types.int32(_word, _size))
_c_mremap = types.ExternalFunction("mremap", _word(_word, _size, _size, types.int32, _word))
_c_madvise = types.ExternalFunction("madvise", types.int32(_word, _size, types.int32))
_c_mkstemp = types.ExternalFunction("mkstemp", types.int32(_word))
_c_unlink = types.ExternalFunction("unlink", types.int32(_word))
_c_close = types.ExternalFunction("close", types.int32(types.int32))
_c_fsync = types.ExternalFunction("fsync", types.int32(types.int32))
_c_fallocate = types.ExternalFunction("posix_fallocate", types.int32(types.int32, _word, _word))

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}


@numba.njit(**_OPTIONS)
def _find(state, address):
    """Return where the table has the live mapping at an address, -1 where it is none."""
    if address & (_PAGE - 1):
        return -1
    for place in range(state[_N_USED]):
        at = _FIRST + place * _WIDTH
        is_live = 0 < state[at + _STATE] < _IS_SPARE or state[at + _STATE] >= _IS_MAPPED
        if is_live and state[at + _ADDRESS] == address:
            return at
    return -1


@numba.njit(**_OPTIONS)
def _find_spare(state, n_bytes, is_file):
    """Return where the table has the smallest spare mapping that fits, -1 for none."""
    best, most = -1, n_bytes + n_bytes // ((1 << _FIT_SHIFT) - 1)
    for place in range(state[_N_USED]):
        at = _FIRST + place * _WIDTH
        if state[at + _STATE] == _IS_SPARE + is_file and n_bytes <= state[at + _BYTES] <= most:
            best, most = at, state[at + _BYTES] - 1
    return best


@numba.njit(**_OPTIONS)
def _unmap_spare(state, is_file, room):
    """Unmap spare mappings until they have at most `room` bytes."""
    for place in range(state[_N_USED]):
        at = _FIRST + place * _WIDTH
        if state[SPARE + is_file] > room and state[at + _STATE] == _IS_SPARE + is_file:
            _c_munmap(state[at + _ADDRESS], state[at + _BYTES])
            state[SPARE + is_file] -= state[at + _BYTES]
            state[at + _STATE] = _FREE


@numba.njit(**_OPTIONS)
def _map(state, n_bytes, is_file):
    """Return the address of a new mapping, 0 where there is none."""
    if not is_file:
        address = _c_mmap(0, n_bytes, _PROTECTION, _ANONYMOUS, -1, 0)
        if address != -1:
            _c_madvise(address, n_bytes, _HUGE_PAGES)
        return 0 if address == -1 else address
    # mkstemp has overwritten the last six characters of the name before.
    template = state.ctypes.data + TEMPLATE_AT * 8
    name = state[TEMPLATE_AT:].view(np.uint8)
    end = 0
    while name[end] != 0:
        end += 1
    for place in range(end - 6, end):
        name[place] = 88  # X
    file = _c_mkstemp(template)
    if file < 0:
        state[ERROR] = -1
        return 0
    _c_unlink(template)
    # Reserved: writing to a page that the disk has no room for would end the process.
    error = _c_fallocate(file, 0, n_bytes)
    address = -1
    if error == 0:
        address = _c_mmap(0, n_bytes, _PROTECTION, _SHARED, file, 0)
    else:
        state[ERROR] = error
    _c_close(file)
    return 0 if address == -1 else address


@numba.njit(**_OPTIONS)
def _take_place(state):
    """Return a free place of the table, -1 where it is full."""
    for place in range(N_PLACES):
        at = _FIRST + place * _WIDTH
        if state[at + _STATE] == _FREE:
            state[_N_USED] = max(state[_N_USED], place + 1)
            return at
    return -1


@numba.njit(**_OPTIONS)
def _forget_saved(state, at):
    """Close the file that a mapping was saved to, if any."""
    if state[at + _SAVED_FILE]:
        _c_close(state[at + _SAVED_FILE] - 1)
        state[at + _SAVED_FILE] = 0


@numba.njit(**_OPTIONS)
def _replace_pages(state, at):
    """Put the pages of the file that a mapping was saved to in place of its own, if possible.

    The part of a page at the end, and what lies behind it, stay what they are.
    """
    address, n_bytes = state[at + _ADDRESS], state[at + _SAVED_BYTES]
    file, is_file = state[at + _SAVED_FILE] - 1, state[at + _STATE] - _IS_LIVE
    source = -1
    if _c_fsync(file) == 0:  # what the disk does not take stays in memory
        source = _c_mmap(0, n_bytes, _PROTECTION, _PRIVATE, file, state[at + _SAVED_AT])
    _forget_saved(state, at)
    if source == -1:
        return
    # The pages are reached by another address, so that readers of this one never miss them.
    alias = _c_mremap(address, 0, n_bytes, _MAY_MOVE, 0) if is_file else -1
    is_replaced = _c_mremap(source, n_bytes, n_bytes, _REPLACING, address) != -1
    if alias != -1:
        if is_replaced:
            _c_madvise(alias, n_bytes, _REMOVE)  # frees the disk, where the file system can
        _c_munmap(alias, n_bytes)
    if not is_replaced:
        _c_munmap(source, n_bytes)
        return
    state[LIVE + is_file] -= n_bytes
    state[at + _COUNTED] -= n_bytes
    state[at + _STATE] = _IS_MAPPED + is_file
    state[N_MAPPED] += 1


@numba.njit(**_OPTIONS)
def _count_saved(state):
    """Return the bytes of memory of arrays that were saved."""
    n_bytes = 0
    for place in range(state[_N_USED]):
        at = _FIRST + place * _WIDTH
        if state[at + _STATE] == _IS_LIVE and state[at + _SAVED_FILE] != 0:
            n_bytes += state[at + _SAVED_BYTES]
    return n_bytes


@numba.njit(**_OPTIONS)
def _make_room(state, most):
    """Replace the pages of saved arrays until at most so many bytes of memory are in arrays.

    Nothing is done where all of them would not suffice.
    """
    if state[LIVE] - _count_saved(state) > most:
        return
    while state[LIVE] > most:
        first = -1
        for place in range(state[_N_USED]):
            at = _FIRST + place * _WIDTH
            is_saved = state[at + _STATE] == _IS_LIVE and state[at + _SAVED_FILE] != 0
            if is_saved and (first < 0 or state[at + _SAVED_TURN] < state[first + _SAVED_TURN]):
                first = at
        if first < 0:
            return
        _replace_pages(state, first)


@numba.njit(**_OPTIONS)
def _allocate(context, size, is_zero):
    """Return the address of `size` bytes, 0 where there are none."""
    if size < LARGE_BYTES:
        return _c_calloc(size, 1) if is_zero else _c_malloc(size)
    state = numba.carray(context, TEMPLATE_AT + TEMPLATE_WORDS, np.int64)
    rounding = np.int64(_ROUNDING if size < _HUGE_BYTES else _HUGE_ROUNDING)
    n_bytes = (np.int64(size) + rounding - 1) // rounding * rounding
    _make_room(state, state[LIMIT] - n_bytes)
    is_file = 1 if state[LIVE] + n_bytes > state[LIMIT] else 0
    at = _find_spare(state, n_bytes, is_file)
    if at >= 0:
        state[SPARE + is_file] -= state[at + _BYTES]
        if is_zero:
            _c_memset(state[at + _ADDRESS], 0, size)
    else:
        at = _take_place(state)
        if at < 0:
            return _c_calloc(size, 1) if is_zero else _c_malloc(size)
        _unmap_spare(
            state, is_file, max(0, state[PEAK + is_file] - state[LIVE + is_file] - n_bytes)
        )
        address = _map(state, n_bytes, is_file)
        if address == 0:
            return 0
        state[at + _ADDRESS], state[at + _BYTES] = address, n_bytes
    state[at + _STATE], state[at + _COUNTED] = _IS_LIVE + is_file, state[at + _BYTES]
    state[LIVE + is_file] += state[at + _BYTES]
    state[PEAK + is_file] = max(state[PEAK + is_file], state[LIVE + is_file])
    return state[at + _ADDRESS]


@numba.njit(**_OPTIONS)
def _release(context, address):
    """Keep the mapping at an address, or hand the address to the C library."""
    state = numba.carray(context, TEMPLATE_AT + TEMPLATE_WORDS, np.int64)
    at = _find(state, address)
    if at < 0:
        _c_free(address)
        return
    _forget_saved(state, at)
    if state[at + _STATE] >= _IS_MAPPED:
        _c_munmap(address, state[at + _BYTES])
        state[LIVE + state[at + _STATE] - _IS_MAPPED] -= state[at + _COUNTED]
        state[at + _STATE] = _FREE
        return
    is_file = state[at + _STATE] - _IS_LIVE
    state[at + _STATE] = _IS_SPARE + is_file
    state[LIVE + is_file] -= state[at + _BYTES]
    state[SPARE + is_file] += state[at + _BYTES]


@numba.njit(**_OPTIONS)
def _resize(context, address, size):
    """Return the address of `size` bytes that begin with those at an address."""
    state = numba.carray(context, TEMPLATE_AT + TEMPLATE_WORDS, np.int64)
    at = _find(state, address)
    if at < 0:
        return _c_realloc(address, size)
    _forget_saved(state, at)  # it may be written to
    if size <= state[at + _BYTES]:
        return address
    target = _allocate(context, size, False)
    if target != 0:
        _c_memcpy(target, address, state[at + _BYTES])
        _release(context, address)
    return target


@numba.njit(cache=True)  # with the GIL, as those that follow: another thread may allocate
def note_saved(state, address, size, file, offset):
    """Note the file that a mapping was saved to; return whether there is such a mapping.

    One that is a file already gets the other's pages at once: the disk need not hold both.
    """
    at, n_bytes = _find(state, address), size // _PAGE * _PAGE
    if at < 0 or state[at + _STATE] >= _IS_MAPPED or state[at + _SAVED_FILE] or n_bytes == 0:
        return False
    state[_N_SAVED] += 1
    state[at + _SAVED_FILE], state[at + _SAVED_AT] = file + 1, offset
    state[at + _SAVED_BYTES], state[at + _SAVED_TURN] = n_bytes, state[_N_SAVED]
    if state[at + _STATE] != _IS_LIVE:
        _replace_pages(state, at)
    return True


@numba.njit(cache=True)
def release_saved(state, n_bytes):
    """Replace the pages of saved arrays until so many bytes of memory are free, or of all."""
    _make_room(state, state[LIVE] - min(n_bytes, _count_saved(state)))


@numba.njit(cache=True)
def unmap_all_spare(state):
    """Unmap the spare mappings of both kinds."""
    for is_file in range(2):
        _unmap_spare(state, is_file, 0)


@numba.njit(cache=True)
def forget_all_saved(state):
    """Close the files that mappings were saved to."""
    for place in range(state[_N_USED]):
        _forget_saved(state, _FIRST + place * _WIDTH)


def compile_functions() -> tuple[Any, ...]:
    """Return malloc, calloc, realloc and free of the handler, compiled."""
    context, cfunc = types.voidptr, functools.partial(numba.cfunc, cache=True)
    return tuple(
        cfunc(signature)(function)
        for signature, function in (
            (_word(context, _size), _handle_malloc),
            (_word(context, _size, _size), _handle_calloc),
            (_word(context, _word, _size), _handle_realloc),
            (types.void(context, _word, _size), _handle_free),
        )
    )


def _handle_malloc(context, size):
    return _allocate(context, size, False)


def _handle_calloc(context, n, size):
    return _allocate(context, n * size, True)


def _handle_realloc(context, address, size):
    return _resize(context, address, size)


def _handle_free(context, address, size):
    _release(context, address)
