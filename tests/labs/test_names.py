"""Names that all rooms share."""

import pytest

from labs import names
from labs.names import stack_name


def test_stack_names() -> None:
    assert stack_name(3) == "Lab3Stack"
    assert stack_name(3, "alice-2") == "Lab3Stack-alice-2"


@pytest.mark.parametrize("name", ["Alice", "2nd", "a_b", "a.b", "a" * 21, "-a", "a b"])
def test_a_name_that_cloudformation_or_a_shell_would_stumble_over_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^name='{name}': write 1 to 20 characters of a-z, 0-9 and -"):
        stack_name(3, name)


def test_tags_share_a_prefix_that_aws_does_not_reserve() -> None:
    tags = [value for key, value in vars(names).items() if key.startswith("TAG_")]
    assert tags
    assert len(tags) == len(set(tags)), "no two of them mean the same"
    assert all(tag.startswith("rooflab:") for tag in tags)


def test_the_deadline_parameter_takes_every_stack_name() -> None:
    assert names.DEADLINE_PARAMETER.format(stack=stack_name(3, "bob")) == "/rooflab/deadline/Lab3Stack-bob"
