"""Text that generator programs write into their files: which program, model, sampler and seed.

Each reader takes all texts of a file, by keyword, and gives facts if they are those of its program. Prompts
are people's words: they are cut short, and nothing else of a workflow is repeated.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from retrieval_detect.images.provenance.words import short

Texts: TypeAlias = Mapping[str, str]
Facts: TypeAlias = dict[str, str]

_COMMENTS = ("UserComment", "comment", "ImageDescription")
_JOB = re.compile(r"\bJob ID: [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def read_generator(texts: Texts) -> Facts | None:
    """What the first program that knows its own texts says; ``None`` where none does.

    Keys, where known: ``tool``, ``version``, ``model``, ``sampler``, ``seed``, ``prompt``.
    """
    for reader in _READERS:
        if facts := reader(texts):
            return {name: text for name, value in facts.items() if (text := _plain(value))}
    return None


def _plain(value: object) -> str:
    """A value as short text; whatever is no text and no number is not repeated."""
    if isinstance(value, str):
        return short(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _json(text: str | None) -> dict[str, Any]:
    """The object that a text is in JSON; empty where it is none."""
    if not text or not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(found: Mapping[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if name in found), None)


# ---------------------------------------------------------------- programs


def _swarm(texts: Texts) -> dict[str, Any] | None:
    for text in _candidates(texts):
        if isinstance(found := _json(text).get("sui_image_params"), dict):
            return _common(found, "SwarmUI", version=_first(found, "swarm_version"))
    return None


def _fooocus(texts: Texts) -> dict[str, Any] | None:
    for text in _candidates(texts):
        found = _json(text)
        if str(found.get("version", "")).startswith("Fooocus"):
            return _common(found, "Fooocus", version=found["version"])
    return None


def _invoke(texts: Texts) -> dict[str, Any] | None:
    found = _json(texts.get("invokeai_metadata"))
    if found:
        return _common(found, "InvokeAI", version=found.get("app_version"))
    old = _json(texts.get("sd-metadata"))
    if "app_id" not in old or not isinstance(image := old.get("image"), dict):
        return None
    return _common(image | {"model": old.get("model_weights")}, "InvokeAI", version=old.get("app_version"))


def _novel(texts: Texts) -> dict[str, Any] | None:
    if texts.get("Software") != "NovelAI":
        return None
    return _common(
        {"prompt": texts.get("Description"), **_json(texts.get("Comment")), "model": texts.get("Source")},
        "NovelAI",
    )


def _easy(texts: Texts) -> dict[str, Any] | None:
    if "use_stable_diffusion_model" not in texts:
        return None
    return _common(dict(texts), "Easy Diffusion")


def _web_ui(texts: Texts) -> dict[str, Any] | None:
    """AUTOMATIC1111's lines, which many programs write: the prompt, then settings from "Steps: 20, " on."""
    for text in _candidates(texts):
        before, steps, settings = f"\n{text}".rpartition("\nSteps: ")
        if not steps or not settings[:1].isdecimal():
            continue
        found = _settings(settings.partition("\n")[0][:8192])
        version = found.get("Version", "")
        return {
            "tool": "Fooocus" if version.startswith("Fooocus") else "Stable Diffusion web UI or alike",
            "version": version,
            "model": _first(found, "Model", "Model hash"),
            "sampler": found.get("Sampler"),
            "seed": found.get("Seed"),
            "prompt": before.partition("\nNegative prompt:")[0],
        }
    return None


_SETTING = re.compile(r'\s*([^:,"]{1,64}): ("(?:[^"\\]|\\.)*"(?=,|\s*$)|[^,]*)(?:,|$)')


def _settings(line: str) -> dict[str, str]:
    """``Steps: 20, Model: "a, b: c"`` by name; values with commas or colons are in JSON."""
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        match = _SETTING.match(line, at)
        if match is None:
            at = (line.find(",", at) + 1) or len(line)
            continue
        found.setdefault(match[1], _unquoted(match[2]))  # the first of a name stands
        at = match.end()
    return found


def _unquoted(value: str) -> str:
    try:
        found = json.loads(value) if value.startswith('"') else value
    except ValueError:
        return value
    return found if isinstance(found, str) else value


def _comfy(texts: Texts) -> dict[str, Any] | None:
    """The graph that was run: nodes by id, each of a class, with inputs that are values or other nodes."""
    graph = _inputs_by_id(_json(texts.get("prompt")))
    inputs = list(graph.values())
    if not inputs:
        workflow = _json(texts.get("workflow"))
        return {"tool": "ComfyUI"} if isinstance(workflow.get("nodes"), list) else None
    return {
        "tool": "ComfyUI",
        "model": _value(inputs, "ckpt_name", "unet_name", "model_name"),
        "sampler": _value(inputs, "sampler_name"),
        "seed": _value(inputs, "seed", "noise_seed"),
        "prompt": _positive_prompt(graph),
    }


def _value(inputs: Sequence[Mapping[str, Any]], *names: str) -> Any:
    """The first input of one of these names that is a value and not a link to another node."""
    found = (node[name] for name in names for node in inputs if name in node)
    return next((value for value in found if isinstance(value, str | int | float)), None)


def _midjourney(texts: Texts) -> dict[str, Any] | None:
    for keyword in ("Description", *_COMMENTS):
        text = texts.get(keyword, "")
        if _JOB.search(text):
            return {"tool": "Midjourney", "prompt": _JOB.sub("", text)}
    return None


def _labelled(texts: Texts) -> dict[str, Any] | None:
    """The label that China's GB 45438 asks of generated content: 1 is, 2 may be, 3 is suspected to be."""
    found = _json(texts.get("AIGC"))
    found = found.get("AIGC", found)
    if not isinstance(found, dict) or str(found.get("Label")) not in ("1", "2", "3"):
        return None
    return {"tool": "a service that labels its content", "version": found.get("ContentProducer")}


_READERS: tuple[Callable[[Texts], dict[str, Any] | None], ...] = (
    _swarm,
    _fooocus,
    _invoke,
    _novel,
    _easy,
    _web_ui,
    _comfy,
    _midjourney,
    _labelled,
)


def _candidates(texts: Texts) -> Iterator[str]:
    yield from (texts[keyword] for keyword in ("parameters", *_COMMENTS) if keyword in texts)


def _common(found: Mapping[str, Any], tool: str, *, version: Any = None) -> dict[str, Any]:
    """Facts under the names by which most programs know them."""
    model = _first(found, "model", "base_model", "use_stable_diffusion_model")
    if isinstance(model, dict):
        model = _first(model, "name", "model_name")
    return {
        "tool": tool,
        "version": version,
        "model": model,
        "sampler": _first(found, "sampler", "sampler_name", "scheduler"),
        "seed": found.get("seed"),
        "prompt": _first(found, "prompt", "positive_prompt"),
    }


# ---------------------------------------------------------------- graphs of ComfyUI

Graph: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Id of a node → its inputs: values, or links, each the id of another node and the number of its output."""

_MAX_NODES = 2000
_TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "clip_g", "prompt", "positive", "value", "string")
_WAYS = ("positive", "guider", "conditioning", "conditioning_to", "conditioning_1", "cond1")
_NO_WAYS = frozenset(
    {"model", "clip", "vae", "control_net", "image", "latent_image", "samples", "pixels", "negative"}
)


def _inputs_by_id(graph: Mapping[str, Any]) -> Graph:
    """Inputs of the nodes of a graph as the program writes it; empty where it is none."""
    nodes = list(graph.items())[:_MAX_NODES]
    known = {key: node for key, node in nodes if isinstance(node, dict) and "class_type" in node}
    return {key: node["inputs"] for key, node in known.items() if isinstance(node.get("inputs"), dict)}


def _positive_prompt(graph: Graph) -> str | None:
    """The text behind the positive input of the sampler that is nearest to the result.

    Where no node has such an input, the first text of the graph.
    """
    sampler = _last_sampler(graph)
    if sampler is not None:
        way = next(name for name in ("positive", "guider") if _is_link(sampler.get(name), graph))
        return _text_behind(sampler[way], graph)
    texts = (node[name] for name in ("text", "prompt") for node in graph.values() if name in node)
    return next((text for text in texts if isinstance(text, str)), None)


def _last_sampler(graph: Graph) -> Mapping[str, Any] | None:
    """The first node with a positive side that is met on the way back from what nothing else uses."""
    used = {link[0] for inputs in graph.values() for _, link in _links(inputs, graph)}
    seen = set(graph) - used
    waiting = deque(key for key in graph if key in seen)
    while waiting:
        inputs = graph[waiting.popleft()]
        links = dict(_links(inputs, graph))
        if "positive" in links or "guider" in links:
            return inputs
        fresh = [key for key, _ in links.values() if key not in seen]
        seen.update(fresh)
        waiting.extend(dict.fromkeys(fresh))
    return None


def _text_behind(link: Sequence[Any], graph: Graph) -> str | None:
    """The first text on the way back along a link, depth first.

    A node that changes both sides has them as outputs in their order; it is passed on the side it is met on.
    """
    waiting, seen = [link], set()
    while waiting:
        key, output = waiting.pop()
        place = (key, output == 1)
        if place in seen:
            continue
        seen.add(place)
        inputs = graph[key]
        links = dict(_links(inputs, graph))
        if "positive" in links and "negative" in links:
            waiting.append(links["negative" if output == 1 else "positive"])
            continue
        texts: list[str] = [inputs[name] for name in _TEXTS if isinstance(inputs.get(name), str)]
        if found := next(filter(str.strip, texts), None):
            return found
        ways = [name for name in (*_TEXTS, *_WAYS) if name in links]
        ways += [name for name in links if name not in ways and name not in _NO_WAYS]
        waiting += [links[name] for name in reversed(ways)]
    return None


def _links(inputs: Mapping[str, Any], graph: Graph) -> Iterator[tuple[str, Sequence[Any]]]:
    return ((name, value) for name, value in inputs.items() if _is_link(value, graph))


def _is_link(value: object, graph: Graph) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in graph
