"""ComfyUI's graphs: which of their texts the picture was asked for with, and not which to keep out of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Graph: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Id of a node → its inputs: values, or links, each the id of another node and the number of its output."""

_MAX_NODES = 2000
_TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "clip_g", "prompt", "positive", "value", "string")
_WAYS = ("positive", "guider", "conditioning", "conditioning_to", "conditioning_1", "cond1")
_NO_WAYS = frozenset(
    {"model", "clip", "vae", "control_net", "image", "latent_image", "samples", "pixels", "negative"}
)


def inputs_by_id(graph: Mapping[str, Any]) -> Graph:
    """Inputs of the nodes of a graph as the program writes it; empty where it is none."""
    nodes = list(graph.items())[:_MAX_NODES]
    known = {key: node for key, node in nodes if isinstance(node, dict) and "class_type" in node}
    return {key: node["inputs"] for key, node in known.items() if isinstance(node.get("inputs"), dict)}


def positive_prompt(graph: Graph) -> str | None:
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
