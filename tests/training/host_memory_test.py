import subprocess
import sys

import pytest

# In a process of its own: what it sets stays set.
SCRIPT = """
import glob, resource, sys
glob.glob = lambda pattern: {found}
from bert_jax.training.host_memory import keep_freed_memory
assert "jax" not in sys.modules
print(keep_freed_memory())
import numpy as np
np.ones(2**25)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(2**25)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 2**10)
"""


def run(found, **environment):
    script = SCRIPT.format(found=found)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    ).stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_blocks_are_reused_without_page_faults():
    assert run([]) == ["True", "True"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_machines_with_accelerators_keep_their_settings():
    assert run(["/dev/nvidia0"]) == ["False", "False"]
    assert run(["/dev/nvidia0"], JAX_PLATFORMS="cpu") == ["True", "True"]
