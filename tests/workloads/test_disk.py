"""Files: the format read and refused, the loader bit for bit, mounts told apart, fio understood, nothing left."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workloads.command import CheckFailed
from workloads.disk import blocks, exercise, fio, loader, mounts, pages, safetensors
from workloads.disk.scratch import demand_room, scratch

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def tensors() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return {
        "odd": torch.randint(-128, 127, (3, 5), generator=source, dtype=torch.int8),
        "wide": torch.randn(300, 1000, generator=source).bfloat16(),
        "small": torch.randn(7, generator=source),
        "long": torch.randn(3_000_001, generator=source),
        "none": torch.empty(0, 4),
        "single": torch.tensor(1.5),
    }


def same(found: dict[str, torch.Tensor], made: dict[str, torch.Tensor]) -> bool:
    return found.keys() == made.keys() and all(
        found[name].dtype == tensor.dtype
        and found[name].shape == tensor.shape
        and found[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))
        for name, tensor in made.items()
    )


@pytest.mark.parametrize("direct", [True, False, None])
def test_what_the_library_wrote_is_loaded_bit_for_bit(tmp_path: Path, direct: bool | None) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    assert same(loader.load(tmp_path, CPU, threads=3, direct=direct), tensors())


def test_what_we_write_is_what_the_library_reads(tmp_path: Path) -> None:
    made, path = tensors(), tmp_path / "ours.safetensors"
    size = safetensors.write(path, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()},
                             made.__getitem__)  # fmt: skip
    assert size == path.stat().st_size
    assert same(load_file(path), made)
    assert safetensors.layout(path).data_at % 64 == 0


def test_a_folder_of_parts_is_loaded_whole(tmp_path: Path) -> None:
    made = tensors()
    names = sorted(made)
    parts = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for file, held in parts.items():
        save_file({name: made[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(loader.load(tmp_path, CPU), made)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks b.safetensors, which its index names: download it again$"):
        loader.load(tmp_path, CPU)


def test_a_header_of_odd_length_gives_tensors_that_arithmetic_can_use(tmp_path: Path) -> None:
    text = json.dumps({"x": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}).encode()
    text += b" " * ((3 - len(text)) % 8)
    (tmp_path / "odd").write_bytes(len(text).to_bytes(8, "little") + text + struct.pack("<2d", 1.0, 2.0))
    for direct in (True, False):
        assert loader.load(tmp_path / "odd", CPU, direct=direct)["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no safetensors file: name one, or a folder of them"),
        (b"PK\x03\x04 a zip archive", "is no safetensors file: name one, or a folder of them"),
        ((2).to_bytes(8, "little") + b"[]", "is no safetensors file: its header is not JSON"),
        ((9).to_bytes(8, "little") + b"{not JSON", "is no safetensors file: its header is not JSON"),
        ((11).to_bytes(8, "little") + b'{"x": "F8"}', "has a header that is not of the format"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        safetensors.layout(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_was_cut_off_says_by_how_much(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"was cut off: {len(whole) - 1} bytes of {len(whole)}; download it again"):
        loader.load(path, CPU)
    with pytest.raises(ValueError, match=r"holds no safetensors: name a file, or a folder with model\.safetensors"):
        safetensors.files_of(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be read \(No such file or directory\)"):
        safetensors.layout(tmp_path / "absent")


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_garbage(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(3 * blocks.PAGE))
    with blocks.Blocks(path, blocks.PAGE, direct=False) as open_file:
        path.write_bytes(bytes(blocks.PAGE))
        with blocks.buffers(1, blocks.PAGE) as (view,), pytest.raises(OSError, match="ends at byte 4096"):
            open_file.read(1, view)


def test_the_kernel_says_what_is_in_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(2**20))
    assert pages.resident(path) == 1.0
    pages.evict(path)
    assert pages.resident(path) in (0.0, 1.0)  # tmpfs has no other place for it
    (tmp_path / "empty").touch()
    assert pages.resident(tmp_path / "empty") is None


def test_a_wrong_block_is_found(tmp_path: Path) -> None:
    path, pattern = tmp_path / "x", exercise.Pattern(7)
    exercise.write_file(path, 3, pattern, 2)
    assert exercise.check_file(path, pattern) == "all 3 blocks compared with what was written"
    with path.open("r+b") as file:
        file.seek(exercise.BLOCK_BYTES + 5000)
        file.write(b"wrong")
    with pytest.raises(CheckFailed, match="block 1 of 3 is not what was written"):
        exercise.check_file(path, pattern)
    exercise.write_file(path, 2, pattern, 2)
    assert path.stat().st_size == 2 * exercise.BLOCK_BYTES


def test_a_small_file_that_is_cut_off_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    exercise.create_small(folder, 5, exercise.Pattern(0), 2)
    exercise.read_small(folder, 5, 2)
    (folder / "000003").write_bytes(b"")
    with pytest.raises(CheckFailed, match="000003 is not as long as it was written"):
        exercise.read_small(folder, 5, 2)


LSBLK = """{"blockdevices": [
 {"path": "/dev/nvme0n1", "model": "Amazon Elastic Block Store              ", "type": "disk",
  "children": [{"path": "/dev/nvme0n1p1", "model": null, "type": "part"}]},
 {"path": "/dev/nvme1n1", "model": "Amazon EC2 NVMe Instance Storage        ", "type": "disk",
  "children": [{"path": "/dev/md127", "model": null, "type": "raid0"}]},
 {"path": "/dev/nvme2n1", "model": "Amazon EC2 NVMe Instance Storage        ", "type": "disk",
  "children": [{"path": "/dev/md127", "model": null, "type": "raid0"}]},
 {"path": "/dev/sda", "model": "Samsung SSD", "type": "disk"}]}"""
PROC_MOUNTS = r"""/dev/root / ext4 rw 0 0
/dev/nvme0n1p1 / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/md127 /opt/dlami/nvme ext4 rw,noatime 0 0
10.0.1.7@tcp:/abcdef /fsx lustre rw,flock 0 0
fs-0123.efs.us-east-1.amazonaws.com:/ /mnt/my\040files nfs4 rw 0 0
127.0.0.1:/ /efs nfs4 rw,port=20049 0 0
filer:/home /home nfs rw 0 0
mountpoint-s3 /data fuse rw 0 0
/dev/sda /disk xfs rw 0 0
"""


def test_mounts_are_told_apart_as_ec2_and_its_services_name_them() -> None:
    found = mounts.parse_mounts(PROC_MOUNTS, mounts.parse_disks(LSBLK))
    assert {str(mount.point): mount.kind for mount in found} == {
        "/": "ebs", "/dev/shm": "memory", "/opt/dlami/nvme": "nvme", "/fsx": "lustre", "/mnt/my files": "efs",
        "/efs": "efs", "/home": "nfs", "/data": "s3", "/disk": "disk",
    }  # fmt: skip
    assert mounts.parse_disks("lsblk: not found") == {}
    assert mounts.mount_of(Path("/fsx/data"), found).kind == "lustre"
    assert mounts.mount_of(Path("/fsxy"), found).source == "/dev/nvme0n1p1"


def test_a_file_system_is_measured_once_and_memory_only_when_it_is_named(tmp_path: Path) -> None:
    table = (mounts.Mount(point=Path("/"), source="/dev/a", type="ext4", kind="disk"),)
    (tmp_path / "b").mkdir()
    (place,) = mounts.places(table, (tmp_path, tmp_path / "b", tmp_path / "made" / "later"), given=False)
    assert place.folder == tmp_path
    memory = (mounts.Mount(point=tmp_path, source="tmpfs", type="tmpfs", kind="memory"),)
    assert list(mounts.places(memory, (tmp_path,), given=False)) == []
    assert [place.name for place in mounts.places(memory, (tmp_path,), given=True)] == [f"memory {tmp_path}"]


def test_fios_command_is_one_file_of_whole_size() -> None:
    assert " ".join(fio.command("read", Path("/x"), 64, direct=True)) == (
        "fio --name=rooflab --filename=/x --rw=read --size=64 --bs=1M --direct=1 --ioengine=libaio --iodepth=16 "
        "--randrepeat=1 --refill_buffers --group_reporting --output-format=json"
    )
    assert fio.command("write", Path("/x"), 64, direct=False)[-1] == "--end_fsync=1"
    assert fio.command("randread", Path("/x"), 64, direct=True, seconds=3)[-3:] == [
        "--numjobs=4", "--time_based", "--runtime=3",
    ]  # fmt: skip


def test_fios_answer_is_read_past_its_warnings_and_another_is_refused() -> None:
    side = {"bw_bytes": 250_000_000, "iops": 238.4, "runtime": 4295}
    text = "fio: a warning\n" + json.dumps({"fio version": "fio-3.28", "jobs": [{"read": side, "write": {}}]})
    assert fio.parse(text, "randread") == fio.Told(bytes_per_s=250e6, iops=238.4, seconds=4.295)
    for wrong in ("", "{}", '{"jobs": []}', text.replace("bw_bytes", "bw")):
        with pytest.raises(ValueError, match="fio's answer is not of its format"):
            fio.parse(wrong, "read")


def test_no_file_stays_when_the_measurement_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from workloads.disk.scratch import scratch\n"
        "with scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'large').write_bytes(bytes(10))\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    folder = Path(child.stdout.readline().strip())
    assert (folder / "large").exists()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()  # until its output is closed, which the remover holds open as well
    assert not folder.exists()


def test_the_folder_goes_after_success_and_after_failure(tmp_path: Path) -> None:
    with scratch(tmp_path / "new") as folder:
        assert folder.parent == tmp_path / "new"
    assert not folder.exists()
    with pytest.raises(CheckFailed), scratch(tmp_path) as folder:
        raise CheckFailed("wrong")
    assert not folder.exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written \(.*\): name a folder that can$"), \
            scratch(tmp_path / "file" / "below"):  # fmt: skip
        pass


def test_a_file_that_would_fill_the_disk_is_not_begun(tmp_path: Path) -> None:
    demand_room(tmp_path, 0)
    with pytest.raises(ValueError, match=r"GB free, and 1000000000\.0 GB would leave less than a tenth"):
        demand_room(tmp_path, 10**18)
