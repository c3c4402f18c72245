"""Use case: train an image encoder itself on photographs and fakes; the result is a new encoder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import quiet

if TYPE_CHECKING:
    from retrieval_detect.encoders._objectives import Objective
    from retrieval_detect.encoders._trainable import Trainable
    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.heads.base import Progress
    from retrieval_detect.images.labelled import LabelledImages
    from retrieval_detect.types import Failure, ImageItem, Int64, UInt8

TRAINED = ("all", "blocks", "lora")
OBJECTIVES = ("binary", "caption")
GAIN = 0.001
"""By how much held-out accuracy must rise to count."""
RATE_STEPS = 3
"""Learning rates tried, each a tenth of the one before."""
MARGIN = 256 / 224
"""Side that images are resized to before a square is cut from them, over the side of the square."""
MAX_WORKERS = 16


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """How to train.

    ``train`` : ``"all"``, the last ``blocks``, or ``"lora"`` of ``rank``. ``objective`` : ``"binary"`` or
    ``"caption"``. ``augment`` : probability of blur and of JPEG, 0.1 or 0.5 in the papers. ``lr`` : 1e-4
    there, for CNNs; a whole pretrained transformer wants 1e-5. ``pretrained`` : start from its weights, from
    ``weights`` if given, or at random. ``workers`` : reading threads; as many as cores if not given.
    """

    train: str = "all"
    blocks: int = 2
    rank: int = 8
    objective: str = "binary"
    augment: float = 0.1
    epochs: int = 100
    patience: int = 5
    lr: float = 1e-4
    batch: int = 32
    seed: int = 0
    pretrained: bool = True
    weights: Path | None = None
    device: str = "auto"
    offline: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        allowed = {"train": TRAINED, "objective": OBJECTIVES}
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} {getattr(self, name)!r} is unknown", hint=f"Use {', '.join(choices)}."
                )
        for name in ("blocks", "rank", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        if self.batch < 2 or not 0 <= self.augment <= 1 or not self.lr > 0:
            raise UsageError("batch must be at least 2, augment between 0 and 1, and lr above 0")


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """What came of it.

    Load it with ``load_encoder(encoder, weights=weights)``. ``head`` : its classifier's safetensors file, for
    ``rd head import``, with its JSON beside it. ``accuracy`` : on the ``n_held_out`` images that chose the
    epoch, labels counted alike; ``accuracy_before`` training. ``captions`` : what the caption objective
    told apart.
    """

    encoder: str
    weights: Path
    head: Path
    fingerprint: str
    parent_fingerprint: str
    epoch: int
    epochs_run: int
    losses: tuple[float, ...]
    accuracy: float
    accuracy_before: float
    n_fit: int
    n_held_out: int
    captions: tuple[str, ...]
    failures: tuple[Failure, ...]


def finetune(
    encoder_name: str,
    images: Sequence[tuple[ImageItem, bool]],
    *,
    options: FinetuneOptions,
    out: Path,
    text: TextTower | None = None,
    progress: Progress = quiet,
) -> FinetuneReport:
    """Train an encoder on (image, is it fake) pairs and write its weights to ``out``, a new ``.safetensors``.

    Wang et al. 2020 (CNNDetection), §4.1, and Ojha, Li and Lee 2023 (UniversalFakeDetect), §4.2: squares
    resized, blurred and compressed at random, cut out at random and mirrored; AdamW without decay;
    the rate falls to a tenth after ``patience`` epochs without gain on held-out images, and training ends
    at the third; the best epoch is kept. ``objective="caption"`` matches images to one caption a
    class instead, through the frozen tower ``text``: Moskowitz, Gaona and Peterson 2024.

    The first folder of ``ImageItem.relative`` names the generator or source. Held-out images are of other
    generators and sources where there are several, and never equal to a training image. Unreadable images
    are left out and reported. Nothing is written before the end. Raises ``UsageError`` where the images
    cannot teach it.
    """
    import torch

    from retrieval_detect.encoders._trainable import open_encoder
    from retrieval_detect.images.labelled import survey

    _check_place(out)
    if options.objective == "caption" and text is None:
        raise UsageError("captions are matched by a text tower, and none was given")
    n_workers = options.workers or min(os.cpu_count() or 1, MAX_WORKERS)
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="rd-decode")
    try:
        found = survey(images, pool)
        parts = _parts(found, options.seed)
        # The caller's own random numbers must not depend on whether something was trained before.
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            tower = open_encoder(
                encoder_name,
                weights=options.weights,
                pretrained=options.pretrained,
                device=options.device,
                from_cache_only=options.offline,
            )
            course = _Course(tower, found, parts, options, pool, text)
            course.run(progress)
    finally:
        pool.shutdown(cancel_futures=True)
    return course.written(out)


def _check_place(out: Path) -> None:
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise UsageError(
            f"weights cannot be written to '{out}'", hint="Name a .safetensors file in a folder that exists."
        )
    for path in (out, *_head_paths(out).values()):
        if path.exists():
            raise UsageError(
                f"'{path}' exists; an encoder is never overwritten, as indexes may be built on it",
                hint="Name another file.",
            )


def _head_paths(out: Path) -> dict[str, Path]:
    return {suffix: out.with_suffix(f".head.{suffix}") for suffix in ("safetensors", "json")}


# ---------------------------------------------------------------- images


def _parts(found: LabelledImages, seed: int) -> tuple[Int64, Int64]:
    """Positions to learn from, and those to stop by."""
    from retrieval_detect.heads.stopping import split_for_stopping
    from retrieval_detect.vectors import Rows

    failed = f"; {len(found.failures)} could not be read" if found.failures else ""
    for fake, what in ((True, "fakes"), (False, "photographs")):
        n = found.different(fake=fake)
        if n < 2:
            raise UsageError(
                f"{n or 'no'} different {what} to train on, at least 2 are needed{failed}",
                hint=f"First failure: {found.failures[0].uri}: {found.failures[0].message}" if failed else "",
            )
    rows = Rows.of(fake=found.fake, names=np.array(found.names), groups=found.groups)
    fit, stop = split_for_stopping(rows, seed=seed)
    if any(len(np.unique(found.fake[part])) < 2 for part in (fit, stop)):
        raise UsageError(
            "no images can be held out: the same files lie in the folders of several generators or sources",
            hint="Remove the copies.",
        )
    return np.flatnonzero(fit), np.flatnonzero(stop)


# ---------------------------------------------------------------- training


@dataclass(eq=False)
class _Course:
    """One training from start to end."""

    tower: Trainable
    found: LabelledImages
    parts: tuple[Int64, Int64]
    options: FinetuneOptions
    pool: ThreadPoolExecutor
    text: TextTower | None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epoch: int = 0

    def __post_init__(self) -> None:
        from retrieval_detect.encoders._objectives import captions

        self.parent = self.tower.encoder.spec.fingerprint
        self.captions: tuple[str, ...] = ()
        self.classes = self.found.fake.astype(np.int64)
        if self.options.objective == "caption":
            self.captions, self.classes = captions(np.array(self.found.names), self.found.fake)
        self.objective = self._objective()
        match self.options.train:
            case "all":
                self.tower.open_all()
            case "blocks":
                self.tower.open_last(self.options.blocks)
            case _:
                self.tower.open_low_rank(self.options.rank, scale=1.0)

    def _objective(self) -> Objective:
        import torch

        from retrieval_detect.encoders._objectives import Binary, Captions

        device = torch.device(self.tower.encoder.spec.device)
        n_classes = max(len(self.captions), 2)
        counts = torch.from_numpy(np.bincount(self.classes[self.parts[0]], minlength=n_classes)).float()
        if self.text is None or not self.captions:
            return Binary(self.tower.d, counts, device)
        if self.text.d != self.tower.d:
            raise UsageError(
                f"text features have {self.text.d} dimensions, image features {self.tower.d}",
                hint="Use the text tower of the same model.",
            )
        features = torch.nn.functional.normalize(self.text.encode(self.captions))
        # A generator that is held out whole has no image to learn from; its caption takes part all the same.
        return Captions(features, self.text.logit_scale, counts.clamp(min=1), device)

    def run(self, progress: Progress) -> None:
        """Train, and leave the network as it was in its best epoch."""
        import torch

        moving = [*self.tower.parameters(), *self.objective.parameters()]
        optimiser = torch.optim.AdamW(moving, lr=self.options.lr, weight_decay=0.0)
        self.accuracies = [self._accuracy()]
        best, since, step = -np.inf, 0, 0
        for epoch in range(1, self.options.epochs + 1):
            self.losses.append(self._learn(epoch, optimiser))
            self.accuracies.append(self._accuracy())
            progress(f"epoch {epoch}: loss {self.losses[-1]:.4f}, held out {self.accuracies[-1]:.1%} right")
            since += 1
            if self.accuracies[-1] >= best + GAIN:
                best, since, self.epoch = self.accuracies[-1], 0, epoch
                live = self.tower.network.state_dict(), self.objective.state()
                kept = [{name: x.detach().cpu().clone() for name, x in state.items()} for state in live]
            if since == self.options.patience:
                since, step = 0, step + 1
                if step == RATE_STEPS:
                    break
                optimiser.param_groups[0]["lr"] = self.options.lr / 10**step
        self.tower.network.load_state_dict(kept[0])
        for name, x in self.objective.state().items():
            x.detach().copy_(kept[1][name])
        self.tower.merge()

    def _learn(self, epoch: int, optimiser: Any) -> float:
        import torch

        device = self.tower.encoder.spec.device
        order = np.random.default_rng([self.options.seed, epoch]).permutation(self.parts[0])
        self.tower.training()
        total, n = 0.0, 0
        for positions, squares in self._loaded(order, lambda i: self._augmented(i, epoch)):
            if len(positions) < 2:  # batch statistics of a single image mean nothing
                continue
            with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
                features = self.tower.features(squares)
            classes = torch.from_numpy(self.classes[positions]).to(device)
            loss = self.objective.loss(features, classes)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, n = total + loss.item() * len(positions), n + len(positions)
        if not np.isfinite(total):
            raise UsageError(f"training diverged in epoch {epoch}", hint=f"Set lr below {self.options.lr:g}.")
        return total / n

    def _accuracy(self) -> float:
        """Share of held-out images on the right side of 0, labels alike; squares as the encoder sees them."""
        import torch

        self.tower.network.eval()
        right = []
        for positions, squares in self._loaded(self.parts[1], self._plain):
            with torch.no_grad():
                fake = self.objective.scores(self.tower.features(squares)).cpu().numpy() > 0
            right.append(fake == self.found.fake[positions])
        correct, labels = np.concatenate(right), self.found.fake[self.parts[1]]
        return float((correct[labels].mean() + correct[~labels].mean()) / 2)

    # ------------------------------------------------------------ pixels

    def _loaded(self, order: Int64, load: Callable[[int], UInt8]) -> Iterator[tuple[Int64, UInt8]]:
        """Batches of ``order``; the next two are read while one is learnt."""
        waiting: deque[tuple[Int64, list[Any]]] = deque()
        for start in range(0, len(order), self.options.batch):
            positions = order[start : start + self.options.batch]
            waiting.append((positions, [self.pool.submit(load, int(i)) for i in positions]))
            if len(waiting) > 2:
                positions, futures = waiting.popleft()
                yield positions, np.stack([future.result() for future in futures])
        for positions, futures in waiting:
            yield positions, np.stack([future.result() for future in futures])

    def _plain(self, i: int) -> UInt8:
        from retrieval_detect.images.labelled import pixels

        return self.tower.encoder.prepare(pixels(self.found.items[i]))

    def _augmented(self, i: int, epoch: int) -> UInt8:
        """A square that depends on seed, epoch and image alone, not on which thread was faster."""
        from retrieval_detect.encoders.preprocess import prepare
        from retrieval_detect.images.augment import blur_and_jpeg, crop_and_flip
        from retrieval_detect.images.labelled import pixels

        rng = np.random.default_rng([self.options.seed, epoch, i])
        preprocessing = self.tower.encoder.spec.preprocessing
        larger = replace(preprocessing, size=round(MARGIN * preprocessing.size))
        square = prepare(pixels(self.found.items[i]), larger)
        square = blur_and_jpeg(square, rng, probability=self.options.augment)
        return crop_and_flip(square, rng, size=preprocessing.size)

    # ------------------------------------------------------------ results

    def written(self, out: Path) -> FinetuneReport:
        """Both files, the weights last: with them the encoder is there."""
        from retrieval_detect.files import sha256_bytes, write_bytes
        from retrieval_detect.heads.caption import CaptionHead
        from retrieval_detect.heads.linear import LinearHead

        data = self.tower.to_bytes()
        spec = replace(self.tower.encoder.spec, weights_sha256=sha256_bytes(data))
        head = CaptionHead() if self.captions else LinearHead(optimizer="adamw")
        head.restore(self.objective.arrays())  # what gave the scores in training
        if self.captions:
            head.restore_facts({"classes": np.unique(np.array(self.found.names)[self.found.fake]).tolist()})
        files = {_head_paths(out)[s]: x for s, x in head.to_files(encoder=spec.fingerprint).items()}
        try:
            for path, content in (files | {out: data}).items():
                write_bytes(path, content)
        except BaseException:
            for path in files:
                path.unlink(missing_ok=True)
            raise
        return FinetuneReport(
            encoder=spec.name,
            weights=out,
            head=_head_paths(out)["safetensors"],
            fingerprint=spec.fingerprint,
            parent_fingerprint=self.parent,
            epoch=self.epoch,
            epochs_run=len(self.losses),
            losses=tuple(self.losses),
            accuracy=self.accuracies[self.epoch],
            accuracy_before=self.accuracies[0],
            n_fit=len(self.parts[0]),
            n_held_out=len(self.parts[1]),
            captions=self.captions,
            failures=self.found.failures,
        )
