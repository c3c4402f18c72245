"""May this encoder's vectors stand beside those of an index? Hard facts must be equal; engines must agree."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING

from retrieval_detect.encoders.canaries import CANARY_TOLERANCE, canary_vectors, centred_distance
from retrieval_detect.encoders.registry import ENTRY_POINT_GROUP
from retrieval_detect.errors import EncoderMismatch
from retrieval_detect.files import read_cache, sha256_bytes, user_cache, write_cache
from retrieval_detect.version import __version__

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import EncoderSpec

REMEMBERED = "engines.json"
_PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "openvino", "numpy", "pillow", "simplejpeg")
"""They make vectors of pixels."""


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


def require_agreement(encoder: Encoder, snapshot: Snapshot) -> None:
    """``engine_drift`` for questions: once an engine was found to agree, its canaries are not embedded again.

    The outcome is remembered in the user's cache folder, for the same canaries, layers, encoder, engine and
    versions. Disagreement is not, and an entry that is no distance within the tolerance counts for nothing.
    So whoever can write to that folder, and nobody else, can pass an engine off as one that agrees, to that
    user alone: nothing in an index can vouch for it, and what is added to an index is always measured
    (``engine_drift``), so that no entry ever reaches a manifest.
    """
    if encoder.spec.engine in snapshot.manifest.engines:
        return
    path, key = user_cache() / REMEMBERED, _setting(encoder.spec, snapshot)
    known = read_cache(path).get(key)
    if isinstance(known, float) and 0 <= known <= CANARY_TOLERANCE:
        return
    drift = engine_drift(encoder, snapshot)
    with suppress(OSError):  # then it is measured again, the next time
        write_cache(path, read_cache(path) | {key: drift})


def _setting(spec: EncoderSpec, snapshot: Snapshot) -> str:
    """Digest of all that the outcome follows from."""
    found = {"retrieval-detect": __version__}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    plug_ins = [(p.name, p.dist.version) for p in entry_points(group=ENTRY_POINT_GROUP) if p.dist]
    canaries = {layer: record.sha256 for layer, record in snapshot.manifest.canaries.items()}
    facts = [spec.fingerprint, spec.engine, platform.machine(), canaries, found, sorted(plug_ins)]
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())
