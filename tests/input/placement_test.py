import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.input.placement import local_rows, place_batch

ROOT = Path(__file__).parents[2]
AXES = ("data", "fsdp", "tensor")
SHAPES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8), (4, 1, 2)]


def make_mesh(*shape):
    if jax.device_count() < np.prod(shape):
        pytest.skip(f"needs {np.prod(shape)} devices")
    return Mesh(np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape), AXES)


def make_batch(num_rows):
    return {
        "input_ids": np.arange(num_rows * 5, dtype=np.int32).reshape(num_rows, 5),
        "next_sentence_weights": np.arange(num_rows, dtype=np.float32)[:, None],
    }


def test_one_device_gets_the_whole_batch():
    mesh = make_mesh(1, 1, 1)
    placed = place_batch(make_batch(6), mesh)

    assert local_rows(6, mesh) == slice(0, 6)
    for name, array in make_batch(6).items():
        assert isinstance(placed[name], jax.Array)
        assert placed[name].dtype == array.dtype
        assert (np.asarray(placed[name]) == array).all()


@pytest.mark.multidevice
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_lie_along_data_and_fsdp(shape):
    mesh = make_mesh(*shape)
    placed = place_batch(make_batch(16), mesh)["input_ids"]

    parts = shape[0] * shape[1]
    assert local_rows(16, mesh) == slice(0, 16)
    assert placed.sharding == NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(16 // parts, 5)}
    assert (np.asarray(placed) == make_batch(16)["input_ids"]).all()
    # The device at (d, f, t) of the mesh holds part d × fsdp + f, whatever t.
    for shard in placed.addressable_shards:
        [[data], [fsdp], _] = np.where(mesh.devices == shard.device)
        assert (shard.index[0].start or 0) == (data * shape[1] + fsdp) * (16 // parts)


# Run in each of two processes of two devices; prints what the process loads and what its devices hold.
WORKER = """
import json, sys
import jax
import numpy as np
from jax.sharding import Mesh
from bert_jax.input.placement import local_rows, place_batch

port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(process))
devices = np.array(sorted(jax.devices(), key=lambda device: device.id))
table = np.arange(24, dtype=np.int32).reshape(8, 3)
report = {}
for name, order, shape in [
    ("data", [0, 1, 2, 3], (4, 1, 1)),
    ("data and fsdp", [0, 1, 2, 3], (2, 2, 1)),
    ("tensor inside", [0, 1, 2, 3], (2, 1, 2)),
    ("tensor across", [0, 2, 1, 3], (2, 1, 2)),
    ("tensor alone", [0, 1, 2, 3], (1, 1, 4)),
    ("scattered", [0, 2, 1, 3], (4, 1, 1)),
]:
    mesh = Mesh(devices[order].reshape(shape), ("data", "fsdp", "tensor"))
    try:
        rows = local_rows(8, mesh)
    except ValueError as error:
        report[name] = str(error)
        continue
    placed = place_batch({"x": table[rows]}, mesh)["x"]
    right = [(np.asarray(shard.data) == table[shard.index]).all() for shard in placed.addressable_shards]
    total = int(jax.jit(lambda x: x.sum())(placed))
    report[name] = [rows.start, rows.stop, placed.shape == (8, 3) and all(map(bool, right)), total]
print(json.dumps(report))
"""


@pytest.mark.slow
def test_two_processes_load_their_rows():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=200) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    first, second = (json.loads(stdout.splitlines()[-1]) for stdout, _ in outputs)

    for name in ("data", "data and fsdp", "tensor inside"):
        assert first[name] == [0, 4, True, 276], name
        assert second[name] == [4, 8, True, 276], name
    for name in ("tensor across", "tensor alone"):  # both processes hold, and load, all rows
        assert first[name] == second[name] == [0, 8, True, 276], name
    assert "parts [0, 2] of the batch, which are not contiguous" in first["scattered"]
    assert "parts [1, 3]" in second["scattered"]
