"""Kinds of approximate FAISS index over a bank's codes: how each is built, and asked for candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import FaissUnavailable, SearchError, UsageError
from retrieval_detect.search._faiss import faiss, faiss_errors
from retrieval_detect.search.exact import BLOCK_ROWS

if TYPE_CHECKING:
    from retrieval_detect.types import Float16, Float32

_LISTS = 2
"""Lists, as a multiple of the root of the rows."""
_ROWS_A_LIST = 40
"""Fewest rows a list: with less, FAISS finds k-means ill-founded."""
_TRAINED_A_LIST = 64
_TRAINED = 4096
_PROBES = (4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to propose candidates without looking at every row.

    ``factory`` : FAISS's own description; ``lists`` in it is filled in. ``fourcc`` : how its files may
    begin. ``needs`` : the FAISS class it is made of, ``extra`` the extra of rd that brings it. ``refine`` :
    candidates measured for each neighbour wanted, the more the coarser its codes. ``efforts`` : from the
    least: lists probed or, of a graph, candidates kept while walking it.
    """

    name: str
    factory: str
    fourcc: tuple[bytes, ...]
    needs: str
    refine: int
    efforts: tuple[int, ...]
    extra: str = "cpu"
    graph: bool = False

    def require(self) -> None:
        """Raise ``FaissUnavailable`` where this FAISS cannot build it."""
        if not hasattr(faiss(), self.needs):
            raise FaissUnavailable(
                f"this FAISS has no {self.needs}, which {self.name} is made of",
                hint=f"pip install 'retrieval-detect[{self.extra}]' in a fresh environment, or choose "
                "another kind: rd index tune --kinds LIST, or none: rd index tune --exact",
            )

    def build(self, blocks: Sequence[Float16]) -> Any:
        """A FAISS index of the rows of ``blocks``, float16 (n, d) each, about unit norm, in their order."""
        self.require()
        n, d = sum(map(len, blocks)), blocks[0].shape[1]
        with faiss_errors(f"build {self.name}"):
            index = _on_gpu(blocks, d) if not self.factory else self._on_cpu(blocks, n, d)
        if index.ntotal != n:
            raise SearchError(f"FAISS built {self.name} over {index.ntotal:,} rows of {n:,}")
        return index

    def _on_cpu(self, blocks: Sequence[Float16], n: int, d: int) -> Any:
        library = faiss()
        lists = max(1, min(round(_LISTS * math.sqrt(n)), n // _ROWS_A_LIST))
        index = library.index_factory(d, self.factory.format(lists=lists), library.METRIC_INNER_PRODUCT)
        step = max(1, n // max(_TRAINED, _TRAINED_A_LIST * lists))
        index.train(np.concatenate([_wide(block[::step]) for block in blocks]))
        for block in blocks:
            for start in range(0, len(block), BLOCK_ROWS):
                index.add(_wide(block[start : start + BLOCK_ROWS]))
        return index

    def parameters(self, effort: int, c: int, selector: Any) -> Any:
        """FAISS's parameters for c candidates; ``selector`` tells the live rows, ``None``: all."""
        library, only = faiss(), {} if selector is None else {"sel": selector}
        if self.graph:
            return library.SearchParametersHNSW(efSearch=max(effort, c), **only)
        probing = library.SearchParametersIVF(nprobe=effort, **only)
        rotated = self.factory.startswith("RR,")
        return library.SearchParametersPreTransform(index_params=probing) if rotated else probing


def _on_gpu(blocks: Sequence[Float16], d: int) -> Any:
    """A CAGRA graph, built on the first GPU and brought back: it is walked by the CPU."""
    library = faiss()
    graph = library.GpuIndexCagra(library.StandardGpuResources(), d, library.METRIC_INNER_PRODUCT)
    graph.train(np.concatenate([_wide(block) for block in blocks]))
    return library.index_gpu_to_cpu(graph)


def _wide(codes: Float16) -> Float32:
    wide: Float32 = codes.astype(np.float32)
    return wide


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("ivf-sq8", "IVF{lists},SQ8", (b"IwSq",), "IndexIVFScalarQuantizer", 2, _PROBES),
        # RaBitQ assumes no direction to matter more than another: hence the random rotation.
        Kind("ivf-rabitq", "RR,IVF{lists},RaBitQ", (b"IxPT",), "IndexIVFRaBitQ", 8, _PROBES),
        Kind("hnsw", "HNSW32_SQ8", (b"IHNs",), "IndexHNSWSQ", 2, (256, 512, 1024, 2048), graph=True),
        Kind("cagra", "", (b"IHNc", b"IHc2"), "GpuIndexCagra", 2, (256, 512, 1024, 2048), "gpu-cuvs", True),
    )
}
"""All kinds by name. CAGRA needs a GPU, and FAISS with cuVS, to build; any FAISS walks its graph."""


def kind_of(name: str) -> Kind:
    """The kind called ``name``; ``UsageError`` if there is none."""
    if name not in KINDS:
        raise UsageError(f"there is no kind of index {name!r}", hint=f"There are: {', '.join(KINDS)}")
    return KINDS[name]


def kinds_at_hand() -> tuple[str, ...]:
    """The kinds that this machine can build."""
    library = faiss()
    return tuple(
        kind.name
        for kind in KINDS.values()
        if hasattr(library, kind.needs) and (kind.factory or library.get_num_gpus())
    )
