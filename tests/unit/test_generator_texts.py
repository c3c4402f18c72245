"""Texts of generator programs: each as its program writes it, and nothing else taken for one."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.images.provenance import read_provenance
from retrieval_detect.images.provenance.generators import read_generator
from tests.tagged import camera, png_text, saved

WEB_UI = """a cat, (masterpiece:1.2)
Negative prompt: dog
Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 42, Size: 512x768, Model hash: abc123, Model: dream_8, \
Lora hashes: "one: 1, two: 2", Version: v1.10.1"""
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "sampler_name": "euler", "model": ["4", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["4", 1]}},
}
FOOOCUS = {
    "version": "Fooocus v2.5.5",
    "base_model": "jugger",
    "sampler": "dpmpp",
    "seed": "9",
    "prompt": "sea",
}
NOVEL = {"prompt": "a fox", "seed": 11, "sampler": "k_euler", "steps": 28}
INVOKE = {
    "app_version": "5.4",
    "positive_prompt": "owl",
    "seed": 3,
    "model": {"name": "flux"},
    "scheduler": "dpm",
}
SWARM = {"sui_image_params": {"prompt": "hill", "model": "sd3", "seed": 5, "swarm_version": "0.9"}}
JOB = "Job ID: 01234567-89ab-cdef-0123-456789abcdef"

CASES = {
    "web ui": (
        {"parameters": WEB_UI},
        {
            "tool": "Stable Diffusion web UI or alike",
            "version": "v1.10.1",
            "model": "dream_8",
            "sampler": "DPM++ 2M",
            "seed": "42",
            "prompt": "a cat, (masterpiece:1.2)",
        },
    ),
    "no prompt": (
        {"parameters": "Steps: 4, Sampler: Euler, Seed: 1"},
        {"tool": "Stable Diffusion web UI or alike", "sampler": "Euler", "seed": "1"},
    ),
    "comfy": (
        {"prompt": json.dumps(GRAPH), "workflow": "{}"},
        {"tool": "ComfyUI", "model": "sdxl.safetensors", "sampler": "euler", "seed": "7", "prompt": "a dog"},
    ),
    "workflow alone": ({"workflow": '{"nodes": []}'}, {"tool": "ComfyUI"}),
    "fooocus": (
        {"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"},
        {
            "tool": "Fooocus",
            "version": "Fooocus v2.5.5",
            "model": "jugger",
            "sampler": "dpmpp",
            "seed": "9",
            "prompt": "sea",
        },
    ),
    "novel": (
        {"Software": "NovelAI", "Source": "NovelAI Diffusion V4", "Comment": json.dumps(NOVEL)},
        {
            "tool": "NovelAI",
            "model": "NovelAI Diffusion V4",
            "sampler": "k_euler",
            "seed": "11",
            "prompt": "a fox",
        },
    ),
    "invoke": (
        {"invokeai_metadata": json.dumps(INVOKE)},
        {
            "tool": "InvokeAI",
            "version": "5.4",
            "model": "flux",
            "sampler": "dpm",
            "seed": "3",
            "prompt": "owl",
        },
    ),
    "swarm": (
        {"parameters": json.dumps(SWARM)},
        {"tool": "SwarmUI", "version": "0.9", "model": "sd3", "seed": "5", "prompt": "hill"},
    ),
    "easy": (
        {"use_stable_diffusion_model": "sd-v1-4", "seed": "8", "prompt": "bay"},
        {"tool": "Easy Diffusion", "model": "sd-v1-4", "seed": "8", "prompt": "bay"},
    ),
    "midjourney": (
        {"Description": f"a castle --v 6 {JOB}"},
        {"tool": "Midjourney", "prompt": "a castle --v 6"},
    ),
    "label": (
        {"AIGC": '{"Label": "1", "ContentProducer": "001"}'},
        {"tool": "a service that labels its content", "version": "001"},
    ),
}


@pytest.mark.parametrize(("texts", "facts"), CASES.values(), ids=CASES)
def test_programs_are_known_by_their_texts(texts, facts):
    assert read_generator(texts) == facts
    found = read_provenance(png_text(**texts))
    assert found.text == facts
    (claim,) = found.claims
    assert (claim.kind, claim.trusted) == ("text", False) and facts["tool"] in claim.says
    assert "easily forged" in claim.detail and facts.get("prompt", "\0") not in claim.detail


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"Software": "GIMP", "Comment": "Created with GIMP"},
        {"parameters": "a diary: Steps: none"},
        {"parameters": "[1, 2]"},
        {"prompt": '{"a": 1}'},
        {"prompt": "{" * 5000},
        {"prompt": '{"a":' * 5000},
        {"prompt": "a cat"},
        {"Comment": '{"prompt": "x"}'},
        {"Description": "Job ID: 12"},
        {"AIGC": '{"Label": "9"}'},
        {"AIGC": '{"AIGC": 5}'},
        {"invokeai_metadata": "5"},
        {"sd-metadata": '{"app_id": 1, "image": 2}'},
    ],
)
def test_other_texts_are_no_programs(texts):
    assert read_generator(texts) is None


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
def test_settings_in_an_exif_comment(order):
    comment = b"UNICODE\0" + WEB_UI.encode(order)
    found = read_provenance(saved("JPEG", exif=camera(comment=comment)))
    assert found.text["model"] == "dream_8" and found.exif["model"] == "Canon EOS R5"
    assert [claim.kind for claim in found.claims] == ["text", "exif"]


def test_a_workflow_in_the_place_of_a_camera_is_no_camera():
    exif = camera()
    exif[0x010F], exif[0x0110] = 'workflow:{"nodes": []}', f"prompt:{json.dumps(GRAPH)}"
    found = read_provenance(saved("WEBP", exif=exif))
    assert found.text["model"] == "sdxl.safetensors"
    assert "make" not in found.exif and "model" not in found.exif


def test_hostile_values_are_not_repeated():
    graph = {"1": {"class_type": "X", "inputs": {"seed": True, "ckpt_name": {"a": 1}, "text": "y" * 10_000}}}
    facts = read_generator({"prompt": json.dumps(graph)})
    assert set(facts) == {"tool", "prompt"} and len(facts["prompt"]) == 200


def test_long_settings_take_no_time():
    spaces = "Steps: 1, " + " " * 500_000
    assert read_generator({"parameters": spaces})["tool"].startswith("Stable")
