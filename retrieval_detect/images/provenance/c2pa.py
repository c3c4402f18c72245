"""C2PA manifests, by c2pa-python (extra ``[c2pa]``): read and checked offline, nothing is fetched."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from retrieval_detect.images.provenance.words import short, source_type

NOT_READ = "present, not read (pip install 'retrieval-detect[c2pa]')"
_MOST = 16
"""Of actions and ingredients, no more are repeated."""


def read_manifest(data: bytes) -> dict[str, Any]:
    """What the manifest store of a file says, and whether its signature holds.

    ``state`` : ``"Trusted"`` (intact, by a signer on a list), ``"Valid"`` (intact, by anybody), ``"Invalid"``
    (altered since, or not signed well), ``"damaged"``, or ``"not read"`` without the package.
    """
    try:
        import c2pa
    except ImportError:
        return _facts({"validation_state": "not read"})
    try:
        with c2pa.Reader(io.BytesIO(data), context=_offline()) as reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError):
        store = {"validation_state": "damaged"}
    return _facts(_mapping(store))


@cache
def _offline() -> Any:
    """Settings under which a manifest that lies elsewhere, or a revoked signer, is not asked for online."""
    import c2pa

    settings = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def _facts(store: Mapping[str, Any]) -> dict[str, Any]:
    manifest = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    actions = [_action(action) for action in list(_actions(manifest))[:_MOST]]
    signature = _mapping(manifest.get("signature_info"))
    return {
        "state": short(str(store.get("validation_state", "Invalid"))),
        "problems": [
            short(str(_mapping(s).get("code"))) for s in _list(store.get("validation_status"))[:_MOST]
        ],
        "claim_generator": _generator(manifest),
        "signer": short(str(signature.get("issuer") or "")),
        "signed_at": short(str(signature.get("time") or "")),
        "actions": [action for action in actions if action],
        "ingredients": len(_list(manifest.get("ingredients"))),
    }


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in map(_mapping, _list(manifest.get("assertions"))):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            yield from map(_mapping, _list(_mapping(assertion.get("data")).get("actions")))


def _action(action: Mapping[str, Any]) -> dict[str, str]:
    agent = action.get("softwareAgent")
    name = _mapping(agent).get("name", agent)
    found = {
        "action": str(action.get("action") or ""),
        "software": name if isinstance(name, str) else "",
        "digital_source_type": source_type(str(action.get("digitalSourceType") or ""))[0],
    }
    return {key: short(value) for key, value in found.items() if value}


def _generator(manifest: Mapping[str, Any]) -> str:
    info = [_mapping(entry) for entry in _list(manifest.get("claim_generator_info"))]
    names = [" ".join(str(part) for part in (e.get("name"), e.get("version")) if part) for e in info]
    return short(", ".join(filter(None, names)) or str(manifest.get("claim_generator") or ""))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
