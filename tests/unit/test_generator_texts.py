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


# ---------------------------------------------------------------- settings in quotes

QUOTED = r"""a cat
Steps: 20, Sampler: DPM++ 2M, Hires prompt: "one, Seed: 7, \"two\"", Seed: 42, Model: "weird, name: v2", \
Lora hashes: "a: 1, b: 2", Hashes: {"model": "x, Seed: 3"}, Version: v1.10.1"""


def test_settings_in_quotes_may_hold_commas_and_colons():
    facts = read_generator({"parameters": QUOTED.replace("\\\n", "")})
    assert (facts["model"], facts["seed"], facts["version"]) == ("weird, name: v2", "42", "v1.10.1")
    assert facts["sampler"] == "DPM++ 2M"


@pytest.mark.parametrize("model", ['"no end', '""', '"a" b', 'a "b" c', '"\\ud800"', "a: b"])
def test_strange_quotes_hide_no_other_setting(model):
    facts = read_generator({"parameters": f"x\nSteps: 1, Model: {model}, Seed: 42"})
    assert facts["seed"] == "42"


# ---------------------------------------------------------------- which prompt of a graph


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


NEGATIVE = node("CLIPTextEncode", text="ugly, blurry", clip=["4", 1])
POSITIVE = node("CLIPTextEncode", text="a lighthouse", clip=["4", 1])
SAMPLER = node(
    "KSampler", seed=7, positive=["7", 0], negative=["6", 0], latent_image=["5", 0], model=["4", 0]
)
ENDS = {"8": node("VAEDecode", samples=["3", 0], vae=["4", 2]), "9": node("SaveImage", images=["8", 0])}
PLAIN = {"6": NEGATIVE, "3": SAMPLER, "7": POSITIVE, **ENDS}
BOTH_SIDES = node("ControlNetApplyAdvanced", positive=["7", 0], negative=["6", 0], control_net=["20", 0])
GRAPHS = {
    "the negative one first": PLAIN,
    "through changes of one side": PLAIN
    | {"3": SAMPLER | {"inputs": SAMPLER["inputs"] | {"positive": ["11", 0]}}}
    | {"11": node("FluxGuidance", guidance=3.5, conditioning=["12", 0])}
    | {"12": node("ConditioningCombine", conditioning_1=["7", 0], conditioning_2=["13", 0])}
    | {"13": node("CLIPTextEncode", text="another", clip=["4", 1])},
    "through changes of both sides": PLAIN
    | {"3": SAMPLER | {"inputs": SAMPLER["inputs"] | {"positive": ["11", 0], "negative": ["11", 1]}}}
    | {"11": BOTH_SIDES},
    "sides crossed": PLAIN
    | {"3": SAMPLER | {"inputs": SAMPLER["inputs"] | {"positive": ["11", 1], "negative": ["11", 0]}}}
    | {"11": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0])},
    "a text of another node": PLAIN
    | {"7": node("CLIPTextEncode", text=["14", 0], clip=["4", 1])}
    | {"14": node("PrimitiveString", value="a lighthouse")},
    "two texts of SDXL": PLAIN
    | {"7": node("CLIPTextEncodeSDXL", text_g="a lighthouse", text_l="small", clip=["4", 1], width=1024)},
    "a guider": {
        "6": NEGATIVE,
        "3": node("SamplerCustomAdvanced", noise=["15", 0], guider=["16", 0], sampler=["17", 0]),
        "16": node("BasicGuider", model=["4", 0], conditioning=["7", 0]),
        "7": POSITIVE,
        **ENDS,
    },
    "a guider of both sides": {
        "6": NEGATIVE,
        "3": node("SamplerCustomAdvanced", guider=["16", 0]),
        "16": node("CFGGuider", negative=["6", 0], positive=["7", 0], model=["4", 0]),
        "7": POSITIVE,
        **ENDS,
    },
    "the last of two samplers": {
        "1": node("KSampler", positive=["6", 0], negative=["7", 0]),
        **PLAIN,
        "3": SAMPLER | {"inputs": SAMPLER["inputs"] | {"latent_image": ["1", 0]}},
    },
    "in a circle": PLAIN
    | {"3": SAMPLER | {"inputs": SAMPLER["inputs"] | {"positive": ["11", 0]}}}
    | {"11": node("Reroute", a=["12", 0]), "12": node("Reroute", a=["11", 0], b=["7", 0])},
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_prompt_of_a_graph_is_the_positive_one(graph):
    assert read_generator({"prompt": json.dumps(graph)})["prompt"] == "a lighthouse"


@pytest.mark.parametrize("text", ["", "  ", ["99", 0], 5])
def test_a_negative_prompt_is_never_given_for_a_positive_one(text):
    graph = PLAIN | {"7": node("CLIPTextEncode", text=text, clip=["4", 1])}
    assert "prompt" not in read_generator({"prompt": json.dumps(graph)})


def test_large_graphs_take_no_time():
    chain = {str(i): node("Reroute", **{f"w{j}": [str(j), i % 3] for j in range(40)}) for i in range(1900)}
    graph = {"s": node("KSampler", positive=["0", 0]), **chain}
    assert read_generator({"prompt": json.dumps(graph)}) == {"tool": "ComfyUI"}


# ---------------------------------------------------------------- byte order marks


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("text", [json.dumps(SWARM), "日本語\nSteps: 20, Seed: 42"])
def test_a_comment_with_a_byte_order_mark(order, text):
    comment = b"UNICODE\0" + ("\ufeff" + text).encode(order)
    found = read_provenance(saved("JPEG", exif=camera(comment=comment)))
    assert found.text["seed"] in ("5", "42") and "\ufeff" not in str(found.text)


def test_a_comment_with_the_mark_of_utf_8():
    comment = b"ASCII\0\0\0" + ("\ufeff" + json.dumps(SWARM)).encode()
    assert read_provenance(saved("JPEG", exif=camera(comment=comment))).text["tool"] == "SwarmUI"
