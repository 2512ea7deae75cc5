"""Why a resource failed, in the words that CloudFormation puts into ResourceStatusReason."""

from botocore.exceptions import ClientError, ParamValidationError

_HANDLER_CODES = (
    ("NotFound", "NotFound"), ("NoSuch", "NotFound"), ("AlreadyExists", "AlreadyExists"),
    ("Duplicate", "AlreadyExists"), ("LimitExceeded", "ServiceLimitExceeded"), ("Denied", "AccessDenied"),
    ("Unauthorized", "AccessDenied"), ("InsufficientInstanceCapacity", "InsufficientCapacity"),
)  # fmt: skip


class Refused(Exception):
    """The rehearsal cannot do what the template asks; the text names type and property."""


class Cancelled(Exception):
    """A deletion overtook the creation."""


class Failed(Exception):
    """A resource failed and its event is told; the text is the reason for the stack as a whole."""


def failed_to(verb: str, *names: str) -> str:
    """The stack's reason, for example "The following resource(s) failed to create: [Node0]. "."""
    return f"The following resource(s) failed to {verb}: [{', '.join(names)}]. "


def reason(error: Exception) -> str:
    """The resource's reason. An API's refusal keeps its own message and code."""
    if isinstance(error, ClientError):
        found = error.response["Error"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        code = found.get("Code", "Unknown")
        where = f"Operation: {error.operation_name}; Status Code: {status}; Error Code: {code}"
        return _from_handler(f"{found.get('Message', '')} ({where})", _handler_code(code, status))
    if isinstance(error, ParamValidationError):
        return _from_handler(f"Model validation failed ({error})", "InvalidRequest")
    return str(error)


def _from_handler(text: str, code: str) -> str:
    return f'Resource handler returned message: "{text}" (HandlerErrorCode: {code})'


def _handler_code(code: str, status: int) -> str:
    for part, answer in _HANDLER_CODES:
        if part in code:
            return answer
    return "ServiceInternalError" if status >= 500 else "InvalidRequest"
