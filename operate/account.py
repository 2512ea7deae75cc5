"""One AWS account and region as the verbs see it: clients, and its clock.

Honours what every AWS tool honours: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_REGION, shared configuration.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any

import botocore.exceptions as failed

from operate.problem import Problem

_LOGIN = (
    "run `aws configure` or `aws sso login`, or export AWS_PROFILE; "
    'with no account: fab rehearsal.start && eval "$(fab rehearsal.env)"'
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_REJECTED = {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
             "InvalidAccessKeyId"}  # fmt: skip
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"}
_ACTION = re.compile(r"perform:? ([\w-]+:\w+)")


class Account:
    """Clients of one account and region, made once each, and the account's own time.

    Raises:
        Problem: no region is configured.
    """

    def __init__(self, region: str = "", *, beside: "Account | None" = None) -> None:
        """`region`: another one than the shell is set to. `beside`: an account whose session it shares.

        A session reads AWS's descriptions of its services once, which takes a second; a region's clients then take a
        tenth of one.
        """
        import boto3  # here, and not above: half of what `fab --list` would take

        self._session: Any = beside._session if beside else boto3.Session()
        region = region or os.environ.get("AWS_REGION") or self._session.region_name or ""
        if not region:
            raise Problem("no AWS region is set", "export AWS_REGION=us-east-1, or run `aws configure`")
        self.region: str = region
        """For example "us-east-1"."""
        self.endpoint: str | None = os.environ.get("AWS_ENDPOINT_URL") or None
        """Where the API is asked instead of AWS, for example by a rehearsal; None on AWS."""
        self._clients: dict[tuple[str, str], Any] = {}
        self._offset: timedelta | None = None
        self._lock: Any = beside._lock if beside else Lock()  # a session makes one client at a time

    def client(self, service: str, region: str = "") -> Any:
        """The boto3 client of `service`, made on first use; safe to call from several threads.

        `region`: another one than the account's, for a service that is not everywhere.

        Raises:
            Problem: there are no credentials.
        """
        from botocore.config import Config

        with self._lock:
            key = (service, region or self.region)
            if key not in self._clients:
                self.credentials()
                self._clients[key] = self._session.client(
                    service,
                    region_name=key[1],
                    endpoint_url=self.endpoint,
                    config=Config(
                        retries={"mode": "standard", "total_max_attempts": 4},
                        connect_timeout=10,
                        read_timeout=60,
                        user_agent_extra="rooflab",
                    ),
                )
            return self._clients[key]

    def credentials(self) -> Any:
        """botocore's credentials, which renew themselves.

        Raises:
            Problem: there are none.
        """
        try:
            credentials = self._session.get_credentials()
        except failed.BotoCoreError as error:  # a profile that needs a login, or is broken
            raise explain(error) from error
        if credentials is None:
            raise explain(failed.NoCredentialsError())
        return credentials

    def now(self) -> datetime:
        """The account's time, aware UTC: the Date header of its own answers, asked once and then carried on.

        Money and deadlines count on this clock, never on the laptop's.
        """
        if self._offset is None:
            self.observe(self.client("sts").get_caller_identity())
        assert self._offset is not None
        return datetime.now(UTC) + self._offset

    def observe(self, response: dict[str, Any]) -> None:
        """Set the clock by the Date header of `response`, any answer of boto3's."""
        header = response["ResponseMetadata"]["HTTPHeaders"].get("date")
        if header:
            self._offset = parsedate_to_datetime(header).astimezone(UTC) - datetime.now(UTC)
        elif self._offset is None:
            raise Problem("the AWS endpoint sends no Date header", "without the account's time no cost can be told")


def explain(error: failed.BotoCoreError | failed.ClientError) -> Problem:
    """What botocore's `error` means to a user, with the remedy."""
    if isinstance(error, failed.NoCredentialsError | failed.PartialCredentialsError):
        return Problem("no AWS credentials were found", _LOGIN)
    if isinstance(error, failed.ProfileNotFound):
        return Problem(str(error), "correct AWS_PROFILE, or run `aws configure --profile NAME`")
    if isinstance(error, failed.NoRegionError):
        return Problem("no AWS region is set", "export AWS_REGION=us-east-1, or run `aws configure`")
    if isinstance(error, failed.SSOError | failed.CredentialRetrievalError | failed.TokenRetrievalError):
        return Problem(f"AWS credentials could not be had ({error})", _LOGIN)
    if isinstance(error, failed.ConnectionError | failed.HTTPClientError):
        asked = os.environ.get("AWS_ENDPOINT_URL")
        remedy = (
            "is the rehearsal up? fab rehearsal.status; to leave it: unset AWS_ENDPOINT_URL"
            if asked
            else "check the network and AWS_REGION, then try again"
        )
        return Problem(f"{asked or 'AWS'} does not answer ({type(error).__name__})", remedy)
    if isinstance(error, failed.ClientError):
        return _refusal(error)
    return Problem(f"AWS could not be asked ({type(error).__name__}: {error})", "see `aws configure list`")


def _refusal(error: failed.ClientError) -> Problem:
    code = error.response.get("Error", {}).get("Code", "")
    message = error.response.get("Error", {}).get("Message", "")
    operation = error.operation_name
    if code in _EXPIRED:
        return Problem("the AWS credentials have expired", _LOGIN)
    if code in _REJECTED:
        return Problem(f"AWS does not accept these credentials ({code})", _LOGIN)
    if code in _DENIED:
        named = _ACTION.search(message)
        return Problem(
            f"AWS denies {named[1] if named else operation} to these credentials",
            "ask the account's administrator for that permission, or choose another AWS_PROFILE",
        )
    if code in ("Throttling", "RequestLimitExceeded", "ThrottlingException"):
        return Problem(f"AWS throttles {operation}", "wait a minute and try again")
    return Problem(f"AWS refused {operation} ({code}: {message})", "correct what it names and try again")
