"""User data is read as cloud-init reads it."""

import base64
import gzip
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from rehearsal.cloudinit import parse

CONFIG = "#cloud-config\nssh_authorized_keys:\n  - ssh-ed25519 AAAA one\n"


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _multipart(config: str = CONFIG) -> bytes:
    message = MIMEMultipart()
    message.attach(MIMEText("#!/bin/bash\necho fs-0123\n", "x-shellscript"))
    message.attach(MIMEText(config, "cloud-config"))
    return message.as_bytes()


@pytest.mark.parametrize(
    "raw",
    [CONFIG.encode(), gzip.compress(CONFIG.encode()), _multipart(), gzip.compress(_multipart())],
    ids=["plain", "gzip", "multipart", "multipart in gzip"],
)
def test_keys_are_found_in_every_form_of_user_data(raw: bytes) -> None:
    assert parse(_encoded(raw)).authorized_keys == ("ssh-ed25519 AAAA one",)


def test_a_script_part_gives_no_keys_but_its_text() -> None:
    data = parse(_encoded(_multipart(config="#cloud-config\n{}\n")))
    assert data.authorized_keys == ()
    assert "echo fs-0123" in data.text


def test_keys_in_a_plain_script_are_none() -> None:
    assert parse(_encoded(b"#!/bin/sh\nssh_authorized_keys: [x]\n")).authorized_keys == ()


def test_no_user_data_is_no_parts() -> None:
    assert parse(None).parts == ()


def test_a_part_that_is_no_yaml_is_skipped_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="is not YAML"):
        assert parse(_encoded(b"#cloud-config\n: : [\n")).authorized_keys == ()
