"""`enos assign`: the assignments of a trained network for every energy, from sensitivities, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.cluster import workers_options
from dse.cli.common import (
    ARCH_HELP,
    FILE,
    argument_option,
    echo_json,
    json_option,
    network_arguments,
)
from dse.cli.progress import mapping_bar, progress_bar
from dse.core.errors import InputError, unknown
from dse.core.text import text_table
from dse.table.cost_table import CostTable

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool
    from dse.workload.networks import Network
    from search.costs import Held
    from search.data.sets import Dataset
    from search.sensitivity.job import Job, Solution
    from search.training.train import Compute

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LARGEST = 1e6


@click.command()
@click.argument("network")
@click.option("--weights", type=FILE, required=True, help="Trained weights: a state dict that torch.save wrote.")
@click.option("--data", default="digits", show_default=True,
              help="Name of a data set, folder of images, .npz file, or package.module:function.")  # fmt: skip
@click.option("--data-dir", type=_FOLDER, help="Folder of the data set's official files.")
@click.option("--budget", "budgets", type=float, multiple=True, metavar="SHARE",
              help="Energy, cycles or size, as a share of the all-typical 8-bit network's; repeatable.")  # fmt: skip
@click.option("--latency", is_flag=True, help="Budgets and front are of cycles instead of energy.")
@click.option("--size", is_flag=True, help="Budgets and front are of the bits of the weights instead of energy.")
@click.option("--loss", default="cross_entropy", show_default=True,
              help="cross_entropy, next_token, mse, l1, bce, or package.module:function.")  # fmt: skip
@click.option("--metric", default="accuracy", show_default=True,
              help="accuracy, mean_iou, mse, mae, perplexity, or package.module:function.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="LAYER",
              help="Layers that stay as they are, by name or pattern, such as 'head.*'; repeatable.")  # fmt: skip
@argument_option
@click.option("--table", type=FILE, help="Energies of every layer that were mapped before; default: maps them.")
@click.option("--arch", type=FILE, help=ARCH_HELP)
@click.option("--store", type=FILE, help="Store of results; default: $ENOS_STORE or the user's cache.")
@click.option("--candidates", help="Names with commas, such as T8,T4,BC4; default: all of the table.")
@click.option("--images", type=click.IntRange(32), help="Held-out images; default: by the size of the network.")
@click.option("--calibration-steps", type=click.IntRange(0, 10_000), default=20, show_default=True,
              help="Steps that fit a layer to an operator before it is judged.")  # fmt: skip
@click.option("--corrections", type=click.IntRange(0, 10_000), default=16, show_default=True,
              help="Assignments that are measured around each solution.")  # fmt: skip
@click.option("--finetune", type=click.IntRange(1, 10_000), metavar="EPOCHS",
              help="Trains the found networks and the uniform ones.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Of fine-tuning.")
@click.option("--lr", type=float, default=0.001, show_default=True, help="Learning rate of fine-tuning.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or cuda:N.")
@workers_options
@click.option("--threads", type=click.IntRange(1, 1024),
              help="Of torch in fine-tuning and with --jobs 1; one is best for tiny networks.")  # fmt: skip
@click.option("--out", type=_FOLDER, default=Path("assign"), show_default=True, help="Folder of all files.")
@json_option
def assign(
    network: str,
    weights: Path,
    data: str,
    data_dir: Path | None,
    budgets: tuple[float, ...],
    latency: bool,
    size: bool,
    loss: str,
    metric: str,
    exclude: tuple[str, ...],
    arguments: tuple[str, ...],
    table: Path | None,
    arch: Path | None,
    store: Path | None,
    candidates: str | None,
    images: int | None,
    calibration_steps: int,
    corrections: int,
    finetune: int | None,
    batch_size: int,
    lr: float,
    seed: int,
    device: str,
    jobs: int | ClusterPool,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Assigns operators and precisions to a trained network, without training.

    NETWORK is a name that is known (squeezenet) or package.module:factory of your own torch.nn.Module. For each layer
    and candidate, the loss on held-out images is measured; the front of energy against loss follows, and an assignment
    for each budget. A job that was interrupted resumes.

    --size counts the bits of the weights of all layers with candidates, not of biases, normalisation and scales.

    \b
    Example:
      enos assign squeezenet --weights trained.pt --data cifar10 --data-dir data --budget 0.35
      enos assign mynets.small:make --weights small.pt --table small.csv --budget 0.3 --budget 0.4 --finetune 2
    """
    if table is not None and arch is not None:
        raise InputError("--arch", "does not go with --table", hint="give one of them")
    for budget in budgets:
        if not 0 < budget < _LARGEST:
            raise InputError("--budget", f"found {budget}", "a number above 0")
    if latency and size:
        raise InputError("--size", "does not go with --latency", hint="give one of them")
    if device != "cpu" and not isinstance(jobs, int):
        raise InputError("--cluster", f"does not go with --device {device}", hint="give one of them")
    if not 0 < lr <= 10:
        raise InputError("--lr", f"found {lr}", "a number above 0, at most 10")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    quantity: Held = "latency" if latency else "size" if size else "energy"
    job = _job(network, weights, data, data_dir, arguments, table, arch, store, candidates, images, calibration_steps,
               corrections, seed, out, quantity, exclude, loss, metric, device, jobs)  # fmt: skip
    with progress_bar("parts") as bar:
        job.on_progress = lambda what, done, of: bar.update(description=what, completed=done, total=of)
        _ = job.front  # measures, and writes the files
        bar.update(description="measuring assignments", completed=0, total=len(budgets) + 1)
        uniforms = job.uniforms()
        found = []
        for i, budget in enumerate(sorted(set(budgets), reverse=True)):
            found.append(job.solve(budget))
            bar.update(completed=i + 1)
        if finetune is not None:
            uniforms, found = _finetuned(job, uniforms, found, finetune, batch_size, lr, bar)
    from search.sensitivity.plot import draw_front, front_info

    picture = out / "front.png"
    draw_front(front_info(job.front, uniforms, found, job.quantity, job.compute.metric.measure), picture)
    if as_json:
        echo_json(_document(job, uniforms, found))
        return
    click.echo("\n".join(_lines(job, uniforms, found)))
    for file in ("front.csv", "sensitivities.json", "front.png"):
        title = "Figure" if file.endswith(".png") else file.partition(".")[0].capitalize()
        click.echo(f"{title}: {out / file}")
    if found:
        click.echo(f"Assignments: {out / 'assignments'}")


def _compute(loss: str, metric: str, device: str) -> Compute:
    """Loss, metric and device by name, as in a run's configuration."""
    import torch

    from search.runs.inputs import check_device
    from search.training.measures import LOSSES, METRICS
    from search.training.metrics import criterion_of, metric_of
    from search.training.train import Compute

    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise InputError("--device", f"found {device!r}", "cpu, cuda, cuda:N")
    try:
        check_device(device)
    except InputError as e:
        raise e.at("--device") from None
    for option, name, known in (("--loss", loss, LOSSES), ("--metric", metric, METRICS)):
        if name not in known and ":" not in name:
            raise unknown(option, option[2:], name, [*known, "package.module:function"])
    return Compute(device, criterion=criterion_of(loss), metric=metric_of(metric, loss))


def _finetuned(
    job: Job, uniforms: list[Solution], found: list[Solution], epochs: int, batch_size: int, lr: float, bar: Any
) -> tuple[list[Solution], list[Solution]]:
    from search.training.settings import Training

    training = Training(epochs=epochs, batch_size=batch_size, lr=lr)
    total, done = epochs * (len(uniforms) + len(found)), 0

    def step(_record: object) -> None:
        nonlocal done
        done += 1
        bar.update(description="fine-tuning", completed=done, total=total)

    both = [[job.finetune(s, training, step) for s in solutions] for solutions in (found, uniforms)]
    return both[1], both[0]


def _job(
    name: str, weights: Path, data_name: str, data_dir: Path | None, arguments: Sequence[str], table: Path | None,
    arch: Path | None, store: Path | None, candidates: str | None, images: int | None, steps: int, corrections: int,
    seed: int, out: Path, quantity: Held, exclude: Sequence[str], loss: str, metric: str, device: str,
    jobs: int | ClusterPool,
) -> Job:  # fmt: skip
    import torch

    from dse.table.fill import map_workload
    from dse.workload.export import export_network
    from dse.workload.networks import load_network
    from search.sensitivity.crew import default_processes
    from search.sensitivity.job import Job
    from search.sensitivity.study import Settings, digest
    from search.supernet import searchable
    from search.training.weights import load_weights, read_weights

    compute = _compute(loss, metric, device)
    state = read_weights(weights)
    data = _data(data_name, data_dir, seed)
    torch.manual_seed(seed)
    network = load_network(name, arguments=network_arguments(arguments), default_shape=(1, *data.image_shape))
    load_weights(network.module, state, weights)
    _check_fit(network, data, data_name, loss, metric)
    if table is not None:
        costs = CostTable.load(table)
    else:
        with mapping_bar(f"mapping {network.name}") as show:
            costs = map_workload(export_network(network), arch=arch, store=store, jobs=jobs, progress=show)
    names = None if candidates is None else [c.strip() for c in candidates.split(",") if c.strip()]
    model = searchable(network.module, costs, names, exclude=exclude)
    compute.place(model)
    identity = {"weights": digest(sorted(state.items())), "data": data_name, "network": network.name,
                "exclude": list(exclude)}  # fmt: skip
    settings = Settings(images, "T8", steps, corrections=corrections, seed=seed)
    processes: int | ClusterPool = jobs
    if isinstance(jobs, int):
        processes = default_processes(compute.device, None if jobs == -1 else jobs)
    return Job(model, costs, data.to(compute.device), settings, out, identity, quantity, name=network.name,
               compute=compute, processes=processes)  # fmt: skip


def _data(name: str, folder: Path | None, seed: int) -> Dataset:
    """A data set by name, path or function, as in a run's configuration (docs/data.md)."""
    from search.data.datasets import DATASETS
    from search.data.own import from_factory, from_path
    from search.training.functions import own_function

    if name in DATASETS:
        return DATASETS[name](folder, None, seed, None)
    if folder is not None:
        raise InputError("--data-dir", f"goes with a data set of ENOS, and --data is {name!r}", DATASETS)
    if Path(name).exists():
        return from_path(Path(name), seed=seed)
    if ":" in name:
        return from_factory(own_function(name, "--data"), name, {}, seed=seed)
    raise unknown("--data", "data set", name, [*DATASETS, "a folder", "an .npz file", "package.module:function"])


def _check_fit(network: Network, data: Dataset, name: str, loss: str, metric: str) -> None:
    """Refuses a network, loss or metric that does not fit the data."""
    import torch

    from search.training.metrics import check_targets

    if tuple(network.input_shape[1:]) != data.image_shape:
        raise InputError("network", f"takes images of {network.input_shape[1:]}, but {name} has {data.image_shape}",
                         hint="give --arg that fit the data")  # fmt: skip
    network.module.eval()
    with torch.no_grad():
        scores = network.module(data.train.prepared(data.train.images[:2]))
    try:
        check_targets(data, scores, loss, metric, name)
    except InputError as e:
        raise e.at({"loss": "--loss", "metric": "--metric"}.get(e.where, e.where)) from None


def _lines(job: Job, uniforms: Sequence[Solution], found: Sequence[Solution]) -> list[str]:
    from search.sensitivity.plot import QUANTITIES

    s, trained = job.sensitivities, bool(uniforms and uniforms[0].trained)
    what, measure = QUANTITIES[job.quantity], job.compute.metric.measure
    header = [
        "network",
        f"{what} /\nall T8",
        "predicted\nloss",
        "measured\nloss",
        f"measured\n{measure.name}",
        *([f"test {measure.name}\nfine-tuned"] if trained else []),
    ]
    rows = []
    for solution in sorted([*uniforms, *found], key=lambda x: (-x.cost, x.name)):
        title = f"all {solution.name}" if solution.budget is None else f"found, {solution.name}"
        row = [title, f"{solution.cost:.3f}", f"{s.reference_loss + solution.predicted:.3f}", f"{solution.loss:.3f}",
               measure.text(solution.accuracy)]  # fmt: skip
        rows.append(row + ([measure.text(measure.of(solution.trained, "test"))] if trained else []))
    measured = "with the statistics of each batch"
    title = f"Not trained, {measured}:"
    if trained:
        title = f"Before training, {measured}; and after {uniforms[0].trained['passes']:,.0f} image passes:"
    return [
        f"{s.network}: {len(s.layers)} layers, {len(s.candidates)} candidates, {s.images} held-out images; "
        f"all {s.reference}: loss {s.reference_loss:.3f}, {measure.name} {measure.text(s.reference_accuracy)}",
        f"Front: {len(job.front)} assignments of {what} {job.front.costs[0]:.3f} to {job.front.costs[-1]:.3f}",
        "",
        title,
        text_table(header, rows),
        "",
    ]


def _document(job: Job, uniforms: Sequence[Solution], found: Sequence[Solution]) -> dict[str, Any]:
    s = job.sensitivities

    def plain(solution: Solution) -> dict[str, Any]:
        return {key: dict(value) if key in ("assignment", "trained") else value
                for key, value in vars(solution).items()}  # fmt: skip

    return {
        "network": s.network, "quantity": job.quantity, "images": s.images, "reference": s.reference,
        "reference_loss": s.reference_loss, "reference_accuracy": s.reference_accuracy,
        "loss": s.loss, "metric": s.metric,
        "front": [{"cost": float(c), "predicted": float(v)} for c, v in zip(job.front.costs, job.front.values,
                                                                            strict=True)],
        "found": [plain(x) for x in found], "uniform": [plain(x) for x in uniforms],
        "folder": str(job.folder),
    }  # fmt: skip
