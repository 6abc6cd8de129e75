"""Every error that Understudy raises on purpose.

    UnderstudyError
    ├── UserMistake       what the operator or member gave cannot be used; the message says what to do
    ├── ServiceTrouble    something we depend on failed; `permanent` says whether trying again can help
    │   └── Busy          too many at once; `retry_after_s` says when to come back
    └── Refused           a safety rule said no; `reason` is the sentence that people read

The first argument is always one sentence for a person. Only `infra/cli` and the HTTP edge turn them into exit codes
and status codes.
"""


class UnderstudyError(Exception):
    """Base of all errors whose message is meant for a person."""


class UserMistake(UnderstudyError):
    """Settings, arguments or files that cannot be used as they are."""


class ServiceTrouble(UnderstudyError):
    """A file system, model, index, broker or platform failed; where one voice did and not the whole, `voice` is it."""

    def __init__(self, message: str, *, permanent: bool = False, voice: str = "") -> None:
        super().__init__(message)
        self.permanent, self.voice = permanent, voice


class Busy(ServiceTrouble):
    """All places and the queue behind them are taken."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refused(UnderstudyError):
    """A rule that protects people or data declined to go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
