"""The wall around one task where there is no systemd: no socket but a Unix socket, no hold on another process.

With the wall "relay", the fallback for a CLI that cannot use a Unix socket, TCP and UDP sockets can be made as well:
then the container's network is what holds.

A seccomp filter and `no_new_privs` need no privilege and no namespace, so they work on Fargate, which allows neither.
Standard library and Debian's python3-seccomp (libseccomp's own binding) only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket

#: Calls that could reach another process, the kernel's own threads and keys, mounts, or outlive the task.
#: Docker's profile refuses many of them too; this list does not rely on it.
REFUSED = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"),
    *("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "fanotify_init"),
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "move_mount", "open_tree", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "open_by_handle_at", "name_to_handle_at"),
    *("shmget", "msgget", "semget", "mq_open"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff"),
    *("acct", "quotactl", "syslog", "settimeofday", "clock_settime", "sethostname", "setdomainname"),
)
#: Flags of clone(2) that make namespaces: CLONE_NEWTIME to CLONE_NEWNET. Source: sched.h.
_NAMESPACES = (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
#: Limits of one task: processes of its user, bytes of one file, open files, no core.
LIMITS = {
    resource.RLIMIT_NPROC: 256,
    resource.RLIMIT_FSIZE: 2 * 1024**3,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_CORE: 0,
}
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
#: The families of sockets that a task may make, by wall.
FAMILIES = {
    "unix": {socket.AF_UNIX},
    "relay": {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6},
}
#: One more than the families that kernels have. Source: AF_MAX of socket.h, with room.
_MOST_FAMILIES = 64


def confine(uid: int, wall: str = "unix") -> None:
    """Make this process, which is root's, one of user `uid` behind the `wall`, for good. Raise OSError."""
    for limit, most in LIMITS.items():
        resource.setrlimit(limit, (most, most))
    _drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _load_filter(FAMILIES[wall])


def _drop_bounding_set() -> None:
    """Drop every capability that a program could gain later."""
    for capability in range(64):
        if _prctl(_PR_CAPBSET_DROP, capability):
            if ctypes.get_errno() == errno.EINVAL:  # one more than this kernel has
                return
            raise OSError(ctypes.get_errno(), "the bounding set cannot be dropped")


def _prctl(option: int, value: int) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    return result


def _load_filter(families: set[socket.AddressFamily]) -> None:
    import seccomp  # Debian's, in the image

    # A foreign architecture, x32 included, has other numbers for its calls: such a call kills the process.
    wall = seccomp.SyscallFilter(seccomp.ALLOW)
    for call in REFUSED:
        wall.add_rule(seccomp.ERRNO(errno.EPERM), call)
    for flag in _NAMESPACES:
        wall.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    # Its flags are in memory, which a filter cannot read; libc falls back to clone.
    wall.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    for call in ("socket", "socketpair"):
        for family in set(range(_MOST_FAMILIES)) - families:
            wall.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), call, seccomp.Arg(0, seccomp.EQ, family))
        wall.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), call, seccomp.Arg(0, seccomp.GE, _MOST_FAMILIES))
    wall.load()
