"""Model arithmetic against integers that were computed by hand and by counting built models."""

import pytest

from labs.models import MODELS, find_model

NAMES = ("mistral-7b", "mistral-tiny", "mistral-mini", "mistral-nano")

# One row a quantity, one column a model, in the order of NAMES.
EXACT = {
    "attention": (41_943_040, 10_485_760, 2_621_440, 163_840),
    "mlp": (176_160_768, 44_040_192, 11_010_048, 688_128),
    "layer": (218_112_000, 54_530_048, 13_633_536, 852_480),
    "multiplying": (7_113_539_584, 939_524_096, 142_606_336, 3_670_016),
    "norms": (266_240, 67_584, 17_408, 2_304),
    "table": (134_217_728, 67_108_864, 33_554_432, 262_144),
    "parameters": (7_248_023_552, 1_006_700_544, 176_178_176, 3_934_464),
    "weights bf16": (14_496_047_104, 2_013_401_088, 352_356_352, 7_868_928),
    "decode weight bytes bf16": (14_227_619_840, 1_879_187_456, 285_249_536, 7_345_152),
    "KV bytes bf16": (131_072, 32_768, 8_192, 1_024),
    "decode FLOPs 1024": (14_763_950_080, 2_013_265_920, 318_767_104, 11_534_336),
    "decode FLOPs 4096": (16_374_562_816, 2_415_919_104, 419_430_400, 24_117_248),
    "prefill FLOPs 1024": (14_569_065_938_944, 1_855_627_198_464, 240_602_054_656, 9_129_426_944),
    "forward FLOPs 1024": (15_118_284_881_920, 2_061_584_302_080, 326_417_514_496, 11_811_160_064),
    "train causal 4096": (45_903_249_408, 6_442_647_552, 1_057_013_760, 47_192_064),
    "train PaLM 4096": (49_930_592_256, 7_650_816_000, 1_459_722_240, 73_938_432),
    "train torchtitan 4096": (49_125_285_888, 7_248_162_816, 1_258_395_648, 72_365_568),
    "train recomputed 4096": (60_935_897_088, 8_455_979_008, 1_342_242_816, 62_398_464),
    "Adam fp32": (115_968_376_832, 16_107_208_704, 2_818_850_816, 62_951_424),
}


@pytest.mark.parametrize(("column", "name"), list(enumerate(NAMES)))
def test_exact_integers(column: int, name: str) -> None:
    model = find_model(name)
    assert {
        "attention": model.attention_weights,
        "mlp": model.mlp_weights,
        "layer": model.layer_weights,
        "multiplying": model.multiplying_weights,
        "norms": model.norm_weights,
        "table": model.table_weights,
        "parameters": model.parameters,
        "weights bf16": model.weight_bytes(2),
        "decode weight bytes bf16": model.decode_bytes(0),
        "KV bytes bf16": model.kv_bytes(2),
        "decode FLOPs 1024": model.decode_flops(1024),
        "decode FLOPs 4096": model.decode_flops(4096),
        "prefill FLOPs 1024": model.prefill_flops(1024),
        "forward FLOPs 1024": model.forward_flops(1024),
        "train causal 4096": model.train_flops(4096),
        "train PaLM 4096": model.train_flops_palm(4096),
        "train torchtitan 4096": model.train_flops_torchtitan(4096),
        "train recomputed 4096": model.train_flops_recomputed(4096),
        "Adam fp32": model.adam_bytes(),
    } == {quantity: row[column] for quantity, row in EXACT.items()}


def test_7b_parameters_by_hand() -> None:
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert find_model("mistral-7b").parameters == 32 * layer + 4096 + 2 * 4096 * 32768


def test_a_7b_decode_step_at_1024_tokens_moves_its_weights_and_its_kv_cache() -> None:
    assert find_model("mistral-7b").decode_bytes(1024) == 14_361_837_568


def test_a_batch_reads_the_weights_once_and_each_cache_once() -> None:
    model = find_model("mistral-nano")
    once, thrice = model.decode_bytes(100), model.decode_bytes(100, batch=3)
    assert thrice - once == 2 * (2 * 256 + 100 * 1024)


def test_fp32_doubles_bf16() -> None:
    model = find_model("mistral-mini")
    assert model.decode_bytes(512, weight_size=4, kv_size=4) == 2 * model.decode_bytes(512)


def test_a_prefill_of_one_token_does_and_moves_what_a_first_decode_step_does() -> None:
    for model in MODELS.values():
        assert model.prefill_flops(1) == model.decode_flops(1)
        assert model.prefill_bytes(1) == model.decode_bytes(1)


def test_kv_cache_of_a_7b_at_32768_tokens_is_4_gib() -> None:
    assert 32_768 * find_model("mistral-7b").kv_bytes(2) == 4 * 2**30


def test_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"^model='gpt-2' does not exist: write one of mistral-7b, mistral-tiny, "):
        find_model("gpt-2")
