"""One made-up verdict, for tests of how verdicts are shown."""

from __future__ import annotations

from dataclasses import replace

from retrieval_detect.verdicts import Attribution, Evidence, IndexRef, Verdict, Votes

FAKE = Evidence(1, 81, "fake", 0.91234567, "sdxl", "", "fake/sdxl/17.png", "ab" * 32, "2026-10-01T12:00:00Z")
REAL = Evidence(2, 7, "real", 0.8, "", "camera", "real/7.jpg", "cd" * 32, "2026-10-01T12:00:00Z")
VERDICT = Verdict(
    input="photo.jpg",
    sha256="ef" * 32,
    verdict="unknown",
    reason="uncalibrated",
    reach=None,
    score=1.7412345678,
    method="density",
    k=200,
    votes=Votes(1, 1, 2, 0.48765432),
    nearest={"fake": 0.91234567, "real": 0.8},
    attribution=(Attribution("sdxl", 5, 0.71428571), Attribution("", 2, 0.28571429)),
    evidence=(FAKE, REAL),
    same_image=(),
    warnings=("96×96 is smaller than the encoder's 224×224", "second"),
    index=IndexRef("default", 7, "0f" * 32, 1495, 1440, 5),
    encoder="ViT-L-14:openai",
    engine="cpu-bfloat16-pillow",
    elapsed_s=0.312345,
)
CALIBRATED = replace(
    VERDICT,
    verdict="fake-like",
    reason="rare-among-photographs",
    reach="known sources",
    photographs="known",
    p_values={"real": 5 / 1251, "new": 0.21, "fake": 0.61, "typical": 0.33},
    alpha={"real": 0.05, "fake": 0.05},
    calibration={
        "photographs": 1250,
        "sources": 6,
        "as_high": 4,
        "of": "",
        "provisional": False,
        "new": {
            "sources": 6,
            "smallest": 1 / 7,
            "worst": {"source": "shoes", "share": 0.4},
            "nearest": {"source": "phone", "share": 0.1},
        },
    },
    coverage={
        "similarity": 0.61234567,
        "threshold": 0.58,
        "nearest": [{"source": "camera", "photographs": 7}, {"source": "", "photographs": 2}],
    },
    log10_lr=1.1,
    prior=0.01,
    probability=0.1128,
)
