"""The ways to decode agree: attention with float64, a static cache with a growing one, packed weights with unpacked."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from labs.models import find_model
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.ladder import quality
from workloads.ladder.attention import blocks, grouped, register, skipping
from workloads.ladder.growing import Growing
from workloads.ladder.static import Static, choose, run_layer
from workloads.ladder.weights import Weights, held_bytes, pack
from workloads.mistral import build

NANO = find_model("mistral-nano")


@pytest.fixture(scope="module")
def weights() -> Iterator[Weights]:
    """One small model; tests take it up and down the ladder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    device = Device(torch=torch.device("cpu"), name="CPU", accelerator=None)
    yield Weights(lambda dtype: build(NANO, dtype, device, 0), "fp32")
    torch.set_num_threads(threads)


def prompt(batch: int = 1) -> Tensor:
    return torch.randint(NANO.vocabulary, (batch, 9), generator=torch.Generator().manual_seed(1))


def logits_of(engine: Growing | Static, prompt_BS: Tensor, read: list[Tensor], count: int = 5) -> Tensor:
    """Logits of some steps; the tokens in `read` are read, or noted there where it is empty."""
    noted, logits = not read, []
    engine.start(prompt_BS)
    for index in range(count):
        if noted:
            read.append(engine.token_B1.clone())
        engine.read(read[index])
        logits.append(engine.step().float().clone())
    return torch.cat(logits)


def reference(q_BHSd: Tensor, k_BKCd: Tensor, v_BKCd: Tensor, seen_SC: Tensor) -> Tensor:
    repeated = q_BHSd.shape[1] // k_BKCd.shape[1]
    k, v = (part.double().repeat_interleave(repeated, 1) for part in (k_BKCd, v_BKCd))
    scores = q_BHSd.double() @ k.transpose(-1, -2) / q_BHSd.shape[-1] ** 0.5
    return scores.masked_fill(~seen_SC, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("queries", [1, 5])
def test_grouped_attention_is_that_of_repeated_heads(queries: int) -> None:
    q, k, v = torch.randn(2, 16, queries, 16), torch.randn(2, 4, 40, 16), torch.randn(2, 4, 40, 16)
    seen = torch.arange(40) <= torch.arange(20, 20 + queries)[:, None]
    torch.testing.assert_close(grouped(q, k, v, seen).double(), reference(q, k, v, seen), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        grouped(q, k, v, None).double(), reference(q, k, v, torch.ones_like(seen)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("position", [0, 127, 128, 300])
def test_attention_that_skips_blocks_sees_all_up_to_its_position_and_nothing_after(position: int) -> None:
    q, k, v = torch.randn(1, 16, 1, 16), torch.randn(1, 4, 384, 16), torch.randn(1, 4, 384, 16)
    seen = (torch.arange(384) <= position)[None]
    mask = blocks(torch.tensor([position]), 384)
    assert mask.kv_num_blocks.tolist() == [[[position // 128 + 1]]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled here
        found = skipping(q, k, v, mask)
    torch.testing.assert_close(found.double(), reference(q, k, v, seen), rtol=1e-5, atol=1e-5)


def test_every_engine_gives_the_logits_of_the_model_as_it_comes(weights: Weights) -> None:
    model = weights.at("fp32")
    read: list[Tensor] = []
    expected = logits_of(Growing(model, "eager"), prompt(), read)
    whole = torch.cat([prompt(), *read], 1)
    with torch.inference_mode():
        at_once = model(whole, use_cache=False, logits_to_keep=5).logits[0]
    assert quality.compare(expected, at_once).error < 1e-5
    for engine in (
        Growing(model, register()),
        Static(model, [], NANO, batch=1, length=16),
        Static(model, fused_of(weights), NANO, batch=1, length=20),
    ):
        assert quality.compare(logits_of(engine, prompt(), read), expected).error < 1e-5


def fused_of(weights: Weights) -> list:
    weights.fuse()
    return weights.fused


def test_projections_are_views_of_their_fused_weight(weights: Weights) -> None:
    model = weights.at("fp32")
    (qkv, gate_up), layer = fused_of(weights)[0], model.model.layers[0]
    assert qkv.weight.data_ptr() == layer.self_attn.q_proj.weight.data_ptr()
    assert torch.equal(qkv.weight[256 : 256 + 64], layer.self_attn.k_proj.weight)
    assert torch.equal(gate_up.weight[896:], layer.mlp.up_proj.weight)
    assert weights.read_bytes() == NANO.decode_bytes(0, weight_size=4)


def test_sequences_of_a_batch_do_not_mix(weights: Weights) -> None:
    model = weights.at("fp32")
    three = prompt(3)
    read: list[Tensor] = []
    found = logits_of(Static(model, fused_of(weights), NANO, batch=3, length=16), three, read).unflatten(0, (5, 3))
    for row in range(3):
        alone = [token_B1[row : row + 1] for token_B1 in read]
        expected = logits_of(Static(model, weights.fused, NANO, batch=1, length=16), three[row : row + 1], alone)
        assert quality.compare(found[:, row], expected).error < 1e-5


def test_a_pretended_prompt_is_the_same_for_all_sequences(weights: Weights) -> None:
    engine = Static(weights.at("fp32"), fused_of(weights), NANO, batch=3, length=16)
    engine.read(torch.full((3, 1), 7))
    engine.pretend(10, torch.Generator().manual_seed(0))
    logits = engine.step()
    assert quality.compare(logits[1:], logits[:1].expand(2, -1)).error < 1e-5
    assert engine.cache_bytes == 3 * 16 * NANO.kv_bytes(4)


def test_one_compilation_serves_every_layer_and_has_no_break(weights: Weights) -> None:
    read: list[Tensor] = []
    expected = logits_of(Growing(weights.at("fp32"), register()), prompt(), read)
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        run: Callable = graph.forward
        return run

    torch._dynamo.reset()
    engine = Static(
        weights.at("fp32"), fused_of(weights), NANO, batch=1, length=16,
        compile_piece=lambda piece: torch.compile(piece, backend=backend, fullgraph=True, dynamic=False),
    )  # fmt: skip
    assert quality.compare(logits_of(engine, prompt(), read), expected).error < 1e-5
    assert len(graphs) == len((run_layer, choose))


def test_weights_go_down_in_place_and_up_by_being_made_again() -> None:
    device = Device(torch=torch.device("cpu"), name="CPU", accelerator=None)
    made: list[str] = []

    def make(dtype: str) -> object:
        made.append(dtype)
        return build(NANO, dtype, device, 0)

    weights = Weights(make, "fp32")
    first = weights.at("fp32").lm_head.weight.clone()
    half = weights.at("bf16")
    assert torch.equal(half.lm_head.weight, first.bfloat16())
    assert half.model.rotary_emb.inv_freq.dtype is torch.float32
    assert made == ["fp32"]
    assert weights.read_bytes() == NANO.decode_bytes(0)
    read: list[Tensor] = []
    expected = logits_of(Growing(half, register()), prompt(), read)
    packed = weights.at("bf16", "int8")
    rows = sum(linear.out_features for linear in weights.products())
    unpacked = 2 * (NANO.norm_weights + NANO.hidden)
    assert weights.read_bytes() == NANO.multiplying_weights + 4 * rows + unpacked
    assert packed.model.layers[0].self_attn.q_proj.weight.numel() == 0
    found = logits_of(Static(packed, weights.fused, NANO, batch=1, length=16), prompt(), read)
    judged = quality.compare(found, expected)
    assert 1e-4 < judged.error < quality.TOLERANCE["int8"]
    assert made == ["fp32"]
    assert torch.equal(weights.at("fp32").lm_head.weight, first)
    assert made == ["fp32", "fp32"]


def test_packed_weights_are_counted_with_their_scales() -> None:
    linear = torch.nn.Linear(256, 512, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    assert held_bytes(linear.weight) == 2 * 256 * 512
    pack(linear, "int8")
    assert held_bytes(linear.weight) == 256 * 512 + 4 * 512


def test_a_wrong_cache_position_and_a_wrong_weight_are_beyond_every_tolerance(weights: Weights) -> None:
    model = weights.at("fp32")
    read: list[Tensor] = []
    expected = logits_of(Static(model, fused_of(weights), NANO, batch=1, length=16), prompt(), read)
    late = Static(model, weights.fused, NANO, batch=1, length=16)
    late.start(prompt())
    late.pretend(3, torch.Generator().manual_seed(0))
    wrong = torch.cat([late.step() for _ in range(5)])
    with pytest.raises(CheckFailed, match=r"^int4 weights: logits are .* standard deviations from eager fp32, allowed"):
        quality.check("int4 weights", "int4", quality.compare(wrong, expected), "eager fp32")
    assert "of eager fp32" not in quality.check("bf16", "bf16", quality.compare(expected, expected), "eager fp32")
    assert read


def test_quality_against_hand_computed_distributions() -> None:
    reference = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    found = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    judged = quality.compare(found, reference)
    first, second = torch.tensor([2.0, 0.0]).softmax(0), torch.tensor([0.0, 2.0]).softmax(0)
    assert judged.error == pytest.approx((8 / 4) ** 0.5 / ((0.25 + 1.0) / 2) ** 0.5)
    assert judged.kl_nats == pytest.approx(float((first * (first / second).log()).sum()) / 2)
    assert (judged.agreement, judged.positions) == (0.5, 2)


def test_a_graph_that_chooses_another_token_is_found() -> None:
    same = torch.eye(4)
    assert quality.same_tokens("CUDA graph", same, same, "compile") == "all 4 tokens those of compile"
    with pytest.raises(
        CheckFailed, match=r"^CUDA graph: 2 of 4 tokens are not those of compile, whose kernels it runs"
    ):
        quality.same_tokens("CUDA graph", same[[1, 0, 2, 3]], same, "compile")
