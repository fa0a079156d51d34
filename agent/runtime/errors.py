"""What can go wrong between the agent and its container runtime.

    RuntimeFault
    ├── NotFound          the sandbox, container or image does not exist
    ├── AlreadyExists     name and attempt are taken, by a half-made object of an earlier call
    ├── InvalidConfig     the runtime refuses the request as it is; asking again changes nothing
    ├── Failed            the runtime tried and could not: bad command, mount, network plug-in
    ├── ImageMissing      the image is not on this node
    ├── ImagePullFailed   the registry's own words are in the message
    ├── Unavailable       the runtime does not answer; nothing was done (retryable)
    └── Timeout           no answer in time; the outcome is unknown (retryable)

Raised by every implementation of `protocol.Runtime`, caught by the pod workers. `message` is one sentence that may be
shown to a user in an event. Imports nothing.
"""

from __future__ import annotations

from typing import ClassVar


class RuntimeFault(Exception):
    """The root of the family; ask `retryable`, not the class, to decide whether asking again may help soon."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(RuntimeFault):
    """No such sandbox, container or image."""


class AlreadyExists(RuntimeFault):
    """The name (pod, container, attempt) is taken: list, then remove or adopt what holds it."""


class InvalidConfig(RuntimeFault):
    """The request can never succeed as it is."""


class Failed(RuntimeFault):
    """The runtime tried and failed; the message is the runtime's own."""


class ImageMissing(RuntimeFault):
    """The image has to be pulled or loaded first."""


class ImagePullFailed(RuntimeFault):
    """The pull was refused or broke off; the message is the registry's own."""


class Unavailable(RuntimeFault):
    """The runtime does not answer (restarting?); the call had no effect."""

    retryable = True


class Timeout(RuntimeFault):
    """No answer within the deadline; the call may still take effect."""

    retryable = True
