"""A folder with pictures and an index over them, of all layers of the toy encoder."""

from __future__ import annotations

import pytest

from retrieval_detect.cli.main import main
from tests.factories import write_pictures

EACH = 60


def build(folder):
    """Pictures in folders of ``folder`` and ``index/default`` over them, calibrated as it is built."""
    for number, name in enumerate(("camera", "phone")):
        write_pictures(folder / "photos" / name, range(1000 * number, 1000 * number + EACH))
    for number, name in enumerate(("sdxl", "flux")):
        start = 5000 + 1000 * number
        write_pictures(folder / "generated" / name, range(start, start + EACH), fake=True)
    write_pictures(folder / "new", range(8000, 8006), fake=True)
    write_pictures(folder / "drone", range(8100, 8106))
    write_pictures(folder / "ask", range(9000, 9003))
    (folder / "index").mkdir()
    built = ["build-index", "--real", "photos", "--fake", "generated"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main([*built, "--encoder", "tiny", "--layers", "proj,pre,block01"]) == 0
    return folder
