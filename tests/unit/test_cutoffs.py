"""Until when an encoder's training images can be from."""

from __future__ import annotations

import pytest

from retrieval_detect.evaluate.cutoffs import UNKNOWN, training_cutoff


@pytest.mark.parametrize(
    ("encoder", "until"),
    [
        ("ViT-L-14:openai", "2021-01"),
        ("ViT-L-14:openai@crop@pillow", "2021-01"),
        ("ViT-L-14-quickgelu:dfn2b", "2023-09"),
        ("ViT-B-32:laion2b_s34b_b79k", "2022-10"),
        ("ViT-L-14:commonpool_xl_s13b_b90k", "2023-04"),
        ("efficientnet-lite0", "2012"),
    ],
)
def test_known_encoders_have_a_date_and_its_source(encoder, until):
    found = training_cutoff(encoder)
    assert found.until == until and found.source
    assert until in str(found) and found.source in str(found)


@pytest.mark.parametrize("encoder", ["ViT-L-14", "timm:vit_base", "ViT-B-16-SigLIP2:webli", "tiny"])
def test_others_are_not_guessed(encoder):
    assert training_cutoff(encoder) is UNKNOWN
    assert str(UNKNOWN) == "its training data are not known"
