"""The pause program and its image, made here byte by byte, so that no registry is needed to start a pod.

The program is process 1 of a sandbox (and of the pod, with shareProcessNamespace): it does nothing, buries orphans, and
ends at once on SIGTERM or SIGINT. The three signals are blocked, which also keeps the kernel from discarding them for
process 1, and taken one by one:

    rt_sigprocmask(SIG_BLOCK, {INT, TERM, CHLD})
    loop: rt_sigtimedwait(same set, no info, no timeout)
          SIGCHLD -> wait4(any, WNOHANG) until nothing is left; SIGINT, SIGTERM -> exit(0); interrupted -> again

Called by `containerd` at start. Pure except `write_pause_image`; imports only the standard library and `oci`.
Formats: elf(5), Intel SDM vol. 2, Arm ARM (A64), and each architecture's system call table.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from agent.runtime.oci import Entry, machine_architecture, write_archive

_BASE = 0x400000
_HEADERS = 64 + 56  # one ELF header, one program header
_SIGNALS = (1 << (2 - 1)) | (1 << (15 - 1)) | (1 << (17 - 1))  # SIGINT, SIGTERM, SIGCHLD
_SIGCHLD = 17
_MACHINES = {"amd64": 62, "arm64": 183}


def pause_elf(architecture: str) -> bytes:
    """The static executable for `amd64` or `arm64`; ValueError for another machine."""
    if architecture not in _MACHINES:
        raise ValueError(f"no pause program for {architecture} machines (known: {', '.join(_MACHINES)})")
    code = _amd64_code() if architecture == "amd64" else _arm64_code()
    size = _HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1, System V
        2,  # ET_EXEC
        _MACHINES[architecture],
        1,
        _BASE + _HEADERS,  # entry point
        64,  # program headers follow at once
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # PT_LOAD, read + execute
    return header + segment + code


def _amd64_code() -> bytes:
    take = (
        b"\x48\x89\xe7"  # mov rdi, rsp: the set
        b"\x31\xf6"  # xor esi, esi: no info
        b"\x31\xd2"  # xor edx, edx: no timeout
        b"\x41\xba\x08\x00\x00\x00"  # mov r10d, 8: size of the set
        b"\xb8\x80\x00\x00\x00"  # mov eax, 128: rt_sigtimedwait
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
    )
    reap = (
        b"\x83\xcf\xff"  # or edi, -1: any child
        b"\x31\xf6"  # xor esi, esi: its status is of no interest
        b"\xba\x01\x00\x00\x00"  # mov edx, 1: WNOHANG
        b"\x45\x31\xd2"  # xor r10d, r10d: nor is its usage
        b"\xb8\x3d\x00\x00\x00"  # mov eax, 61: wait4
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
    )
    leave = (
        b"\x31\xff"  # xor edi, edi
        b"\xb8\xe7\x00\x00\x00"  # mov eax, 231: exit_group
        b"\x0f\x05"  # syscall
    )
    start = (
        b"\x68" + struct.pack("<I", _SIGNALS) +  # push the set
        b"\x31\xff"  # xor edi, edi: SIG_BLOCK
        b"\x48\x89\xe6"  # mov rsi, rsp
        b"\x31\xd2"  # xor edx, edx: the old set is of no interest
        b"\x41\xba\x08\x00\x00\x00"  # mov r10d, 8
        b"\xb8\x0e\x00\x00\x00"  # mov eax, 14: rt_sigprocmask
        b"\x0f\x05"  # syscall
    )  # fmt: skip
    # take; js take; cmp eax, SIGCHLD; jne leave; reap; jg reap; jmp take; leave
    after_take = 2 + 3 + 2
    back_to_reap = -(len(reap) + 2)
    back_to_take = -(len(take) + after_take + len(reap) + 2 + 2)
    return (
        start
        + take
        + b"\x78"
        + struct.pack("<b", -(len(take) + 2))
        + b"\x83\xf8"
        + struct.pack("<B", _SIGCHLD)
        + b"\x75"
        + struct.pack("<b", len(reap) + 4)
        + reap
        + b"\x7f"
        + struct.pack("<b", back_to_reap)
        + b"\xeb"
        + struct.pack("<b", back_to_take)
        + leave
    )


def _arm64_code() -> bytes:
    words = [
        _movz(0, _SIGNALS & 0xFFFF),
        0xF2A00000 | (_SIGNALS >> 16) << 5,  # movk x0, high half, lsl 16
        0xF81F0FE0,  # str x0, [sp, #-16]!
        _movz(0, 0),  # SIG_BLOCK
        0x910003E1,  # mov x1, sp
        _movz(2, 0),
        _movz(3, 8),
        _movz(8, 135),  # rt_sigprocmask
        _SVC,
        # take:
        0x910003E0,  # mov x0, sp
        _movz(1, 0),
        _movz(2, 0),
        _movz(3, 8),
        _movz(8, 137),  # rt_sigtimedwait
        _SVC,
        0xF100001F,  # cmp x0, 0
        _branch_if(_LT, -7),  # interrupted: take
        0xF100001F | _SIGCHLD << 10,  # cmp x0, SIGCHLD
        _branch_if(_NE, 10),  # leave
        # reap:
        0x92800000,  # mov x0, -1
        _movz(1, 0),
        _movz(2, 1),  # WNOHANG
        _movz(3, 0),
        _movz(8, 260),  # wait4
        _SVC,
        0xF100001F,  # cmp x0, 0
        _branch_if(_GT, -7),  # reap
        0x14000000 | (-18 & 0x3FFFFFF),  # b take
        # leave:
        _movz(0, 0),
        _movz(8, 94),  # exit_group
        _SVC,
    ]
    return struct.pack(f"<{len(words)}I", *words)


_SVC = 0xD4000001
_NE, _LT, _GT = 1, 11, 12


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


def _branch_if(condition: int, words: int) -> int:
    return 0x54000000 | (words & 0x7FFFF) << 5 | condition


def pause_image_name() -> str:
    """The image's full name; its tag follows from the program, so another program is another image."""
    return f"localhost/wherry-pause:{hashlib.sha256(pause_elf(machine_architecture())).hexdigest()[:12]}"


def write_pause_image(path: Path) -> None:
    """Write the sandbox image of this machine as an OCI archive."""
    elf = pause_elf(machine_architecture())
    write_archive(path, pause_image_name(), [Entry("pause", elf)], {"Entrypoint": ["/pause"], "User": "65535:65535"})
