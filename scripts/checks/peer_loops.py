"""The training loops that `peers.py` compares: a bare one, kdx's, and those of its peers, each with its own networks."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

BATCH, CLASSES, SIDE = 64, 10, 32
STEPS = 130  # in an epoch
LR, MOMENTUM, DECAY, TEMPERATURE = 0.05, 0.9, 5e-4, 4.0
NEVER = 10**6  # steps between two lines that a peer prints
ROLES = ("student", "teacher")
Pace = Callable[[], object]  # called before each step
Loop = Callable[[str, Pace], None]  # trains in a folder


class Paced:
    """A loader that gives the same batch again and again; it has the attributes that loops ask of a DataLoader."""

    def __init__(self, pace: Pace, *further: Any) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        images = torch.rand(BATCH, 3, SIDE, SIDE, generator=generator)
        self.batch = (images, torch.randint(0, CLASSES, (BATCH,), generator=generator), *further)
        self.pace = pace
        self.dataset = self.sampler = self.batch_sampler = None

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Any]:
        for _ in range(STEPS):
            self.pace()
            yield self.batch


def sgd(parameters: Any) -> Any:
    """Return the optimizer of all."""
    import torch

    return torch.optim.SGD(parameters, LR, momentum=MOMENTUM, weight_decay=DECAY)


def bare(folder: str, pace: Pace) -> None:
    """Train in a plain loop: kdx's networks, KL divergence, one optimizer."""
    from kdx.training.bare_step import bare_step

    student, teacher = kdx_networks()
    loader = Paced(pace)
    images, label = loader.batch
    step = bare_step(student.train(), teacher.eval(), sgd(student.parameters()), label)
    for _ in loader:
        step(images, images)


def kdx_networks() -> tuple[Any, Any]:
    """Return student and teacher as kdx has them."""
    from kdx.networks.network import Network

    return Network("cifar_resnet20", CLASSES, 3), Network("cifar_resnet56", CLASSES, 3)


def kdx(variant: str, folder: str, pace: Pace) -> None:
    """Train in a run of kdx-train, in a variant of kdx-benchmark; for kept logits, a run before it has written them."""
    from kdx import api
    from kdx.benchmarks.request import KEPT, VARIANTS, words_of
    from kdx.training.module import DistillationModule

    own = DistillationModule.training_step
    words = [*words_of("resnet56"), f"data.source.train={STEPS * BATCH}", *VARIANTS[variant], f"outputs={folder}/outputs"]
    if variant == KEPT:
        api.train(*words, f"hydra.run.dir={folder}/first")

    def training_step(module: DistillationModule, *batch: Any) -> Any:
        pace()
        return own(module, *batch)

    with patch.object(DistillationModule, "training_step", training_step):
        api.train(*words, f"hydra.run.dir={folder}/{variant}")


def ctkd(folder: str, pace: Pace) -> None:
    """Train in CTKD's loop, with KD."""
    import torch

    loops, models = (importlib.import_module(name) for name in ("helper.loops", "models"))
    criterion = importlib.import_module("distiller_zoo.KD").DistillKL()
    student, teacher = models.model_dict["resnet20"](num_classes=CLASSES), models.model_dict["resnet56"](num_classes=CLASSES)
    opt = SimpleNamespace(
        have_mlp=0, distill="kd", gpu=0, multiprocessing_distributed=False, kd_T=TEMPERATURE, gamma=0.1, alpha=0.9, beta=0.0
    )
    opt.print_freq = NEVER
    criteria = torch.nn.ModuleList([torch.nn.CrossEntropyLoss(), criterion, criterion])
    modules = torch.nn.ModuleList([student, teacher])
    loops.train_distill(1, Paced(pace), modules, None, None, criteria, sgd(student.parameters()), opt)


def mdistiller(folder: str, pace: Pace) -> None:
    """Train in mdistiller's trainer, with KD."""
    import torch

    cfg = importlib.import_module("mdistiller.engine.cfg").CFG
    networks = importlib.import_module("mdistiller.models").cifar_model_dict
    student, teacher = (networks[name][0](num_classes=CLASSES) for name in ("resnet20", "resnet56"))
    cfg.merge_from_list(["LOG.PREFIX", folder, "SOLVER.LR", LR, "SOLVER.WEIGHT_DECAY", DECAY])
    distiller = importlib.import_module("mdistiller.distillers").distiller_dict["KD"](student, teacher, cfg)
    trainer = importlib.import_module("mdistiller.engine").trainer_dict["base"]
    loader = Paced(pace, torch.arange(BATCH))
    trainer("peers", torch.nn.DataParallel(distiller), loader, loader, cfg).train_epoch(1)


def torchdistill(folder: str, pace: Pace) -> None:
    """Train in the loop of torchdistill's example, with the settings of its CIFAR-10 example for KD."""
    import torch

    box = importlib.import_module("torchdistill.core.distillation").get_distillation_box
    networks = importlib.import_module("torchdistill.models.classification.resnet")
    loop = importlib.import_module("examples.torchvision.image_classification").train_one_epoch
    places = {f"{role}_module_path": "." for role in ROLES} | {f"{role}_module_io": "output" for role in ROLES}
    kd = {"key": "KDLoss", "kwargs": {**places, "temperature": TEMPERATURE, "alpha": 0.9, "reduction": "batchmean"}}
    settings: dict[str, Any] = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student, teacher = (make(num_classes=CLASSES).to(device) for make in (networks.resnet20, networks.resnet56))
    made = box(teacher, student, {}, settings, device, None, False, 1)
    made.train_data_loader = Paced(pace, {})
    made.pre_epoch_process(epoch=0)
    loop(made, device, 0, NEVER)


def timm(folder: str, pace: Pace) -> None:
    """Train in the loop of timm's train.py, with its task for KD."""
    import torch

    train, tasks = importlib.import_module("train"), importlib.import_module("timm.task")
    args = train.parser.parse_args(["--no-prefetcher", "--log-interval", str(NEVER)])
    args.prefetcher = args.distributed = False
    args.grad_accum_steps = args.world_size = 1
    args.rank = args.local_rank = 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student, teacher = (network.model for network in kdx_networks())
    student.in_chans = teacher.in_chans = 3  # timm asks it of its networks
    task = tasks.LogitDistillationTask(
        student, teacher, torch.nn.CrossEntropyLoss(), temperature=TEMPERATURE, distill_loss_weight=0.9, task_loss_weight=0.1,
        device=device,
    )  # fmt: skip
    task.to(device)
    train.train_one_epoch(0, task.get_trainable_module(), Paced(pace), sgd(student.parameters()), args, task, device)


PEERS: dict[str, Loop] = {loop.__name__: loop for loop in (ctkd, mdistiller, torchdistill, timm)}
KDX = {f"kdx {variant}": functools.partial(kdx, variant) for variant in ("exact", "safe", "kept")}
