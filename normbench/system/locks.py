"""Checks whether a process holds a lock, without write access to the lock file.

The locks are those of the operating system (`flock`), which filelock uses. The system
releases a lock when its process ends for any reason.
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
    """Return whether any process, also on another machine, holds the lock at `path`.

    Return False if the file does not exist or cannot be opened.
    """
    if fcntl is None:
        return _cannot_be_acquired(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # A shared lock is the only kind that NFS allows on a file that is open for
        # reading. Two processes that check at the same time do not block each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.ENOSYS:  # the file system has no `flock`
            return _cannot_be_acquired(path)
        # These errors mean that another process holds the lock.
        return error.errno in {errno.EWOULDBLOCK, errno.EACCES}
    finally:
        os.close(descriptor)
    return False


def _cannot_be_acquired(path: Path) -> bool:
    """Try to acquire the lock; return whether another process holds it."""
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
