"""Which neighbours are the query's own image; they are shown, and do not vote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_detect.types import NEAR_COSINE, NEAR_HAMMING

if TYPE_CHECKING:
    from typing import Any

    from retrieval_detect.types import Bool, Float32


def same_image(similarities: Float32, hamming: Any, *, same_content: Bool) -> Bool:
    """Rows with the query's content id, or near-duplicates of it. All arrays share one shape.

    ``similarities`` : float32, cosine. ``hamming`` : integers, bits in which the perceptual hashes
    differ. ``same_content`` : bool, whether the content id is the query's. A near-duplicate needs
    both witnesses: flat images share a hash by chance, and unlike images of one subject a cosine.
    """
    own: Bool = same_content | ((hamming <= NEAR_HAMMING) & (similarities >= NEAR_COSINE))
    return own
