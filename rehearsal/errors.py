"""The errors that the rehearsal's API answers with, beside moto's own."""

from moto.core.exceptions import ServiceException


class AwsError(ServiceException):  # type: ignore[misc]  # moto ships no types
    """An error as AWS would answer it. A subclass, for moto infers a service from the base class's module."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


class NotRehearsed(AwsError):
    """AWS would do this; the rehearsal cannot, and says so rather than pretend."""

    def __init__(self, what: str) -> None:
        super().__init__("NotRehearsed", f"the rehearsal does not know {what}: on AWS it may work")
