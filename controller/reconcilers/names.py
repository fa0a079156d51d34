"""Names of children: derived, not drawn, so that a decision repeated on a stale view makes nothing twice.

`template_hash` names ReplicaSets, `child_names` their pods. Both look like Kubernetes' own (k8s.io/apimachinery
util/rand: an alphabet without vowels and look-alikes). Pure; imports only the standard library and orjson. Invariant:
the same owner, taken names and era give the same new names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import orjson

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH = 5
_LONGEST_BASE = 63 - SUFFIX_LENGTH
_TEN_DIGITS = 10**9
_LONGEST_SEED = blake2b.MAX_KEY_SIZE


def template_hash(template: Mapping[str, Any], collisions: int) -> str:
    """The pod-template-hash of a template: ten characters. `collisions` (status.collisionCount) gives another one."""
    text = orjson.dumps(template, option=orjson.OPT_SORT_KEYS) + b"#%d" % collisions
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    return spelled(str(_TEN_DIGITS + number % (9 * _TEN_DIGITS)))


def generate_base(owner_name: str) -> str:
    """metadata.generateName of a child."""
    return f"{owner_name}-"


def child_names(owner_name: str, owner_uid: str, taken: Collection[str], era: str = "") -> Iterator[str]:
    """The names of an owner's next children, without end: NAME-xxxxx for slots 0, 1, 2, ...

    A slot whose name is taken, by a child that lives, is going, or was seen to go, is passed over. So a create whose
    outcome is unknown is repeated under the same name, and succeeds at most once. Each `era` has other names: it
    changes when nobody remembers any more which children there were, so that no former name comes back.
    """
    base = generate_base(owner_name)[:_LONGEST_BASE]
    seed = f"{owner_uid}{era}".encode()
    if len(seed) > _LONGEST_SEED:
        seed = blake2b(seed).digest()
    given: set[str] = set()
    slot = 0
    while True:
        name = base + _suffix(seed, slot)
        slot += 1
        if name not in taken and name not in given:
            given.add(name)
            yield name


def _suffix(seed: bytes, slot: int) -> str:
    number = int.from_bytes(blake2b(b"%d" % slot, key=seed, digest_size=8).digest(), "big")
    letters = []
    for _ in range(SUFFIX_LENGTH):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters)


def spelled(digits: str) -> str:
    """Kubernetes' SafeEncodeString: each character becomes the alphabet's letter at its code modulo 27."""
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in digits)
