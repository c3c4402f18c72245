from __future__ import annotations

import json

import pytest

pytest.register_assert_rewrite("tests.towers")


@pytest.fixture(scope="module", autouse=True)
def small_models(tmp_path_factory):
    """Models small enough for a test, known to open_clip by the name ``rd-<tower>``."""
    from open_clip import add_model_config, factory

    from tests.towers import TEXT, TOWERS

    folder = tmp_path_factory.mktemp("configs")
    for name, vision in TOWERS.items():
        config = {"embed_dim": 192 if name == "timm-map" else 32, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"rd-{name}.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
        patch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
        add_model_config(folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small networks on shared cores: threads would wait for one another most of the time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """open_clip logs by the root logger; the tests' own use of it is not what is tested."""
    caplog.set_level("CRITICAL")
