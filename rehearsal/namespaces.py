"""Network namespaces of Linux: each has its own interfaces, addresses and ports, and is gone with its last holder.

They bear no name: a namespace lives as long as a descriptor of it, a socket or a process in it. Whatever ends them ends
it, kill -9 too, and its interfaces with it: nothing can be left to sweep up.
https://man7.org/linux/man-pages/man7/network_namespaces.7.html
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from rehearsal import processes

_NETWORK = 0x40000000  # CLONE_NEWNET
_MOUNTS = 0x00020000  # CLONE_NEWNS
_BIND, _RECURSIVE, _SLAVE = 0x1000, 0x4000, 0x80000  # MS_BIND, MS_REC, MS_SLAVE
_TOOLS = ("ip", "tc")


def obstacle() -> str:
    """Why this process can make none, and what to do ("": it can)."""
    if not processes.LINUX:
        return "network namespaces are Linux's: leave --link out here"
    if os.getuid() != 0:
        return "network namespaces need root: start it as root, or leave --link out"
    if missing := [tool for tool in _TOOLS if not shutil.which(tool)]:
        return f"{' and '.join(missing)} cannot be found: apt-get install iproute2"
    return ""


def new() -> int:
    """A descriptor of a namespace that nothing is in yet.

    Raises:
        OSError: the system refuses one.
    """
    with _home():
        _call("unshare", _NETWORK)
        return _current()


@contextmanager
def within(namespace: int) -> Iterator[None]:
    """Let this thread, and the processes and sockets that it makes meanwhile, be in a namespace.

    Raises:
        OSError: the system refuses it.
    """
    with _home():
        enter(namespace)
        yield


def enter(namespace: int) -> None:
    """Let this thread be in a namespace from now on.

    Raises:
        OSError: the system refuses it.
    """
    _call("setns", namespace, _NETWORK)


def see_own(hosts: str) -> None:
    """Let this process, which has entered a namespace, find that one's interfaces in /sys, and `hosts` as /etc/hosts.

    As `ip netns exec` does it, with the control groups kept in sight.

    Raises:
        OSError: the system refuses it.
    """
    _call("unshare", _MOUNTS)
    _call("mount", b"none", b"/", None, _RECURSIVE | _SLAVE, None)
    groups = _open("/sys/fs/cgroup", os.O_PATH) if os.path.ismount("/sys/fs/cgroup") else None
    _call("mount", b"sysfs", b"/sys", b"sysfs", 0, None)
    if groups is not None:
        _call("mount", f"/proc/self/fd/{groups}".encode(), b"/sys/fs/cgroup", None, _BIND | _RECURSIVE, None)
        os.close(groups)
    _call("mount", hosts.encode(), b"/etc/hosts", None, _BIND, None)


def order(tool: str, lines: list[str]) -> None:
    """Give `ip` or `tc` these lines, in this thread's namespace.

    Raises:
        OSError: it refuses one.
    """
    assert tool in _TOOLS
    said = subprocess.run([tool, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if said.returncode:
        refused = (said.stderr or said.stdout).strip().splitlines()
        raise OSError(f"{tool} refuses {' and '.join(lines)}: {refused[0] if refused else said.returncode}")


@contextmanager
def _home() -> Iterator[None]:
    home = _current()
    try:
        yield
    finally:
        enter(home)
        os.close(home)


def _current() -> int:
    return _open("/proc/thread-self/ns/net", os.O_RDONLY)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC)


def _call(name: str, *given: object) -> None:
    """A call of the C library's that Python 3.11 has not."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*given) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
