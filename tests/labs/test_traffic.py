"""What ranks must send: hand-computed bytes, and the words for what was counted otherwise."""

import pytest

from labs.models import find_model
from labs.traffic import (
    Call,
    Traffic,
    data_parallel,
    fold,
    fully_sharded,
    hybrid_sharded,
    sequence_parallel,
    tensor_decode,
    tensor_parallel,
)

LARGE, NANO = find_model("mistral-7b"), find_model("mistral-nano")
P = 7_248_023_552


def test_four_ranks_average_the_gradients_of_7b_in_bf16() -> None:
    assert data_parallel(LARGE, 4, size=2).sent_bytes == 2 * 3 * 2 * P // 4 == 21_744_070_656


def test_four_ranks_share_the_states_of_7b() -> None:
    assert fully_sharded(LARGE, 4, root_gathers=2).sent_bytes == 3 * (4 * P + 4 * P) // 4 == 43_488_141_312
    assert fully_sharded(LARGE, 4, root_gathers=2, reduced=2).sent_bytes == 32_616_105_984
    kept = fully_sharded(LARGE, 4, gathers=1)
    assert kept.sent_bytes == 3 * (2 * P + 4 * P) // 4
    root = 2 * 134_217_728 + 4096
    assert fully_sharded(LARGE, 4).sent_bytes == 43_488_141_312 - 3 * 2 * root // 4, "the root is gathered once"


def test_two_nodes_of_four_that_share_7b_each_send_each_other_a_quarter_of_its_gradients() -> None:
    hybrid = hybrid_sharded(LARGE, 4, 2, root_gathers=2)
    assert hybrid.sent_bytes == 43_488_141_312 + 2 * 1 * 4 * (P // 4) // 2 == 43_488_141_312 + 7_248_023_552
    between = sum(call.sent_bytes for call in hybrid.calls if call.ranks == 2)
    assert between == P
    assert fully_sharded(LARGE, 8, root_gathers=2).sent_bytes == 7 * P == hybrid.sent_bytes, "as many, but not as far"


def test_four_ranks_split_the_matrices_of_7b_for_8192_tokens() -> None:
    assert tensor_parallel(LARGE, 4, 8192).sent_bytes == 12_884_901_888
    halves = sequence_parallel(LARGE, 4, 8192)
    between = 2 * 3 * 2 * 8192 * 4096 // 4
    norms = 2 * 3 * 64 * 4 * 4096 // 4
    assert halves.sent_bytes == 12_884_901_888 + between + norms


def test_a_decode_sends_two_sums_a_layer_and_the_logits() -> None:
    sent = tensor_decode(LARGE, 4, 1).sent_bytes
    assert sent == 2 * 3 * 64 * 2 * 4096 // 4 + 3 * 2 * 32768 // 4


def test_one_rank_sends_nothing() -> None:
    for traffic in (data_parallel(NANO, 1), fully_sharded(NANO, 1), tensor_parallel(NANO, 1, 64)):
        assert traffic.sent_bytes == 0
        assert traffic.volumes == {}


def test_tensor_ranks_divide_the_layers_that_data_ranks_gather() -> None:
    whole, part = fully_sharded(NANO, 2), fully_sharded(NANO, 2, tensor=2)
    projections = NANO.layers * (NANO.attention_weights + NANO.mlp_weights)
    assert whole.sent_bytes - part.sent_bytes == (2 * 2 + 4) * projections // 2 // 2


def test_cutting_a_buffer_into_buckets_changes_no_volume() -> None:
    one = Traffic(calls=(Call(collective="all-reduce", ranks=2, buffer_bytes=12),))
    three = fold(Call(collective="all-reduce", ranks=2, buffer_bytes=4) for _ in range(3))
    assert three.calls == (Call(collective="all-reduce", ranks=2, buffer_bytes=4, times=3),)
    assert one.unlike(three) == three.unlike(one) == ""
    assert one.sent_bytes == three.sent_bytes == 12


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        (Call(collective="all-reduce", ranks=2, buffer_bytes=16), "all-reduce over 2 ranks: 16 B counted, 12 B predic"),
        (Call(collective="all-reduce", ranks=4, buffer_bytes=12), "all-reduce over 2 ranks: 0 B counted, 12 B predict"),
        (Call(collective="broadcast", ranks=2, buffer_bytes=12), "broadcast over 2 ranks: 12 B counted, 0 B predicted"),
    ],
)
def test_what_was_counted_otherwise_is_named(counted: Call, words: str) -> None:
    predicted = Traffic(calls=(Call(collective="all-reduce", ranks=2, buffer_bytes=12),))
    assert words in predicted.unlike(Traffic(calls=(counted,)))
