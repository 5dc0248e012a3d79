"""How much time does it save that runs of a sweep share their teacher? The same sweep in several ways, as JSON.

`apart` is a run after the other, `kept` the same with teacher_cache=auto and nothing kept yet, `together` is launcher=together
with its four jobs at a time, and `both` has teacher_cache=auto and all jobs of the sweep in lock-step.
All ways do the same work, in one process each. They take turns of a few seconds, in which the others are stopped, so a machine
that drifts slows down all; what is given is the time of the turns, and that of the processors.

python scripts/checks/together.py
python scripts/checks/together.py --ways kept together --sweep temperature.value=1,2,4,8 optimizer.lr=0.01,0.02,0.05 --epochs 5
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kdx.benchmarks.request import words_of

ALL = 1000  # jobs at a time: as many as there are
# The words, and the seconds of a turn: in proportion to the time a way takes, so that all end at about the same time.
WAYS = {
    "apart": ([], 8.0),
    "kept": (["teacher_cache={answers}"], 4.5),
    "together": (["launcher=together"], 4.5),
    "both": (["launcher=together", f"hydra.launcher.jobs={ALL}", "teacher_cache={answers}"], 4.5),
}
FIRST = next(iter(WAYS))


class Command:
    """A stopped kdx-train that goes on for a turn at a time."""

    def __init__(self, words: list[str], threads: str) -> None:
        self.seconds = self.processor = 0.0
        call = [sys.executable, "-m", "kdx.cli.train", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        self.process = subprocess.Popen(
            call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        os.killpg(self.process.pid, signal.SIGSTOP)

    def turn(self, seconds: float) -> bool:
        """Let it run for a while; return whether it still has work to do.

        Raises:
            subprocess.CalledProcessError: If it fails.
        """
        began = time.perf_counter()
        os.killpg(self.process.pid, signal.SIGCONT)
        while (ended := os.wait4(self.process.pid, os.WNOHANG))[0] == 0 and time.perf_counter() < began + seconds:
            time.sleep(0.02)
        self.seconds += time.perf_counter() - began
        if ended[0] == 0:
            os.killpg(self.process.pid, signal.SIGSTOP)
            return True
        self.process.returncode = os.waitstatus_to_exitcode(ended[1])
        self.processor = ended[2].ru_utime + ended[2].ru_stime
        if self.process.returncode:
            raise subprocess.CalledProcessError(self.process.returncode, self.process.args)
        return False


def main() -> None:
    """Measure each way, and print the times with their ratios to `apart`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="of each student, 40 steps of 64 images each")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=[FIRST, "together"])
    parser.add_argument("--sweep", nargs="+", default=["optimizer.lr=0.01,0.02,0.05,0.1"], help="keys with their values")
    # Threads that wait for each other would waste what other work on the machine takes from one of them.
    parser.add_argument("--threads", default="1", help="of torch; more than one on a machine without other work only")
    parser.add_argument("--to", type=Path, help="file for the numbers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = words_of("resnet56", [f"outputs={folder}"])
        teacher = [f"hydra.run.dir={folder}/teacher", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
        Command([*words, *teacher], given.threads).turn(float("inf"))
        commands = {}
        for way in dict.fromkeys([FIRST, *given.ways]):
            own = [f"trainer.max_epochs={given.epochs}", *given.sweep, f"hydra.sweep.dir={folder}/{way}"]
            more = [word.format(answers=f"{folder}/answers-{way}") for word in WAYS[way][0]]
            commands[way] = Command(["-m", *words, *own, *more], given.threads)
        going = dict(commands)
        try:
            while going:
                for way in list(going):
                    if not going[way].turn(WAYS[way][1]):
                        one = going.pop(way)
                        print(f"{way}: {one.seconds:.1f} s, processor {one.processor:.1f} s", flush=True)
        finally:
            for one in going.values():
                os.killpg(one.process.pid, signal.SIGKILL)
    first = commands.pop(FIRST)
    found = {FIRST: {"seconds": first.seconds, "processor": first.processor}}
    for way, one in commands.items():
        wall, processor = one.seconds / first.seconds, one.processor / first.processor
        found[way] = {"seconds": one.seconds, "processor": one.processor, "ratio": wall, "processor_ratio": processor}
        print(f"{way} / {FIRST}: {wall:.2f}, processor {processor:.2f}")
    if given.to is not None:
        given.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
