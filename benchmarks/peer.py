"""How much sooner than a plain PyTorch loop: the same objective, and a finished picture.

    pip install torch
    python benchmarks/peer.py --weights FILE --photos DIR --paintings DIR --out DIR \
        [--pairs 6] [--float32 2] [--long 1]

The peer is our own re-implementation of what neural-style programs run: PyTorch, float32, NCHW,
`torch.optim.LBFGS` with 100 correction pairs, content relu4_2 × 5, style relu1_1 … relu5_1 × 100
(Gram / (C·H·W), means), total variation × 1e-3, 512 px, from the photo. Ours runs the very same
objective with the product's network, Gram matrices and L-BFGS (with 50), in bfloat16, and in
float32 for the first pairs (for all, where bfloat16 is not faster); and the preset `painting` as
it ships. For the first `--long` pairs the peer goes on to 1000 evaluations.

Each side is a process of its own; they take turns (slices.py), and each counts only the time that
it ran, and its processor seconds. All have huge pages, as a worker has. What comes once per
process (reading weights, tracing graphs, the style's Gram matrices) is nobody's time. The loss to
reach is the least that the loop was at. All losses are taken by one referee in float32 at the
images as they are, not clipped. A line of JSON per finished pair goes to `--out`; what is finished
is not run again, ours only by the same code.
"""

import argparse
import contextlib
import json
import signal
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

from stylewatch.domain import EngineSettings
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it
import numpy as np
from sheets import in_a_row
from slices import Stops, running, take_turns

SIDE = 512
EVALUATIONS, LONG = 500, 1000
OURS = {"bfloat16": 600, "float32": 620}
"""Evaluations of ours at most; each of them is looked at, so fewer only cost less time."""
HISTORY = {"peer": 100, "ours": 50}
"""Correction pairs: as many as PyTorch's programs take, and what is soonest there for ours."""
CONTENT, CONTENT_WEIGHT = "block4_conv2", 5.0
STYLE, STYLE_WEIGHT = tuple(f"block{block}_conv1" for block in range(1, 6)), 100.0
TV_WEIGHT = 1e-3
NEAR = 1.01
"""The share of the peer's loss that is as good to the eye: bfloat16 has a floor of its own."""
EVERY = 5
"""Evaluations between two images that are kept for the referee."""

Image = np.ndarray
"""(1, H, W, 3) float32, BGR minus the mean: what the network is given."""
Row = dict[str, Any]


# -- what a side writes down -----------------------------------------------------------------------


class Recorder:
    """Notes when which evaluation was done, and keeps images on the way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[tuple[int, float, float, float]] = []
        self.evaluation = 0

    def begin(self) -> None:
        """From here on it counts: all that comes once per process is done."""
        self._note(0, float("nan"))

    def evaluated(self, loss: float, image: Callable[[], Image]) -> None:
        """One more evaluation is done."""
        self.evaluation += 1
        self._note(self.evaluation, loss)
        if self.evaluation % EVERY == 0:
            np.save(self._folder / f"{self.evaluation:04}.npy", image())

    def finish(self, image: Image) -> None:
        """The run is over, and this is its picture."""
        self._note(self.evaluation + 1, float("nan"))
        np.save(self._folder / "result.npy", image)
        np.save(self._folder / "lines.npy", np.array(self._lines))

    def _note(self, evaluation: int, loss: float) -> None:
        self._lines.append((evaluation, time.monotonic(), time.process_time(), loss))


class Record:
    """What a side has written down, by the time that it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = np.load(folder / "lines.npy")
        stops = json.loads((folder / "stops.json").read_text(encoding="utf-8"))
        _, self._begin, self._cpu, _ = lines[0]
        self._lines, self._stops = lines[1:], stops
        self.evaluations = len(self._lines) - 1

    def spent(self, evaluation: int) -> tuple[float, float]:
        """Running and processor seconds until this evaluation was done."""
        _, end, cpu, _ = self._lines[evaluation - 1]
        return running(self._begin, end, self._stops), float(cpu - self._cpu)

    def kept(self) -> list[int]:
        """The evaluations whose images are there."""
        return list(range(EVERY, self.evaluations + 1, EVERY))

    def least(self, evaluations: int) -> int:
        """Which of the first evaluations, of those that are kept, had the least loss."""
        kept = [number for number in self.kept() if number <= evaluations]
        return min(kept, key=lambda number: float(self._lines[number - 1][3]))

    def image(self, evaluation: int) -> Image:
        """The best image after so many evaluations (the peer: the one it was at)."""
        return np.asarray(np.load(self.folder / f"{evaluation:04}.npy"))

    def result(self) -> Image:
        """The picture at the end."""
        return np.asarray(np.load(self.folder / "result.npy"))


# -- the peer --------------------------------------------------------------------------------------


def torch_loop(
    pair: Path, evaluations: int, recorder: Any, device: str = "cpu"
) -> tuple[Callable[[], Any], Any]:
    """The loop, ready to run, and the image it works on; its process needs nothing of ours."""
    import torch
    import torch.nn.functional as F

    arrays = np.load(pair / "weights.npz")
    layers = [
        (name, *(torch.from_numpy(arrays[key]).to(device) for key in (name, f"{name}/bias")))
        for name in arrays.files
        if "/" not in name
    ]

    def taps(x: Any) -> dict[str, Any]:
        found, block = {}, "1"
        for name, kernel, bias in layers:
            if name[5] != block:
                x, block = F.max_pool2d(x, 2), name[5]
            x = F.relu(F.conv2d(x, kernel, bias, padding=1))
            found[name] = x
        return found

    def gram(x: Any) -> Any:
        flat = x.reshape(x.shape[1], -1)
        return flat @ flat.T / flat.numel()

    def tensor(name: str) -> Any:
        array = np.load(pair / name)
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(device)

    with torch.no_grad():
        content = taps(tensor("photo.npy"))[CONTENT]
        painted = taps(tensor("painting.npy"))
        styles = {name: gram(painted[name]) for name in STYLE}
    image = tensor("photo.npy").requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [image],
        max_iter=evaluations,
        tolerance_change=-1,
        tolerance_grad=-1,
        history_size=HISTORY["peer"],
    )

    def closure() -> Any:
        optimizer.zero_grad()
        found = taps(image)
        loss = CONTENT_WEIGHT * F.mse_loss(found[CONTENT], content)
        for name, wanted in styles.items():
            loss = loss + STYLE_WEIGHT * F.mse_loss(gram(found[name]), wanted)
        across = (image[..., 1:] - image[..., :-1]).abs().sum()
        down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
        loss = loss + TV_WEIGHT * (across + down)
        loss.backward()
        recorder.evaluated(loss.item(), image)
        return loss

    return lambda: optimizer.step(closure), image


def run_peer(args: argparse.Namespace) -> None:
    """The PyTorch loop; its process knows nothing of ours, not even TensorFlow."""

    def array(tensor: Any) -> Image:
        return np.array(tensor.detach().permute(0, 2, 3, 1).numpy())

    class Keeper(Recorder):
        def evaluated(self, loss: float, image: Any) -> None:
            if self.evaluation == 0:
                np.save(args.record / "gradient.npy", array(image.grad))
            super().evaluated(loss, lambda: array(image))

    recorder = Keeper(args.record)
    run, image = torch_loop(args.pair, args.evaluations, recorder)
    recorder.begin()
    run()
    recorder.finish(array(image))


# -- ours ------------------------------------------------------------------------------------------


def same_objective(weights: str, photo: Image, painting: Image, precision: Any) -> Any:
    """`evaluate(image) -> loss, gradient` of the peer's objective, by the product's own parts.

    A GPU may still be at the loss: `float` of it waits.
    """
    from keras import ops

    from stylewatch.engine import backend, losses
    from stylewatch.engine.features import load_vgg19

    extract = load_vgg19(weights).extractor({CONTENT, *STYLE}, precision=precision)
    describe = backend.compiled(extract)  # as `evaluate`: by itself each operation rounds
    painted = describe(ops.convert_to_tensor(painting))
    targets = {
        "content": describe(ops.convert_to_tensor(photo))[CONTENT],
        "style": {name: losses.gram_matrix(painted[name]) for name in STYLE},
    }

    def loss(image: Any, targets: Any) -> tuple[Any, tuple[Any, ...]]:
        features = extract(image)
        apart = ops.cast(features[CONTENT], "float32") - ops.cast(targets["content"], "float32")
        total = CONTENT_WEIGHT * ops.mean(ops.square(apart))
        for name in STYLE:
            gram = losses.gram_matrix(features[name])
            share = STYLE_WEIGHT / float(gram.shape[0]) ** 4  # a mean of squares of Gram / C
            total = total + share * losses.style_loss(gram, targets["style"][name])
        _, height, width, _ = ops.shape(image)

        def part(row: int, column: int, less: tuple[int, int]) -> Any:
            size = (1, height - less[0], width - less[1], 3)
            return ops.slice(image, (0, row, column, 0), size)

        across = ops.sum(ops.abs(part(0, 1, (0, 1)) - part(0, 0, (0, 1))))
        down = ops.sum(ops.abs(part(1, 0, (1, 0)) - part(0, 0, (1, 0))))
        return total + TV_WEIGHT * (across + down), ()

    evaluate = backend.value_and_gradient(loss)

    def call(image: Any) -> tuple[Any, Any]:
        value, _, gradient = evaluate(ops.convert_to_tensor(image), targets)
        return value, backend.place(gradient)

    return call


def run_ours(args: argparse.Namespace) -> None:
    """The product's L-BFGS on the same objective."""
    from stylewatch.engine.backend import place, to_numpy
    from stylewatch.engine.optimizers import Iterate, minimize
    from stylewatch.engine.preconditioner import ImagePreconditioner
    from stylewatch.engine.transfer import NOISE

    photo, painting = np.load(args.pair / "photo.npy"), np.load(args.pair / "painting.npy")
    evaluate = same_objective(args.weights, photo, painting, args.side)
    evaluate(photo)  # traces the graph
    recorder = Recorder(args.record)

    def on_iterate(iterate: Iterate) -> bool:
        recorder.evaluated(iterate.loss, lambda: to_numpy(iterate.best))
        return True

    recorder.begin()
    start = place(photo)
    best = minimize(
        evaluate,
        start,
        on_iterate,
        optimizer="lbfgs",
        evaluations=args.evaluations,
        history=HISTORY["ours"],
        noise=NOISE[args.side],
        preconditioner=ImagePreconditioner(start),
    )
    recorder.finish(to_numpy(best))


def run_painting(args: argparse.Namespace) -> None:
    """The preset `painting` as it ships, at the same size, in a process that painted before."""
    from dataclasses import replace

    from stylewatch.engine.features import deprocess, load_vgg19, preprocess
    from stylewatch.engine.transfer import Style, stylize
    from stylewatch.settings.presets import Presets

    settings = replace(Presets.load()["painting"].settings, max_side=SIDE)
    photo, painting = (deprocess(np.load(args.pair / f"{n}.npy")) for n in ("photo", "painting"))
    network = load_vgg19(args.weights)
    warm = replace(settings, evaluations=(3,))
    stylize(photo[::-1], [Style(painting[::-1])], warm, network)  # another photo, another style
    recorder = Recorder(args.record)
    recorder.begin()
    result = stylize(
        photo, [Style(painting)], settings, network,
        lambda step: recorder.evaluated(step.loss, lambda: np.zeros(0)),
    )  # fmt: skip
    recorder.finish(preprocess(result.rgb))


# -- a pair ----------------------------------------------------------------------------------------


def compare(args: argparse.Namespace, photo: Path, painting: Path, budgets: dict[str, int]) -> Row:
    """One pair: run what is not there yet, then let the referee look."""
    from stylewatch.engine.features import deprocess

    folder: Path = args.out / f"{photo.stem}--{painting.stem}"
    folder.mkdir(exist_ok=True)
    prepare(args.weights, photo, painting, folder)
    records = run(args, folder, budgets)
    referee = same_objective(
        args.weights, np.load(folder / "photo.npy"), np.load(folder / "painting.npy"), "float32"
    )
    row: Row = {"pair": folder.name, "agreement": agreement(args.weights, folder)}
    peer = records.pop("peer")
    seconds, cpu = peer.spent(EVALUATIONS)
    goal = float(referee(peer.image(peer.least(EVALUATIONS)))[0])
    row |= {"goal": goal, "peer": seconds, "peer_cpu": cpu}
    pictures = {"peer 500": peer.image(EVALUATIONS)}
    if peer.evaluations >= LONG:
        row["peer_long"], row["peer_long_cpu"] = peer.spent(LONG)
        pictures["peer 1000"] = peer.image(LONG)
    painted = records.pop("painting")
    row["painting"], row["painting_cpu"] = painted.spent(painted.evaluations + 1)
    pictures["painting"] = painted.result()
    for side, record in records.items():
        for name, loss in ((side, goal), (f"{side}_near", NEAR * goal)):
            found = reached(record, referee, loss)
            row |= {f"{name}{key}": value for key, value in found.items()}
    row["layers"] = layer_losses(args.weights, folder, pictures)
    row |= {"gemm": gemm_rates(), "machine": machine()}
    images = [np.load(folder / f"{name}.npy") for name in ("photo", "painting")]
    in_a_row(map(deprocess, (*images, *pictures.values())), 384).save(folder.with_suffix(".png"))
    return row


def prepare(weights: str, photo: Path, painting: Path, folder: Path) -> None:
    """Both images and the weights as the sides read them."""
    from stylewatch.engine.features import load_vgg19, preprocess

    for name, file in (("photo", photo), ("painting", painting)):
        np.save(folder / f"{name}.npy", preprocess(read(file)))
    arrays: dict[str, Any] = {}
    for layer in load_vgg19(weights).convolutions:
        kernel = np.asarray(layer.kernels[0])
        arrays[layer.name] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        arrays[f"{layer.name}/bias"] = np.asarray(layer.bias)
        if layer.name == STYLE[-1]:
            break
    np.savez(folder / "weights.npz", **arrays)


def read(file: Path) -> np.ndarray:
    """(H, W, 3) float32 RGB 0…255, longer side `SIDE`, both sides multiples of 16."""
    from PIL import Image as Pillow

    with Pillow.open(file) as image:
        scale = SIDE / max(image.size)
        width, height = (max(16, round(side * scale / 16) * 16) for side in image.size)
        small = image.convert("RGB").resize((width, height), Pillow.Resampling.LANCZOS)
        return np.asarray(small, np.float32)


def run(args: argparse.Namespace, folder: Path, budgets: dict[str, int]) -> dict[str, Record]:
    """Every side's record; those that are not there are made, in turns."""
    from stylewatch.jobs.child import CODE
    from stylewatch.jobs.executors import HUGE_PAGES

    folders = {
        side: folder / (f"{side}-{budget}" if side == "peer" else f"{side}-{budget}-{CODE[:12]}")
        for side, budget in budgets.items()
    }
    missing = [side for side, record in folders.items() if not (record / "stops.json").exists()]
    commands = {}
    for side in missing:
        folders[side].mkdir(exist_ok=True)
        commands[side] = [
            "env", f"GLIBC_TUNABLES={HUGE_PAGES}", sys.executable, __file__,
            "--weights", args.weights, "--side", side,
            "--pair", str(folder), "--record", str(folders[side]),
            "--evaluations", str(budgets[side]),
        ]  # fmt: skip

    def finished(side: str, stops: Stops) -> None:
        (folders[side] / "stops.json").write_text(json.dumps(stops), encoding="utf-8")

    take_turns(commands, finished)
    return {side: Record(record) for side, record in folders.items()}


def agreement(weights: str, folder: Path) -> float:
    """Relative difference of PyTorch's and our float32 gradient at the photo, less its worst 1 %.

    Both with plain convolutions. In flat skies neighbours are equal, and the least rounding decides
    which of them a pooling takes: few values that differ by much. Another objective would differ
    everywhere.
    """
    theirs = np.load(next(folder.glob("peer-*/gradient.npy")))
    photo, painting = (np.load(folder / f"{name}.npy") for name in ("photo", "painting"))
    with plain_convolutions():
        ours = np.asarray(same_objective(weights, photo, painting, "float32")(photo)[1])
    apart = np.sort(np.abs(ours - theirs), axis=None)[: -(ours.size // 100)]
    difference = float(np.linalg.norm(apart) / np.linalg.norm(theirs))
    if difference > 2e-3:
        raise SystemExit(f"the two sides do not run the same objective: {difference:.1e}")
    return difference


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """What is made in here computes each output by itself, as other programs do."""
    from stylewatch.engine import backend, features

    with (
        mock.patch.object(backend, "waits_for_products", return_value=False),
        mock.patch.object(features, "on_device", features.on_device.__wrapped__),  # not kept
    ):
        yield


def reached(record: Record, referee: Any, goal: float) -> Row:
    """When a side of ours was first seen at the goal or below, by halving: its best only falls."""
    kept = record.kept()
    first = bisect_left(kept, True, key=lambda n: float(referee(record.image(n))[0]) <= goal)
    evaluation = kept[first] if first < len(kept) else None
    seconds, cpu = record.spent(evaluation or record.evaluations)
    return {"": seconds, "_cpu": cpu, "_evaluations": evaluation, "_of": record.evaluations}


def layer_losses(weights: str, folder: Path, pictures: dict[str, Image]) -> dict[str, Any]:
    """Style loss per layer and content loss of the clipped pictures, as shares.

    Style of the photo's own distance to the painting, content of the features' mean square.
    """
    from keras import ops

    from stylewatch.engine import backend, losses
    from stylewatch.engine.features import deprocess, load_vgg19, preprocess

    extract = backend.compiled(load_vgg19(weights).extractor({CONTENT, *STYLE}))

    def described(image: Image) -> tuple[Any, dict[str, Any]]:
        clipped = preprocess(np.clip(deprocess(image), 0, 255))
        taps = extract(ops.convert_to_tensor(clipped))
        return taps[CONTENT], {name: losses.gram_matrix(taps[name]) for name in STYLE}

    features, start = described(np.load(folder / "photo.npy"))
    _, wanted = described(np.load(folder / "painting.npy"))
    shares = {}
    for picture, image in pictures.items():
        content, grams = described(image)
        shares[picture] = {
            name: float(losses.style_loss(grams[name], wanted[name]))
            / float(losses.style_loss(start[name], wanted[name]))
            for name in STYLE
        } | {
            "content": float(losses.content_loss(content, features))
            / float(losses.energy(features))
        }
    return shares


def machine() -> dict[str, str]:
    """What these figures hold for: the processor and the versions."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(line.split(":")[1] for line in cpu.splitlines() if line.startswith("model name"))
    versions = {name: metadata.version(name) for name in ("torch", "tensorflow", "numpy")}
    return {"cpu": model.strip(), **versions}


def gemm_rates() -> dict[str, float]:
    """TFLOP/s of a 2048³ product on this machine, now."""
    from evaluation import product_rate

    return {dtype: product_rate(dtype, 5) / 1e12 for dtype in ("float32", "bfloat16")}


# -- all pairs -------------------------------------------------------------------------------------


def summary(rows: list[Row]) -> str:
    """Medians over the pairs: by the clock while running, and by processor seconds."""

    def line(what: str, one: str, other: str) -> str:
        both = [row for row in rows if row.get(one) and row.get(other)]
        if not both:
            return ""
        clock = statistics.median(row[one] / row[other] for row in both)
        cpu = statistics.median(row[f"{one}_cpu"] / row[f"{other}_cpu"] for row in both)
        return f"{what}: {clock:.1f} × sooner, processor {cpu:.1f} × (median of {len(both)})\n"

    text = ""
    for side in ("bfloat16", "float32"):
        for name, goal in ((side, "the peer's loss"), (f"{side}_near", "1 % above it at most")):
            tried = [row for row in rows if name in row]
            if tried and all(row[f"{name}_evaluations"] for row in tried):
                text += line(f"{goal}, {side}", "peer", name)
            elif tried:
                text += f"{goal}: {side} was not there in every pair\n"
    text += line("a painting, against 500 evaluations", "peer", "painting")
    return text + line("a painting, against 1000 evaluations", "peer_long", "painting")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet or a file")
    parser.add_argument("--photos", type=Path, help="a folder; its first three are taken")
    parser.add_argument("--paintings", type=Path, help="a folder; its first two are taken")
    parser.add_argument("--out", type=Path, default=Path("build/peer"))
    parser.add_argument("--pairs", type=int, default=6, help="how many of them")
    parser.add_argument("--float32", type=int, default=2, help="the first pairs, also in float32")
    parser.add_argument("--long", type=int, default=1, help="the first pairs, also against 1000")
    for name in ("--side", "--evaluations", "--pair", "--record"):  # what a side is told
        kind: Any = {"--side": str, "--evaluations": int}.get(name, Path)
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        {"peer": run_peer, "painting": run_painting}.get(args.side, run_ours)(args)
        return
    if not (args.photos and args.paintings):
        parser.error("which --photos and which --paintings?")
    from stylewatch.engine.backend import device

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the sides would stand still forever
    args.out.mkdir(parents=True, exist_ok=True)
    photos, paintings = (sorted(folder.glob("*.*")) for folder in (args.photos, args.paintings))
    # a photo and a painting not seen before come first: any beginning is worth reading
    pairs = [
        (photo, paintings[(number + shift) % 2])
        for shift in range(2)
        for number, photo in enumerate(photos[:3])
    ]
    rows: list[Row] = []
    fast_bfloat16 = device().fast_bfloat16
    for number, (photo, painting) in enumerate(pairs[: args.pairs]):
        budgets = {"painting": 0, "peer": LONG if number < args.long else EVALUATIONS}
        if fast_bfloat16:
            budgets["bfloat16"] = OURS["bfloat16"]
        if number < args.float32 or not fast_bfloat16:
            budgets["float32"] = OURS["float32"]
        rows.append(compare(args, photo, painting, budgets))
        print(json.dumps(rows[-1]), flush=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (args.out / "pairs.jsonl").write_text(lines, encoding="utf-8")
    print(summary(rows))


if __name__ == "__main__":
    main()
