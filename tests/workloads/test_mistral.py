"""Models with weights of their own: read from safetensors as they are, refused in one line where they do not suit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors

from labs.models import Model, find_model
from workloads import generate
from workloads.device import Device
from workloads.mistral import build, locate, restore

NANO = find_model("mistral-nano")
TOKENS = torch.arange(12).reshape(1, 12)


def saved(cpu: Device, folder: Path, dtype: str = "fp32", **how: object) -> torch.Tensor:
    """A model's folder, and the logits that it gave."""
    model = build(NANO, dtype, cpu, seed=11)
    model.save_pretrained(folder, **how)
    with torch.inference_mode():
        return torch.as_tensor(model(TOKENS).logits)


def logits(path: Path, cpu: Device, dtype: str = "fp32") -> torch.Tensor:
    model = restore(locate(str(path), NANO), NANO, dtype, cpu)
    with torch.inference_mode():
        return torch.as_tensor(model(TOKENS).logits)


def test_weights_of_one_file_give_the_model_they_came_from(cpu: Device, tmp_path: Path) -> None:
    wanted = saved(cpu, tmp_path)
    assert torch.equal(logits(tmp_path, cpu), wanted)
    assert torch.equal(logits(tmp_path / "model.safetensors", cpu), wanted)


def test_weights_in_parts_are_put_together(cpu: Device, tmp_path: Path) -> None:
    wanted = saved(cpu, tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(logits(tmp_path, cpu), wanted)


def test_weights_of_another_data_type_are_rounded_to_ours(cpu: Device, tmp_path: Path) -> None:
    wanted = saved(cpu, tmp_path)
    found = logits(tmp_path, cpu, "bf16")
    assert found.dtype is torch.bfloat16
    assert torch.allclose(found.float(), wanted, atol=0.05)
    assert not torch.equal(found.float(), wanted)


def test_what_weights_were_trained_with_is_taken_from_their_folder(cpu: Device, tmp_path: Path) -> None:
    wanted = saved(cpu, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_theta": 1e4}))
    assert not torch.allclose(logits(tmp_path, cpu), wanted, atol=1e-4), "v0.1 turns its positions otherwise"


def test_weights_of_another_shape_are_one_line(cpu: Device, tmp_path: Path) -> None:
    saved(cpu, tmp_path)
    with pytest.raises(
        ValueError, match=r"holds .* of 1024×256, and mistral-mini has 32768×1024: write the --model of"
    ):
        locate(str(tmp_path), find_model("mistral-mini"))
    deeper = Model(name="deeper", hidden=256, layers=5, heads=16, kv_heads=4, head_size=16, feed_forward=896,
                   vocabulary=1024)  # fmt: skip
    with pytest.raises(ValueError, match=r"lacks model\.layers\.4\.[a-z_.]+: deeper needs it"):
        locate(str(tmp_path), deeper)


def test_a_path_without_weights_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no safetensors"):
        locate(str(tmp_path), NANO)


def response(status: int) -> Any:
    class Response:
        headers: dict = {}  # noqa: RUF012  (what huggingface_hub looks at of an answer)
        request = None
        status_code = status

    return Response()


@pytest.mark.parametrize(
    ("raised", "token", "line"),
    [
        (errors.GatedRepoError("401", response=response(401)), "",
         "weights='hf:mistralai/M' is gated and there is no token: accept its terms at huggingface.co/mistralai/M, "
         "then export HF_TOKEN=hf_…"),
        (errors.GatedRepoError("403", response=response(403)), "hf_x",
         "weights='hf:mistralai/M' is gated and the token given has no access: accept its terms at "
         "huggingface.co/mistralai/M, then export HF_TOKEN=hf_…"),
        (errors.RepositoryNotFoundError("404", response=response(404)), "",
         "weights='hf:mistralai/M' does not exist, or is private and needs HF_TOKEN"),
        (errors.LocalEntryNotFoundError("offline mode\nis on"), "",
         "weights='hf:mistralai/M' cannot be downloaded (offline mode): write the PATH of a copy"),
    ],
)  # fmt: skip
def test_a_repository_that_may_not_be_had_is_one_line(
    raised: Exception, token: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **given: object) -> None:
        assert given["token"] == (token or None)
        raise raised

    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(SystemExit) as ending:
        generate.main(["--device", "cpu", "--weights", "hf:mistralai/M"])
    assert ending.value.code == 2
    assert capsys.readouterr().err == f"generate: {line}; `python -m workloads.generate --help` lists the flags\n"


def test_a_name_that_is_no_repository_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"weights='hf:a/b/c' is not a repository: write hf:ORG/NAME, or a PATH"):
        locate("hf:a/b/c", NANO)
