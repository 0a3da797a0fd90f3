"""Three DINO training loops on the same images, crops, backbone and head: octdino, lightly, and a naive loop."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import update_momentum
from lightly.transforms import DINOTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from octdino.config import AugmentSettings, ModelSettings, PretrainSettings
from octdino.models.backbones import create_backbone, num_features
from octdino.models.initial_weights import Start
from octdino.pretrain.pretraining_data import PretrainData, read_data
from octdino.pretrain.trainer import Trainer
from octdino.training.checkpoints import RunState
from octdino.training.precision import pick_device
from octdino.training.throughput import StepTimer

HEAD = {"hidden_dim": 2048, "bottleneck_dim": 256}
CLIP = 3.0
MOMENTUM = 0.996
EPOCHS = 1_000_000  # so that no schedule ends during the benchmark


@dataclass(frozen=True)
class Task:
    """What is trained: a backbone on two large and `local_views` small crops, of `sizes` px."""

    backbone: str
    sizes: tuple[int, int]
    local_views: int
    batch: int
    prototypes: int = 4096

    @property
    def crops(self) -> str:
        return f"2 x {self.sizes[0]} + {self.local_views} x {self.sizes[1]}"

    def augment(self) -> AugmentSettings:
        large, small = self.sizes
        return AugmentSettings(global_size=large, local_size=small, local_views=self.local_views)


class Octdino:
    """The trainer of `octdino pretrain`."""

    def __init__(self, task: Task, data: PretrainData, precision: str, compiled: bool = False) -> None:
        values = {**HEAD, "prototypes": task.prototypes, "momentum": MOMENTUM, "clip_grad": CLIP, "head_norm": False}
        settings = PretrainSettings(
            methods=["dino"],
            variants={"dino": values},
            batch_size=task.batch,
            epochs=EPOCHS,
            augment=task.augment(),
            precision=precision,
            compile=compiled,
        )
        start = Start(settings.variant("dino"), ModelSettings(timm=task.backbone), task.backbone, 0, 0)
        self.trainer = Trainer(settings, "dino", start, data, 0, RunState(Path(os.devnull), {}, 1e9))
        self.trainer.method.train()
        self.trainer.count_flops()
        self.timer = self.trainer.throughput.timer

    @classmethod
    def on(cls, task: Task, store: Path, precision: str, compiled: bool = False) -> "Octdino":
        """Build the loop on all scans of a store."""
        return cls(task, read_data(store, None), precision, compiled)

    def begin(self) -> None:
        """No-op: nothing to start."""

    def end(self) -> None:
        """No-op: nothing to stop."""

    def steps(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            self.trainer.take_step()
        self.trainer.skipped.read()


class PngFiles(Dataset[list[Tensor]]):
    """Dataset of PNG files, each opened and transformed in the process that reads it."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], list[Tensor]], timer: StepTimer) -> None:
        self._paths = sorted(folder.glob("*.png"))
        self._transform, self._clock = transform, timer

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        with self._clock.part("data"), Image.open(self._paths[index]) as file:
            file.load()
        with self._clock.part("augmentation"):
            return self._transform(file)


class PeerLoop(ABC):
    """Base class of the two other loops: files through a DataLoader, student, teacher, AdamW; float32."""

    def __init__(self, task: Task, folder: Path, workers: int, statistics: tuple[list[float], list[float]]) -> None:
        self.task, self.device = task, pick_device()
        self.timer = StepTimer(self.device)
        inside = (
            StepTimer(torch.device("cpu")) if workers else self.timer
        )  # times of worker processes are not collected
        dataset = PngFiles(folder, self.transform(*statistics), inside)
        self._loader = DataLoader(
            dataset,
            task.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        torch.manual_seed(0)
        self.student, self.teacher = (self._network().to(self.device) for _ in range(2))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4, weight_decay=0.04)

    def _network(self) -> nn.ModuleDict:
        backbone = create_backbone(ModelSettings(timm=self.task.backbone), 1, self.task.sizes[0])
        return nn.ModuleDict({"backbone": backbone, "head": self.head(num_features(backbone))})

    def begin(self) -> None:
        """Start the workers, if there are any, and let them fill their queues, untimed."""
        self._batches = self._endless()
        if self._loader.num_workers:
            next(self._batches)

    def end(self) -> None:
        """Stop the workers, which would otherwise run while other loops are timed."""
        self._batches.close()

    def steps(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            if self._loader.num_workers:
                with self.timer.part("data"):  # waiting time; without workers the dataset times itself
                    views = next(self._batches)
            else:
                views = next(self._batches)
            self.step([view.to(self.device, non_blocking=True) for view in views])

    def _endless(self) -> Generator[list[Tensor]]:
        while True:
            yield from self._loader

    @abstractmethod
    def transform(self, mean: list[float], std: list[float]) -> Callable[[Image.Image], list[Tensor]]:
        """Return what makes the views of one image, standardized."""

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return a head for features of this length."""

    @abstractmethod
    def step(self, views: list[Tensor]) -> None:
        """Take one optimizer step on a batch of views."""


class Lightly(PeerLoop):
    """lightly's components, combined as in its documentation's example: one forward per view, update_momentum."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._loss = DINOLoss(output_dim=self.task.prototypes, warmup_teacher_temp_epochs=5).to(self.device)

    def transform(self, mean: list[float], std: list[float]) -> Callable[[Image.Image], list[Tensor]]:
        s = self.task.augment()
        made: Callable[[Image.Image], list[Tensor]] = DINOTransform(
            global_crop_size=s.global_size,
            global_crop_scale=s.global_scale,
            local_crop_size=s.local_size,
            local_crop_scale=s.local_scale,
            n_local_views=s.local_views,
            cj_prob=1.0,
            cj_strength=1.0,
            cj_bright=s.brightness_max,
            cj_contrast=s.contrast_max,
            cj_sat=0.0,
            cj_hue=0.0,
            random_gray_scale=0.0,
            gaussian_blur=s.blur_p,
            sigmas=s.blur_sigma,
            solarization_prob=0.0,
            normalize={"mean": mean, "std": std},
        )
        return made

    def head(self, dim: int) -> nn.Module:
        head: nn.Module = DINOProjectionHead(dim, HEAD["hidden_dim"], HEAD["bottleneck_dim"], self.task.prototypes)
        return head

    def step(self, views: list[Tensor]) -> None:
        with self.timer.part("average"):
            update_momentum(self.student, self.teacher, MOMENTUM)
        with self.timer.part("forward"):
            with torch.no_grad():
                teacher = [self.teacher["head"](self.teacher["backbone"](view)) for view in views[:2]]
            student = [self.student["head"](self.student["backbone"](view)) for view in views]
            loss = self._loss(teacher, student, epoch=10)
        with self.timer.part("backward"):
            torch.autograd.backward(loss)
        with self.timer.part("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()


class NaiveHead(nn.Module):
    """DINO head: an MLP and a weight-normalized layer without bias, as in the authors' code."""

    def __init__(self, dim: int, prototypes: int) -> None:
        super().__init__()
        hidden, bottleneck = HEAD["hidden_dim"], HEAD["bottleneck_dim"]
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, prototypes, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(nn.functional.normalize(self.mlp(x), dim=-1))
        return out


class Naive(PeerLoop):
    """torchvision transforms on PIL images, pairs of views in a loop, clipping and EMA per parameter."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._center = torch.zeros(self.task.prototypes, device=self.device)

    def transform(self, mean: list[float], std: list[float]) -> Callable[[Image.Image], list[Tensor]]:
        s = self.task.augment()

        def view(size: int, scale: tuple[float, float]) -> transforms.Compose:
            blur = transforms.GaussianBlur(7, s.blur_sigma)
            return transforms.Compose(
                [
                    transforms.RandomResizedCrop(size, scale, s.ratio),
                    transforms.RandomHorizontalFlip(s.flip_p),
                    transforms.ColorJitter(s.brightness_max, s.contrast_max),
                    transforms.RandomApply([blur], s.blur_p[0]),  # one for all views by default
                    transforms.ToTensor(),
                    transforms.Normalize(mean, std),
                ]
            )

        large, small = view(s.global_size, s.global_scale), view(s.local_size, s.local_scale)
        return lambda image: [large(image) for _ in range(2)] + [small(image) for _ in range(s.local_views)]

    def head(self, dim: int) -> nn.Module:
        return NaiveHead(dim, self.task.prototypes)

    def step(self, views: list[Tensor]) -> None:
        with self.timer.part("forward"):
            with torch.no_grad():
                teacher = self.teacher["head"](self.teacher["backbone"](torch.cat(views[:2]))).chunk(2)
            features = [self.student["backbone"](torch.cat(part)) for part in (views[:2], views[2:])]
            student = self.student["head"](torch.cat(features)).chunk(len(views))
            loss = self._loss(teacher, student)
        with self.timer.part("backward"):
            torch.autograd.backward(loss)
        with self.timer.part("optimizer"):
            for parameter in self.student.parameters():
                assert parameter.grad is not None
                norm = parameter.grad.norm().item()
                if norm > CLIP:
                    parameter.grad.mul_(CLIP / norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        with self.timer.part("average"), torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.mul_(MOMENTUM).add_((1 - MOMENTUM) * other)
        loss.item()

    def _loss(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
        terms = []
        for i, teacher_logits in enumerate(teacher):
            target = torch.softmax((teacher_logits - self._center) / 0.04, dim=-1)
            for j, student_logits in enumerate(student):
                if i != j:
                    terms.append(-(target * torch.log_softmax(student_logits / 0.1, dim=-1)).sum(-1).mean())
        self._center = 0.9 * self._center + 0.1 * torch.cat(list(teacher)).mean(0)
        return torch.stack(terms).mean()
