"""How ``index-v1`` was made. Run once, for format 1; the result is kept and never made again.

python -m tests.data.make_index_v1
"""

from __future__ import annotations

import json
from pathlib import Path

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.teach.build import Index
from tests.factories import png

HERE = Path(__file__).parent


def main() -> None:
    encoder = TinyEncoder()
    index = Index.create(HERE / "index-v1", encoder=encoder)
    for label, start, count in (("real", 0, 30), ("fake", 100, 35)):
        items = [
            from_bytes(png(seed, fake=label == "fake"), f"made-up/{seed}.png")
            for seed in range(start, start + count)
        ]
        named = {"source": "camera"} if label == "real" else {"generator": "grid"}
        index.apply(index.plan_add(items, label=label, **named), encoder=encoder)
    index.remove([30, 31], reason="to have tombstones")
    verdict = Detector.load(index.folder, encoder=encoder).query(png(999, fake=True))
    (HERE / "index-v1.verdict.json").write_text(json.dumps(verdict.to_dict(), indent=1) + "\n")


if __name__ == "__main__":
    main()
