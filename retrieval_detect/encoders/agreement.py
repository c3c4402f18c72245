"""May this encoder's vectors stand beside those of an index? Hard facts must be equal; engines must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_detect.encoders.canaries import CANARY_TOLERANCE, canary_vectors, centred_distance
from retrieval_detect.errors import EncoderMismatch, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import EncoderSpec


def require_layers(spec: EncoderSpec, layers: Sequence[str]) -> None:
    """Raise ``UsageError`` if the encoder cannot give one of ``layers``."""
    missing = [layer for layer in layers if layer not in spec.layers]
    if missing or not layers:
        raise UsageError(
            f"{spec.name} has no layer {', '.join(missing) or '(none named)'}",
            hint=f"It has: {', '.join(spec.layers)}",
        )


def require_same_encoder(spec: EncoderSpec, snapshot: Snapshot) -> None:
    """Raise ``EncoderMismatch`` unless ``spec`` names the encoder the index was built with."""
    built = snapshot.manifest.encoder
    if spec.fingerprint == built.fingerprint:
        return
    differs = [
        name
        for name in ("architecture", "weights_sha256", "quick_gelu", "preprocessing")
        if getattr(spec, name) != getattr(built, name)
    ]
    raise EncoderMismatch(
        f"index {snapshot.folder.name!r} was built with {built.name}; this is {spec.name} "
        f"(different {', '.join(differs).replace('_', ' ')})",
        hint="Use the encoder it was built with (rd index info), or build another index under another name.",
    )


def engine_drift(encoder: Encoder, snapshot: Snapshot) -> float:
    """Largest centred cosine distance between this engine's canary vectors and the index's own.

    0.0 without any work for an engine that the index knows. Raises ``EncoderMismatch`` above
    ``CANARY_TOLERANCE``: the same network run another way then gives other neighbours.
    """
    manifest = snapshot.manifest
    if encoder.spec.engine in manifest.engines:
        return manifest.engines[encoder.spec.engine]
    stored, here = snapshot.canaries(), canary_vectors(encoder, manifest.layers)
    drift = max(centred_distance(stored[layer], here[layer]) for layer in manifest.layers)
    if drift > CANARY_TOLERANCE:
        raise EncoderMismatch(
            f"engine {encoder.spec.engine} does not agree with index {snapshot.folder.name!r}: its canaries "
            f"differ by {drift:.1e}, more than {CANARY_TOLERANCE:.0e}",
            hint=f"Run it as it was built: engine {manifest.encoder.engine}.",
        )
    return drift
