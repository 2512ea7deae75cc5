"""What a step of each strategy sends is what labs/traffic.py predicts, byte for byte, over four ranks.

DistributedDataParallel refuses ranks that are pretended: `test_ddp` counts with real ones.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from labs.memory import Recipe
from labs.traffic import Call, Traffic, tensor_parallel
from tests.workloads.parallel.pretended import pretended
from tests.workloads.parallel.small import SMALL
from workloads import fsdp
from workloads.chain import draw
from workloads.group import Group
from workloads.mistral import build
from workloads.parallel import decoding
from workloads.parallel.bench import Bench
from workloads.parallel.counting import counted
from workloads.parallel.grid import grid_of, grid_strategy
from workloads.parallel.plan import split_inference
from workloads.parallel.products import WAYS, Matrices
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Strategy, builder, trainer_of

pytestmark = pytest.mark.usefixtures("small")
SETTINGS = Settings(model="mistral-nano", dtype="fp32", batch=1, sequence=16, steps=8, learning_rate=3e-3, seed=0,
                    threads=1)  # fmt: skip
CONFIG = fsdp.Config(**vars(SETTINGS), states="fp32", recompute=False, predicted_bytes=0, nodes=1, hybrid_bytes=0)
HALF = replace(CONFIG, dtype="bf16")


def sharded(config: fsdp.Config, **way: bool) -> Callable[[Group], Strategy]:
    def make(group: Group) -> Strategy:
        mesh = dist.device_mesh.init_device_mesh("cpu", (group.size,), mesh_dim_names=("shard",))
        return fsdp.strategy(config, group, mesh, large=False, **way)

    return make


def grid(tensor: int, dtype: str = "fp32", sequence: bool = False, copies: bool = False
         ) -> Callable[[Group], Strategy]:  # fmt: skip
    return lambda group: grid_strategy(grid_of(group, tensor), dtype, sequence=sequence, copies=copies)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (sharded(CONFIG), "fp32"),
        (sharded(CONFIG, keep=True), "fp32"),
        (sharded(replace(CONFIG, recompute=True)), "fp32"),
        (sharded(HALF), "bf16"),
        (sharded(HALF, reduce_half=True), "bf16"),
        (grid(4), "fp32"),
        (grid(4, "bf16"), "bf16"),
        (grid(4, sequence=True), "fp32"),
        (grid(4, "bf16", sequence=True), "bf16"),
        (grid(2), "fp32"),
        (grid(2, "bf16"), "bf16"),
        (grid(1), "fp32"),
        (grid(2, copies=True), "fp32"),
        (grid(2, "bf16", copies=True), "bf16"),
        (grid(1, copies=True), "fp32"),
    ],
    ids=["fsdp", "kept", "recomputed", "fsdp-bf16", "reduced-bf16", "tensor", "tensor-bf16", "sequence",
         "sequence-bf16", "2x2", "2x2-bf16", "4x1", "copies", "copies-bf16", "copies-4x1"],
)  # fmt: skip
def test_a_step_sends_what_is_predicted(make: Callable[[Group], Strategy], dtype: str) -> None:
    settings = replace(SETTINGS, dtype=dtype)
    with pretended(4) as group:
        strategy, bench = make(group), Bench(settings=settings, group=group)
        trainer = trainer_of(strategy, settings, builder(SMALL, 0, group.device), group.device)
        tokens_BT = strategy.share_of(draw(0, 0, group.size, settings.sequence + 1), group.device)
        for _ in range(2):
            trainer.step(tokens_BT)
        found = counted(lambda: trainer.step(tokens_BT))
        predicted = strategy.traffic(SMALL, bench.tokens)
    assert predicted.unlike(found) == ""
    assert found.sent_bytes == predicted.sent_bytes > 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_split_product_sends_what_is_predicted(way) -> None:
    with pretended(4) as group:
        matrices = Matrices((16, 8, 32), "fp32", group, 0, pieces=4)
        found = counted(lambda: matrices.both(way))
    assert way.traffic(4, 16 * 8 * 4, 4).unlike(found) == ""


def test_a_decode_step_sends_what_is_predicted() -> None:
    request = decoding.Request(model="mistral-nano", dtype="fp32", batch=2, prompt=4, new_tokens=2)
    with pretended(4) as group:
        mesh = grid_of(group, 4)["tensor"]
        model = split_inference(build(SMALL, "fp32", group.device, 0), mesh)
        answer = decoding.Answer(model, decoding.prompt_of(request, group.device, 0))
        answer.step()
        found = counted(answer.step)
    assert decoding.traffic_of(request, SMALL, 4).unlike(found) == ""


def test_an_input_prepared_for_each_projection_costs_five_sums_a_layer_backward() -> None:
    with pretended(4) as group:
        model, mesh = builder(SMALL, 0, group.device)(), grid_of(group, 4)["tensor"]
        for layer in model.model.layers:
            parallelize_module(layer, mesh, {
                **{f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"},
                **{f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")},
                "self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel(),
            })  # fmt: skip
        tokens_BT = draw(0, 0, 4, 17)
        found = counted(lambda: model(tokens_BT[:, :-1]).sum().backward())
    (call,) = found.calls
    assert call.times == (2 + 5) * SMALL.layers
    assert tensor_parallel(SMALL, 4, 64, size=4).unlike(found).startswith("all-reduce over 4 ranks: ")


def test_a_collective_that_nobody_predicted_is_found() -> None:
    with pretended(4):
        found = counted(lambda: dist.broadcast(torch.ones(3), 0))
    assert found == Traffic(calls=(Call(collective="broadcast", ranks=4, buffer_bytes=12),))


def test_a_model_without_data_gets_each_rank_its_share() -> None:
    config = replace(CONFIG, dtype="bf16", states="bf16")
    with pretended(4) as group:
        mesh = dist.device_mesh.init_device_mesh("cpu", (4,), mesh_dim_names=("shard",))
        strategy = fsdp.strategy(config, group, mesh, large=True)
        assert strategy.build is not None
        empty = strategy.build()
        assert {weights.device.type for weights in empty.parameters()} == {"meta"}
        model = strategy.wrap(empty)
        local = [weights.to_local() for weights in model.parameters()]
    assert sum(part.numel() for part in local) == SMALL.parameters // 4
    assert {part.dtype for part in local} == {torch.bfloat16}
    drawn = torch.cat([part.detach().flatten().float() for part in local if part.dim() > 1])
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.03)
    assert all(bool((part == 1).all()) for part in local if part.dim() == 1)
    assert Recipe(states=config.states).states == "bf16"
