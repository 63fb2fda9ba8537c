"""``twintrack train``: the coarse network and the members, by nnU-Net's own training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.cli.prepare import environment_folder
from twintrack.errors import InputError

_FOLDERS = "Folders"
_TRAINING = "Training"


def train(
    fine: Annotated[
        int, typer.Option("-d", help="Number of the members' data set.", show_default=False)
    ],
    coarse: Annotated[
        int | None,
        typer.Option(
            "--coarse",
            help="Number of the coarse network's data set; without it none is trained.",
        ),
    ] = None,
    members: Annotated[
        int, typer.Option("-k", min=1, help="Members to train, each from a seed of its own.")
    ] = 3,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the first member; then one more each.")
    ] = 1,
    raw: Annotated[
        Path | None,
        typer.Option(
            "--raw",
            help="nnUNet_raw; by default that of the environment.",
            rich_help_panel=_FOLDERS,
        ),
    ] = None,
    preprocessed: Annotated[
        Path | None,
        typer.Option(
            "--preprocessed",
            help="nnUNet_preprocessed; by default that of the environment.",
            rich_help_panel=_FOLDERS,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="Gets coarse/ and member_SEED/, laid out as nnUNet_results; by default that of "
            "the environment.",
            rich_help_panel=_FOLDERS,
        ),
    ] = None,
    configuration: Annotated[
        str,
        typer.Option("-c", help="Configuration of the plans.", rich_help_panel=_TRAINING),
    ] = "3d_fullres",
    trainer: Annotated[
        str,
        typer.Option(
            "-tr",
            help="Trainer; one outside nnU-Net is looked for in nnUNet_extTrainer.",
            rich_help_panel=_TRAINING,
        ),
    ] = "nnUNetTrainer",
    plans: Annotated[
        str,
        typer.Option("-p", help="Plans, by the name that -pl gives.", rich_help_panel=_TRAINING),
    ] = "nnUNetPlans",
    planner: Annotated[
        str,
        typer.Option(
            "-pl",
            help="Planner: for residual encoders nnUNetPlannerResEncM, and -p "
            "nnUNetResEncUNetMPlans.",
            rich_help_panel=_TRAINING,
        ),
    ] = "ExperimentPlanner",
    fold: Annotated[
        str,
        typer.Option("-f", help="Fold, or all to train on every case.", rich_help_panel=_TRAINING),
    ] = "all",
    npz: Annotated[
        bool,
        typer.Option(
            "--npz",
            help="Save the validation's probabilities, which twintrack fit reads; needs a "
            "numbered fold.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    device: Annotated[
        str, typer.Option("-device", help="cuda, cpu or mps.", rich_help_panel=_TRAINING)
    ] = "cuda",
    processes: Annotated[
        int,
        typer.Option(
            "-np",
            min=1,
            help="Processes for preprocessing and augmentation.",
            rich_help_panel=_TRAINING,
        ),
    ] = 8,
    small: Annotated[
        bool,
        typer.Option(
            "--small",
            help="Small networks and a short training, for a CPU: takes the place of -c, -tr, -p "
            "and -pl.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="With --small; 4 by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations",
            min=1,
            help="Of an epoch, with --small; 25 by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    *,
    telling: options.Telling,
) -> None:
    """Plan, preprocess and train with nnU-Net's own commands; what is finished is not done again.

    The trained folders are printed as twintrack predict takes them.
    """
    from twintrack.files import check_folder_place
    from twintrack.nnunet.train import train_ensemble
    from twintrack.nnunet.training import Small, Training

    report = telling.report()
    if fold != "all" and not fold.isdigit():
        raise InputError(f"-f is {fold!r}; it is a number or all")
    for option, value in (("--epochs", epochs), ("--iterations", iterations)):
        if value is not None and not small:
            raise InputError(
                f"{option} is {value}, but only small networks (--small) take it; others are "
                "trained for as long as their trainer says, such as -tr nnUNetTrainer_250epochs"
            )
    usual = Small()
    length = Small(epochs=epochs or usual.epochs, iterations=iterations or usual.iterations)
    training = Training(
        raw=raw or environment_folder("nnUNet_raw", "--raw"),
        preprocessed=preprocessed or environment_folder("nnUNet_preprocessed", "--preprocessed"),
        results=results or environment_folder("nnUNet_results", "--results"),
        configuration=configuration,
        trainer=trainer,
        plans=plans,
        planner=planner,
        fold=fold if fold == "all" else int(fold),
        device=device,
        processes=processes,
        small=length if small else None,
        extra=("--npz",) if npz else (),
    )
    check_folder_place(training.results)
    seeds = range(seed, seed + members)

    def tell(message: str) -> None:
        if not (telling.quiet or telling.log_json):
            typer.echo(f"{message} …", err=True)

    coarse_model, models = train_ensemble(training, seeds, fine, coarse, tell)
    rows: list[tuple[str, object]] = [("--members", model) for model in models]
    if coarse_model is not None:
        rows.insert(0, ("--coarse", coarse_model))
    report.result(
        "Trained, for twintrack predict",
        rows,
        coarse=None if coarse_model is None else str(coarse_model),
        members=[str(model) for model in models],
    )
