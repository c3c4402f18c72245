"""The published linear classifier: its numbers are read, and nothing else is ever run or believed."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.imported import FC_LIMIT_BYTES, D, import_fc_weights
from retrieval_detect.heads.registry import read_head
from tests.factories import SHARED_DATA

PUBLISHED = SHARED_DATA / "ufd_fc_weights.pth"


def saved(path, state, **options):
    torch.save(state, path, **options)
    return path


def good():
    rng = np.random.default_rng(0)
    return {
        "weight": torch.from_numpy(rng.normal(size=(1, D)).astype(np.float32)),
        "bias": torch.tensor([0.25]),
    }


@pytest.mark.parametrize("old_format", [False, True])
def test_its_score_is_that_of_the_layer(tmp_path, old_format):
    state = good()
    path = saved(tmp_path / "fc.pth", state, _use_new_zipfile_serialization=not old_format)
    head = import_fc_weights(path)
    x = np.random.default_rng(1).normal(size=(5, D)).astype(np.float32) * 10
    layer = torch.nn.Linear(D, 1)
    layer.load_state_dict(state)
    expected = layer(torch.from_numpy(x)).detach().numpy()[:, 0]
    assert head.decision_function({"proj": x}) == pytest.approx(expected, abs=1e-4)
    assert not head.unit and not head.cheap
    assert np.array_equal(
        read_head(head.to_files()).decision_function({"proj": x}), head.decision_function({"proj": x})
    )


def test_it_takes_vectors_of_its_own_encoder_alone(tmp_path):
    head = import_fc_weights(saved(tmp_path / "fc.pth", good()), layer="other")
    assert head.layers == ("other",)
    with pytest.raises(VectorError, match="768"):
        head.decision_function({"other": np.ones((1, 512), np.float32)})


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the shared data are not here")
def test_the_published_file():
    head = import_fc_weights(PUBLISHED)
    assert head.decision_function({"proj": np.zeros((1, D), np.float32)}) == pytest.approx(-0.5167, abs=1e-4)
    assert head.weight.shape == (D,) and np.ptp(head.weight) > 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra": torch.ones(1)}, "these alone"),
        ({"weight": torch.ones(1, 512)}, r"\(1, 512\), not \(1, 768\)"),
        ({"weight": torch.ones(1, 1).expand(10**9, D)}, "not"),
        ({"bias": torch.tensor(0.5)}, r"\(\), not \(1,\)"),
        ({"bias": torch.tensor([float("nan")])}, "not finite"),
        ({"weight": torch.ones(1, D, dtype=torch.int64)}, "floating point"),
        ({"bias": 0.5}, "floating point"),
    ],
)
def test_other_contents_are_refused(tmp_path, change, why):
    with pytest.raises(UsageError, match=why) as error:
        import_fc_weights(saved(tmp_path / "fc.pth", good() | change))
    assert "fc_weights.pth of UniversalFakeDetect" in error.value.hint


def test_a_wrapped_or_bare_state_is_refused(tmp_path):
    for state in ({"state_dict": good()}, {"weight": good()["weight"]}, torch.ones(1, D), [1, 2]):
        with pytest.raises(UsageError, match="these alone"):
            import_fc_weights(saved(tmp_path / "fc.pth", state))


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("old_format", [False, True])
def test_code_is_not_run(tmp_path, old_format):
    mark = tmp_path / "ran"
    state = good() | {"bias": Hostile(mark)}
    path = saved(tmp_path / "fc.pth", state, _use_new_zipfile_serialization=not old_format)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Hostile(mark)))
    for file in (path, bare):
        with pytest.raises(UsageError, match="code, which rd does not run"):
            import_fc_weights(file)
    assert not mark.exists()


def test_large_files_are_refused_unread(tmp_path):
    path = tmp_path / "fc.pth"
    with path.open("wb") as file:
        file.truncate(FC_LIMIT_BYTES + 1)
    with pytest.raises(UsageError, match="too many"):
        import_fc_weights(path)


def test_a_small_archive_that_unpacks_to_much_is_refused(tmp_path):
    path = tmp_path / "fc.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fc/data.pkl", bytes(FC_LIMIT_BYTES * 64))
    assert path.stat().st_size < FC_LIMIT_BYTES
    with pytest.raises(UsageError, match="too many"):
        import_fc_weights(path)


@pytest.mark.parametrize("data", [b"", b"no weights", b"PK\x03\x04 torn", b"\x80\x02}q\x00.", b"\x89PNG\r\n"])
def test_other_files_are_refused(tmp_path, data):
    path = tmp_path / "fc.pth"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="cannot be imported"):
        import_fc_weights(path)


@pytest.mark.parametrize("end", range(100, 4000, 650))
def test_torn_files_are_refused(tmp_path, end):
    path = saved(tmp_path / "fc.pth", good())
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UsageError, match="cannot be imported"):
        import_fc_weights(path)


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "fc.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"fc/{name}", pickle.dumps(1, protocol=2))
        archive.writestr("fc/code/__torch__.py", "pass")
    with pytest.raises(UsageError, match="cannot be imported"):
        import_fc_weights(path)


def test_a_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(UsageError, match="cannot be imported"):
        import_fc_weights(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        import_fc_weights(tmp_path / "none.pth")
