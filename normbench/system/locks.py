"""Tells whether a process holds a lock, without write access.

The lock is that of the operating system (`flock`, as filelock uses it): it ends with
the process, however the process ends.
"""

import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def is_held(path: Path) -> bool:
    """Whether a process, here or elsewhere, of any user, holds the lock at `path`.

    False if the file does not exist or cannot be opened.
    """
    if fcntl is None:
        return _cannot_be_taken(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared: NFS allows no other lock on a file that is open for reading, and two
        # processes that ask at once do not block each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return _cannot_be_taken(path)
        return error.errno in {errno.EWOULDBLOCK, errno.EACCES}
    finally:
        os.close(descriptor)
    return False


def _cannot_be_taken(path: Path) -> bool:
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
