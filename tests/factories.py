"""Made-up material for tests: images, embeddings, stores. Everything follows from a seed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_detect.store.append import NewRow
from retrieval_detect.store.manifest import Manifest
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import Embedded, EncoderSpec, Facts, ImageItem, Preprocessing

D = 32
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def spec(*, weights: str = "00", engine: str = "float32", layers: tuple[str, ...] = ("proj",)) -> EncoderSpec:
    pre = Preprocessing("clip", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return EncoderSpec("made-up", "made-up", weights, False, pre, dict.fromkeys(layers, D), precision=engine)


def digest(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def embedded(name: object, *, vector: np.ndarray | None = None, phash: int | None = None) -> Embedded:
    """An image called ``name`` with a vector and a hash that follow from the name."""
    rng = np.random.default_rng(int.from_bytes(digest(name)[:8], "big"))
    drawn = rng.normal(size=D).astype(np.float32)
    hashed = int(rng.integers(0, 2**63)) * 2 + 1
    return Embedded(
        ImageItem(f"{name}.png", bytes),
        digest(name),
        hashed if phash is None else phash,
        64,
        48,
        "PNG",
        {"proj": drawn if vector is None else vector},
    )


def new_store(folder: Path) -> Store:
    canaries = np.random.default_rng(0).normal(size=(16, D)).astype(np.float32)
    return Store.create(folder, spec(), canaries={"proj": canaries})


def add(store: Store, images: list[Embedded], label: str, name: str = "", **facts: str) -> Manifest:
    """Store ``images`` as references of one generator or source."""
    named = {"generator" if label == "fake" else "source": name} | facts
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(images)
        rows = [NewRow(image.content_id, image.item.uri, Facts(label, **named)) for image in images]
        return writer.add(Addition(rows), staging)


def names(prefix: str, n: int) -> list[Embedded]:
    return [embedded(f"{prefix}-{i}") for i in range(n)]


def picture(seed: int, *, side: int = 64, fake: bool = False) -> Image.Image:
    """A smooth random picture; "fakes" carry a fine grid that any encoder can see."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    if fake:
        grid = ((np.indices((side, side)).sum(axis=0) % 2) * 80 - 40)[:, :, None]
        pixels = pixels + grid
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def png(seed: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(seed, **options).save(buffer, "PNG")  # type: ignore[arg-type]
    return buffer.getvalue()


def write_pictures(folder: Path, seeds: range, *, fake: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed:04d}.png").write_bytes(png(seed, fake=fake))


def write_set(folder: Path, *, photographs: int, of_each_generator: int) -> Path:
    """A set to measure on: one camera, two generators."""
    write_pictures(folder / "real" / "camera", range(300, 300 + photographs))
    write_pictures(folder / "fake" / "sdxl", range(400, 400 + of_each_generator), fake=True)
    write_pictures(folder / "fake" / "flux", range(500, 500 + of_each_generator), fake=True)
    return folder
