"""How much do big data sets read and hold? Prints bytes read by the search for duplicates and the memory of calibration."""

import resource
import tempfile
from pathlib import Path

import numpy as np
import torch

from kdx.data.decoding import ImageFiles
from kdx.data.duplicates import count_duplicates
from kdx.teachers.calibration import TemperatureScaling
from kdx.training.logit_store import LogitStore

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rng, paths = np.random.default_rng(0), [f"{folder}/{i}.jpg" for i in range(5000)]
        sizes = [Path(path).write_bytes(rng.bytes(int(rng.integers(109_000, 111_000)))) for path in paths]
        before = int(Path("/proc/self/io").read_text().split()[1])
        found = count_duplicates(ImageFiles(paths[:4000], None, 3), ImageFiles(paths[4000:], None, 3))
        read = int(Path("/proc/self/io").read_text().split()[1]) - before
    text = "x 21841 logits"
    print(f"{found} duplicates among {len(paths)} files of {sum(sizes) / 1e6:.0f} MB: {read / 1e6:.1f} MB read")
    for count in (4_000, 8_000):
        store, labels = LogitStore(), torch.arange(count) % 21_841
        for part in labels.split(100):
            store.append(3 * torch.randn(len(part), 21_841) + 20 * torch.nn.functional.one_hot(part, 21_841))
        temperature = TemperatureScaling().fit(store, labels.split(100))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        print(f"T = {temperature:.4f} from {count} {text}, {count * 87364 / 1e9:.1f} GB: peak {peak:.2f} GB")
