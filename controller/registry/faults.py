"""What the store may say, and what the client hears: the one table from StoreError to ApiError.

Called around every store call of the registry (and by the server for its reads). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.errors import (
    ApiError,
    Gone,
    ServiceUnavailable,
    Timeout,
    already_exists,
    conflict,
    not_found,
)
from api.errors import TooLarge as RequestTooLarge
from controller.registry.types import Target
from controller.store.types import (
    Compacted,
    GuardFailed,
    KeyExists,
    KeyMissing,
    StoreError,
    TooLarge,
    Unavailable,
    UnknownOutcome,
    VersionMismatch,
)

RETRY_AFTER_SECONDS = 1

Translate = Callable[[StoreError, Target], ApiError]


def _exists(error: StoreError, target: Target) -> ApiError:
    del error
    return already_exists(target.kind.group, target.kind.plural, target.name)


def _missing(error: StoreError, target: Target) -> ApiError:
    del error
    return not_found(target.kind.group, target.kind.plural, target.name)


def _changed(error: StoreError, target: Target) -> ApiError:
    if isinstance(error, VersionMismatch) and error.current is None:
        return _missing(error, target)
    return conflict(target.kind.group, target.kind.plural, target.name)


def _guard(error: StoreError, target: Target) -> ApiError:
    """A leadership that passed on, or a namespace that kept changing under the write."""
    del target
    return ServiceUnavailable(f"the write was not made: {error}", {"retryAfterSeconds": RETRY_AFTER_SECONDS})


def _too_large(error: StoreError, target: Target) -> ApiError:
    del error
    return RequestTooLarge(f'{target.kind.kind} "{target.name}" is too large to be stored: make it smaller or split it')


def _unavailable(error: StoreError, target: Target) -> ApiError:
    del target
    return ServiceUnavailable(
        f"nothing was written, the store cannot be used now: {error}", {"retryAfterSeconds": RETRY_AFTER_SECONDS}
    )


def _unknown(error: StoreError, target: Target) -> ApiError:
    del error
    return Timeout(
        f'the store did not say in time whether {target.kind.plural} "{target.name}" was written; read it, then retry',
        {"retryAfterSeconds": RETRY_AFTER_SECONDS},
    )


def _compacted(error: StoreError, target: Target) -> ApiError:
    del error, target
    return Gone("The resourceVersion for the provided list is too old.")


_TABLE: dict[type[StoreError], Translate] = {
    KeyExists: _exists,
    KeyMissing: _missing,
    VersionMismatch: _changed,
    GuardFailed: _guard,
    TooLarge: _too_large,
    Unavailable: _unavailable,
    UnknownOutcome: _unknown,
    Compacted: _compacted,
}


def api_error(error: StoreError, target: Target) -> ApiError:
    """The refusal that a store error becomes for a request about `target`."""
    return _TABLE[type(error)](error, target)


@contextmanager
def translated(target: Target) -> Iterator[None]:
    """Lets StoreErrors out of its block as ApiErrors."""
    try:
        yield
    except StoreError as error:
        raise api_error(error, target) from error
