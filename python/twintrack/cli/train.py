"""``twintrack train``: the coarse network and the members, by nnU-Net's own training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from twintrack.cli import options
from twintrack.cli.extras import require
from twintrack.cli.prepare import environment_folder
from twintrack.errors import InputError


@dataclass(frozen=True)
class Folders:
    """nnU-Net's folders.

    Attributes
    ----------
    raw
        nnUNet_raw; by default that of the environment.
    preprocessed
        nnUNet_preprocessed; by default that of the environment.
    results
        Gets coarse/ and member_SEED/, laid out as nnUNet_results; by default that of the
        environment.
    """

    panel: ClassVar[str] = "Folders"

    raw: Path | None = None
    preprocessed: Path | None = None
    results: Path | None = None


@dataclass(frozen=True)
class Networks:
    """Which networks are trained, and how.

    Attributes
    ----------
    configuration
        Configuration of the plans.
    trainer
        Trainer; one outside nnU-Net is looked for in nnUNet_extTrainer.
    plans
        Plans, by the name that their planner gives.
    planner
        Planner: for residual encoders nnUNetPlannerResEncM, and --plans nnUNetResEncUNetMPlans.
    fold
        Fold, or all to train on every case.
    npz
        Save the validation's probabilities, which twintrack fit reads; needs a numbered fold.
    device
        cuda, cpu or mps.
    processes
        Processes for preprocessing and augmentation.
    small
        Small networks and a short training, for a CPU: takes the place of -c, -tr, --plans and -pl.
    epochs
        With --small; 4 by default.
    iterations
        Of an epoch, with --small; 25 by default.
    """

    panel: ClassVar[str] = "Training"

    configuration: Annotated[str, typer.Option("-c")] = "3d_fullres"
    trainer: Annotated[str, typer.Option("-tr")] = "nnUNetTrainer"
    plans: str = "nnUNetPlans"
    planner: Annotated[str, typer.Option("-pl")] = "ExperimentPlanner"
    fold: Annotated[str, typer.Option("-f")] = "all"
    npz: bool = False
    device: Annotated[str, typer.Option("-device")] = "cuda"
    processes: Annotated[int, typer.Option("-np", min=1)] = 8
    small: bool = False
    epochs: Annotated[int | None, typer.Option(min=1)] = None
    iterations: Annotated[int | None, typer.Option(min=1)] = None

    def settings(self) -> dict[str, Any]:
        """Return them as `Training` takes them."""
        from twintrack.nnunet.training import Small

        given = asdict(self)
        npz = given.pop("npz")
        length = {name: given.pop(name) for name in ("epochs", "iterations")}
        length = {name: value for name, value in length.items() if value is not None}
        if self.fold != "all" and not self.fold.isdigit():
            raise InputError(f"-f is {self.fold!r}; it is a number or all")
        for name, value in length.items():
            if not self.small:
                raise InputError(
                    f"--{name} is {value}, but only small networks (--small) take it; others are "
                    "trained for as long as their trainer says, such as -tr nnUNetTrainer_250epochs"
                )
        return {
            **given,
            "fold": self.fold if self.fold == "all" else int(self.fold),
            "small": Small(**length) if self.small else None,
            "extra": ("--npz",) if npz else (),
        }


def train(
    fine: Annotated[int, typer.Option("-d")],
    coarse: int | None = None,
    members: Annotated[int, typer.Option("-k", min=1)] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    *,
    folders: Folders,
    networks: Networks,
    telling: options.Telling,
) -> None:
    """Plan, preprocess and train with nnU-Net's own commands; what is finished is not done again.

    The trained folders are printed as twintrack predict takes them.

    Parameters
    ----------
    fine
        Number of the members' data set.
    coarse
        Number of the coarse network's data set; without it none is trained.
    members
        Members to train, each from a seed of its own.
    seed
        Seed of the first member; then one more each.
    """
    from twintrack.files import check_folder_place
    from twintrack.nnunet.train import train_ensemble
    from twintrack.nnunet.training import Training

    report = telling.report()
    settings = networks.settings()
    places: dict[str, Any] = {
        name: given or environment_folder(f"nnUNet_{name}", f"--{name}")
        for name, given in vars(folders).items()
    }
    training = Training(**places, **settings)
    check_folder_place(training.results)
    require("nnunet", "train")
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
