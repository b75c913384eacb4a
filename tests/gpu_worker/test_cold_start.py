"""Cold start is a figure by phase."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpu_worker.engine.cold_start import ColdStart, weights_phase

MOUNTS = """\
overlay / overlay rw 0 0
nfs.example:/weights /runpod-volume nfs4 rw 0 0
/dev/nvme0n1 /runpod-volume/local ext4 rw 0 0
juice /mnt/jfs fuse.juicefs rw 0 0
"""


def test_phases_add_up_and_say_how_fast_they_were() -> None:
    cold = ColdStart()
    cold.add("imports", 1.5)
    cold.add("weights from local disk", 2.0, 4_000_000_000)
    cold.add("weights from local disk", 1.0, 2_000_000_000)
    with cold.phase("warm up"):
        pass
    figures = cold.to_json()
    assert figures["weights_from_local_disk_gb_per_second"] == 2.0
    assert figures["weights_from_local_disk_bytes"] == 6_000_000_000
    assert next(iter(figures)) == "imports_seconds"
    assert figures["total_seconds"] == pytest.approx(4.5, abs=0.1)
    assert cold.seconds == sum(phase.seconds for phase in cold.phases)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/opt/weights", "local disk"),
        ("/runpod-volume/weights", "network volume"),
        ("/runpod-volume/local/weights", "local disk"),
        ("/mnt/jfs/weights", "network volume"),
        ("/runpod-volume-2", "local disk"),
    ],
)
def test_weights_are_named_by_what_they_lie_on(folder: str, expected: str) -> None:
    assert weights_phase(Path(folder), MOUNTS) == f"weights from {expected}"


def test_imports_are_counted_from_the_start_of_the_process() -> None:
    code = (
        "import time; time.sleep(0.3)\n"
        "from gpu_worker.engine.cold_start import ColdStart\n"
        "cold = ColdStart(); cold.imported(); print(cold.to_json()['imports_seconds'])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert float(run.stdout) >= 0.3
