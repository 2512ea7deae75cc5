"""A shape for tests of what ranks do to each other: the proportions of mistral-nano, a thirtieth of its weights."""

from labs.models import Model

SMALL = Model(name="mistral-nano", hidden=64, layers=2, heads=16, kv_heads=4, head_size=4, feed_forward=224,
              vocabulary=128)  # fmt: skip
