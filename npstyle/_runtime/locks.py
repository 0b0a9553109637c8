"""Locks on files, which end with the process that holds them, be it killed."""

from __future__ import annotations


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process has it locked.

    Parameters
    ----------
    descriptor : int
        Of the file, open for writing.
    wait : bool
        Until another process lets go of it.

    Returns
    -------
    bool
        True also where there are no locks: on Windows, and on some file systems.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
