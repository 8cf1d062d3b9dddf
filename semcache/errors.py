"""Everything that semcache raises on its own account.

::

    SemcacheError
    ├── ConfigurationError      wrong arguments, a bad policy file: raised when the object is built
    │   └── MissingExtraError   an optional dependency is needed; the message names the extra
    ├── InputError              a bad line in a log or file given to a command (CLI exit code 2)
    ├── BudgetExceeded          a budget is used up: the call was not made
    ├── CanonicalError          a request that has no canonical form (NaN, a non-JSON value): it is bypassed
    └── CacheTrouble            never reaches a caller of a wrapped client: a miss and an event instead
        ├── StoreError          a store failed or ran over its time budget
        │   └── StoreUnavailable    its circuit breaker is open; nothing was tried
        ├── EntryDamaged        stored bytes that cannot be read as an entry of this version
        ├── EmbedderError       the embedder failed or ran over its time budget
        │   └── EmbedderUnavailable it did so a moment ago; nothing was tried
        ├── VectorIndexError       the vector index failed
        └── VerifierError       the verifier failed, or too many pairs wait for it

A provider's exception is none of these: it reaches the caller as the same object.
"""

from __future__ import annotations


class SemcacheError(Exception):
    """Base of every error that semcache raises on its own account."""


class ConfigurationError(SemcacheError, ValueError):
    """The cache was built with arguments that cannot work."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is missing.

    Args:
        package: The import that failed.
        extra: The extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'semcache-llm[{extra}]'")
        self.package = package
        self.extra = extra


class InputError(SemcacheError, ValueError):
    """A file given to a command holds something that cannot be used.

    Args:
        message: What is wrong and what to do.
        path: The file, if there is one.
        line: 1-based line number, if there is one.
    """

    def __init__(self, message: str, *, path: str | None = None, line: int | None = None) -> None:
        where = "" if path is None else path if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {message}" if where else message)
        self.path = path
        self.line = line


class CanonicalError(SemcacheError, ValueError):
    """A request that has no canonical form, so it can be neither keyed nor compared."""


class BudgetExceeded(SemcacheError):
    """A :class:`~semcache.money.budgets.Budget` is used up, nothing stored answers, and the call was not made.

    Args:
        message: Which budget, and what is spent.
        cache_only: The budget says ``on_exceed="cache-only"``.
    """

    def __init__(self, message: str, *, cache_only: bool = False) -> None:
        super().__init__(message)
        self.cache_only = cache_only


class CacheTrouble(SemcacheError):
    """The cache could not do its part; the call goes upstream."""


class StoreError(CacheTrouble):
    """A store failed, or ran over its time budget."""


class StoreUnavailable(StoreError):
    """The store's circuit breaker is open: nothing was tried."""


class EntryDamaged(CacheTrouble):
    """Stored bytes that are torn, corrupt, or of a format that this version does not read."""


class EmbedderError(CacheTrouble):
    """The embedder failed, or ran over its time budget."""


class EmbedderUnavailable(EmbedderError):
    """The embedder stalled or failed a moment ago: nothing was tried."""


class VectorIndexError(CacheTrouble):
    """The vector index failed."""


class VerifierError(CacheTrouble):
    """The verifier failed, was late, or gave no probability."""
