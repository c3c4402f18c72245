"""Keeping mistakes and letting them go; see ``store.mistakes``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from retrieval_detect.encoders.agreement import require_same_encoder
from retrieval_detect.errors import UsageError
from retrieval_detect.images.labelled import refuse_both_labels
from retrieval_detect.names import checked, printable
from retrieval_detect.store.mistakes import mistakes_of, read_mistakes
from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.sweep import were_purged
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.mistakes import Mistakes
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.types import Embedded, EncoderSpec, Label

State: TypeAlias = Literal["new", "replaced", "known"]
"""What became of an image: kept, kept with another label or reason than before, or kept so already."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The generation, and of each content id what became of it; ``references`` are in the banks as well."""

    manifest: Manifest
    states: dict[bytes, State]
    references: frozenset[bytes]


def checked_reason(because: str) -> str:
    """How a label is known, as it is kept; ``UsageError`` without one, ``BadName`` if it is no line."""
    reason = checked(because, "the reason")
    if not reason:
        raise UsageError("a mistake is kept with how you know what it is", hint="Say it: --because TEXT")
    return reason


def keep_mistakes(
    store: Store, images: Sequence[Embedded], spec: EncoderSpec, *, label: Label, because: str
) -> Kept:
    """Keep images that are ``label``, whatever was said of them, as one generation.

    ``images`` : with all layers that the index stores, by an encoder that is ``spec``. ``because`` : how the
    label is known. Raises, and changes nothing: ``UsageError`` for no reason, another label, or what was
    purged; ``BadName`` for a reason that is no line of text; ``LabelConflict`` for a reference of the other
    label; ``EncoderMismatch`` for vectors that are not the index's.
    """
    reason = checked_reason(because)
    if label not in LABELS:
        raise UsageError(f"there is no label {printable(label)!r}", hint="Labels are real and fake.")
    given = {image.content_id: image for image in images}
    with store.writer() as writer:
        snapshot = writer.snapshot
        require_same_encoder(spec, snapshot)
        references = _references(snapshot, given, label)
        before = read_mistakes(snapshot)
        said = {
            image: (before.label(i), str(before.because[i])) for i, image in enumerate(before.content_ids)
        }
        states: dict[bytes, State] = {
            image: "new" if image not in said else "known" if said[image] == (label, reason) else "replaced"
            for image in given
        }
        changed = [image for image in given if states[image] != "known"]
        if not changed:
            return Kept(snapshot.manifest, states, references)
        fresh = mistakes_of(
            [given[image] for image in changed], snapshot.manifest.layers, label=label, because=reason
        )
        kept: Mistakes = before.take(before.others(changed)).followed_by(fresh)
        return Kept(writer.keep(kept), states, references)


def _references(snapshot: Snapshot, given: dict[bytes, Embedded], label: Label) -> frozenset[bytes]:
    """Which images are references; raises for those that cannot be kept."""
    if gone := were_purged(given, snapshot.manifest.purge):
        uri = given[min(gone)].item.uri
        raise UsageError(f"{uri} was purged from this index, which keeps nothing of it any more")
    stored = stored_images(snapshot, list(given))
    others = [
        f"{given[image].item.uri} ({label}) and a stored reference ({found.label})"
        for image, found in stored.items()
        if found.label != label
    ]
    refuse_both_labels(others, "nothing was kept")
    return frozenset(stored)


def forget_mistakes(store: Store, content_ids: Sequence[bytes]) -> Manifest:
    """Keep these no longer, as one generation; ``UsageError``, and nothing changes, if one is not kept."""
    with store.writer() as writer:
        before = read_mistakes(writer.snapshot)
        kept = set(before.content_ids.tolist())
        if unknown := [image for image in content_ids if image not in kept]:
            raise UsageError(
                f"no mistake is kept of {unknown[0].hex()}", hint="Those that are: rd bank list --by mistake"
            )
        return writer.keep(before.take(before.others(set(content_ids))))
