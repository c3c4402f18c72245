"""How long heads take to train, beside a simple baseline in the same run: ``python -m bench.training``.

On made-up vectors, 100,000 of them: time does not ask what they mean. About ten minutes on two idle
cores; run it alone.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench._frame import Clock, about, carry_out, origin, parser_of, rounded
from bench._machine import commit
from retrieval_detect.heads.linear import TOLERANCE, LinearHead
from retrieval_detect.heads.prompt import PromptHead
from retrieval_detect.vectors import Rows

ROWS, D_LINEAR, MODEL, D_PROMPT = 100_000, 768, "ViT-B-32", 512
LARGE_BATCH, COOP_BATCH, COOP_STEPS = 4096, 32, 50
ROUNDS = 3
_FLOPS_A_VISIT = 4
"""A gradient of a linear model reads each number twice, multiplies and adds: x·w, and xᵀ·residual."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("training", __doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="Another number only tries the code.")
    options = parser.parse_args(arguments)
    options.quick = options.rows != ROWS
    carry_out("training", options, lambda: rounded(measure(options.rows)), table)


def measure(n: int) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    command = "python -m bench.training" + f" --rows {n}" * (n != ROWS)
    return {
        **about("training", command=command, git_commit=commit()),
        "rows": n,
        "linear": _linear(_rows(n, D_LINEAR), clock),
        "prompt": _prompt(n, clock),
        "elapsed_s": clock.elapsed_s,
    }


def _rows(n: int, d: int) -> Rows:
    """Made-up embeddings of ten generators and ten sources; labels overlap, so that there is an optimum."""
    rng = np.random.default_rng(0)
    fake = np.arange(n) % 2 == 1
    x = rng.normal(size=(n, d)).astype(np.float32) * np.geomspace(2, 0.2, d, dtype=np.float32)
    x[:, :8] += 0.15 * fake[:, None]
    norms = np.linalg.norm(x, axis=1)
    names = np.array([f"{'g' if f else 's'}{i // 2 % 10}" for i, f in enumerate(fake)])
    units = {"proj": x / norms[:, None]}
    return Rows.of(vectors=units, norms={"proj": norms}, fake=fake, names=names, row_ids=np.arange(n))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


# ---------------------------------------------------------------- linear


def _linear(rows: Rows, clock: Clock) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def theirs() -> Any:
        x = StandardScaler().fit_transform(rows.vectors["proj"].astype(np.float64))
        return LogisticRegression(tol=TOLERANCE, max_iter=2000).fit(x, rows.fake)

    def ours() -> LinearHead:
        return LinearHead(balanced=False).fit(rows)

    took: dict[str, list[float]] = {"rd": [], "scikit-learn": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(ROUNDS):
            clock.say(f"linear, round {number + 1} of {ROUNDS}")
            head_s, head = _timed(ours)
            model_s, model = _timed(theirs)
            took["rd"].append(head_s)
            took["scikit-learn"].append(model_s)
    x = StandardScaler().fit_transform(rows.vectors["proj"].astype(np.float64))
    difference = head.decision_function({"proj": rows.as_encoded("proj")}) - model.decision_function(x)
    iterations = int(model.n_iter_[0])
    flops = _FLOPS_A_VISIT * len(rows) * D_LINEAR * iterations
    return {
        "d": D_LINEAR,
        "rd_s": median(took["rd"]),
        "scikit_learn_s": median(took["scikit-learn"]),
        "ratio": median(took["rd"]) / median(took["scikit-learn"]),
        "rounds": took,
        "largest_difference_of_scores": float(np.abs(difference).max()),
        "iterations": iterations,
        "at_least_flops": flops,
        "bandwidth_limit_s": _bandwidth_limit_s(len(rows) * D_LINEAR * 8, 2 * iterations),
    }


def _bandwidth_limit_s(matrix_bytes: int, passes: int) -> float:
    """How long reading the matrix that often takes, at the speed memory is summed at here."""
    block = np.ones(min(matrix_bytes, 1 << 29) // 8)
    seconds = min(_timed(block.sum)[0] for _ in range(5))
    return passes * matrix_bytes / (block.nbytes / seconds)


# ---------------------------------------------------------------- prompts


def _prompt(n: int, clock: Clock) -> dict[str, Any]:
    """One epoch of prompt learning at a large batch, and steps of CoOp's batch counted up to one."""
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        text = _text_tower(Path(folder))
    rows = _rows(n, D_PROMPT)
    epoch = {"epochs": 1, "warmup": 0, "patience": 0}
    few = rows.take(np.arange(min(n, COOP_STEPS * COOP_BATCH)))
    PromptHead(batch=COOP_BATCH, **epoch).fit(rows.take(np.arange(min(n, 10 * COOP_BATCH))), text=text)
    large, small = [], []
    for number in range(ROUNDS):
        clock.say(f"prompt, round {number + 1} of {ROUNDS}")
        large.append(_timed(lambda: PromptHead(batch=LARGE_BATCH, **epoch).fit(rows, text=text))[0])
        small.append(_timed(lambda: PromptHead(batch=COOP_BATCH, **epoch).fit(few, text=text))[0])
    timed, steps = (-(-count // COOP_BATCH) for count in (len(few), n))
    coop_s = median(small) / timed * steps
    return {
        "model": MODEL,
        "batch": LARGE_BATCH,
        "epoch_s": median(large),
        "coop_batch": COOP_BATCH,
        "coop_steps_timed": timed,
        "coop_epoch_s_extrapolated": coop_s,
        "share": median(large) / coop_s,
        "rounds": {"large": large, "coop": small},
    }


def _text_tower(folder: Path) -> Any:
    """The text tower of a CLIP model with random weights: time does not ask what they were trained on."""
    import torch
    from safetensors.torch import save_file

    from retrieval_detect.encoders._libraries import ensure_torchvision
    from retrieval_detect.encoders.text import load_text_tower

    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(MODEL, load_weights=False)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "random.safetensors")
    return load_text_tower(MODEL, weights=folder / "random.safetensors", offline=True)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    linear, prompt = result["linear"], result["prompt"]
    return "\n".join(
        [
            f"{result['rows']:,} made-up cached vectors; {origin(result)}; medians of {ROUNDS} rounds.",
            "",
            "| work | rd | beside it | ratio |",
            "|---|---|---|---|",
            f"| logistic regression, {linear['d']} dimensions | {linear['rd_s']:.1f} s | scikit-learn to the "
            f"same optimum (scores differ by {linear['largest_difference_of_scores']:.0e} at most) "
            f"{linear['scikit_learn_s']:.1f} s; reading the matrix as often "
            f"{linear['bandwidth_limit_s']:.1f} s | {linear['ratio']:.2f} |",
            f"| prompts, one epoch through {prompt['model']}'s text tower (random weights), batch "
            f"{prompt['batch']:,} | {prompt['epoch_s']:.1f} s | batches of {prompt['coop_batch']}: "
            f"{prompt['coop_epoch_s_extrapolated']:.0f} s ({prompt['coop_steps_timed']} steps timed, scaled "
            f"up) | 1/{1 / prompt['share']:.0f} |",
        ]
    )


if __name__ == "__main__":
    main()
