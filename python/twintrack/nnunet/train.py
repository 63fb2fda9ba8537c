"""Training of the coarse network and of the members, by nnU-Net's own commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twintrack.errors import InputError
from twintrack.files import split_suffix
from twintrack.nnunet.locks import locked
from twintrack.nnunet.nnunet_commands import SEED, run_command
from twintrack.nnunet.train_checks import check_device, check_planner, check_trainer
from twintrack.nnunet.training import Training
from twintrack.nnunet.training_data import TrainingData

FINGERPRINT = "dataset_fingerprint.json"


@dataclass(frozen=True)
class Network:
    """A network to be trained, and how far it is.

    Parameters
    ----------
    name
        Data set, planned and preprocessed.
    seed
        Of the weights and, without worker processes, the augmentation. torch starts every process
        from the same one, so that without it all members would begin alike.
    training
        Where and how.
    home
        Folder that takes the place of ``nnUNet_results``.
    """

    name: str
    seed: int
    training: Training
    home: Path

    @property
    def model(self) -> Path:
        """nnU-Net's folder of the trained model."""
        given = self.training
        model = f"{given.used_trainer}__{given.used_plans}__{given.used_configuration}"
        return self.home / self.name / model

    @property
    def fold(self) -> Path:
        """Folder of its fold."""
        return self.model / f"fold_{self.training.fold}"

    @property
    def trained(self) -> bool:
        """Whether its weights are final."""
        return (self.fold / "checkpoint_final.pth").is_file()

    @property
    def finished(self) -> bool:
        """Whether it is trained and, if that is wanted, its validation has left probabilities."""
        if not self.trained or "--npz" not in self.training.extra:
            return self.trained
        validation = self.fold / "validation"
        # nnU-Net writes the summary when it has validated every case, with probabilities or not.
        if not (validation / "summary.json").is_file():
            return False
        files = [split_suffix(file.name) for file in validation.iterdir()]
        probabilities = {case for case, suffix in files if suffix == ".npz"}
        return bool(probabilities) and all(
            case in probabilities for case, suffix in files if suffix
        )

    @property
    def same_data(self) -> bool:
        """Whether the data set is as it was when the network, or a fold of it, was trained."""
        before = self.model / FINGERPRINT
        now = self.training.preprocessed / self.name / FINGERPRINT
        if not any(self.model.glob("fold_*/checkpoint_*.pth")) or not before.is_file():
            return True
        return not now.is_file() or before.read_bytes() == now.read_bytes()

    def check_data(self) -> None:
        """Refuse to go on with other data: all folds of a model share one plans.json."""
        if not self.same_data:
            raise InputError(
                f"was trained before {self.name} changed and was planned again, and "
                "would be a mixture of both; delete it to train it on what there is now, or name "
                "another folder with --results",
                file=self.model,
            )

    def train(self, log: Path) -> None:
        """Run ``nnUNetv2_train`` from the seed, its output added to a log.

        A training that is finished is not done again, one that was interrupted goes on; with
        ``--npz`` that includes the validation.

        Raises
        ------
        InputError
            The data set has been planned again since the network, or another fold of it, was
            trained.
        BlockingIOError
            Another process trains it.
        RuntimeError
            nnU-Net failed.
        """
        if self.finished:
            return
        self.check_data()
        fold, given = self.fold, self.training
        with locked(fold / "twintrack.lock", "trains this network") as held:
            if self.finished:  # by another process, between the two looks
                return
            if self.trained:
                # The validation is to be repeated, and is whole when nnU-Net has written this.
                (fold / "validation" / "summary.json").unlink(missing_ok=True)
            begun = not self.trained and any(
                (fold / f"checkpoint_{which}.pth").is_file() for which in ("latest", "best")
            )
            command = ["run_training_entry", self.name, given.used_configuration, str(given.fold)]
            command += ["-tr", given.used_trainer, "-p", given.used_plans, "-device", given.device]
            command += ["--val"] if self.trained else ["--c"] if begun else []
            environment = {**given.environment(self.home), SEED: str(self.seed)}
            run_command([*command, *given.extra], environment, log, held)

    def doing(self, what: str) -> str:
        """Say what will be done to it."""
        if self.finished:
            # Whatever has changed since, the data included: let nobody take it for a new one.
            told, again = "trained already", self.fold
            if not self.same_data:
                told, again = "trained already, before its data set changed", self.model
            return f"keeping {what}, which is {told} (delete {again} to train it again)"
        return f"validating {what}, which is trained" if self.trained else f"training {what}"


def train_ensemble(
    training: Training,
    seeds: Sequence[int],
    fine: int | None,
    coarse: int | None,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[Path | None, list[Path]]:
    """Plan, preprocess and train the coarse network and one member for each seed.

    Parameters
    ----------
    training
        Where and how.
    seeds
        One for each member.
    fine, coarse
        Numbers of the data sets; None trains no such network.
    told
        Told what is worked on.

    Returns
    -------
    coarse, members
        Folders of the trained models, for `twintrack.nnunet.Pipeline`.

    Raises
    ------
    FileNotFoundError, InputError
        Before anything is run: a data set is not there, its splits leave out cases, nnU-Net finds
        no such trainer or planner, or there is no such device. After planning: see
        `TrainingData.plan_and_preprocess`. Before any network is trained: see `Network.train`.
    BlockingIOError, RuntimeError
        See there.
    """
    results = training.results
    numbers = [number for number in (coarse, fine) if number is not None]
    data = {number: TrainingData(number, training) for number in numbers}
    networks = []
    if coarse is not None:
        network = Network(data[coarse].name, 0, training, results / "coarse")
        networks.append(("the coarse network", network))
    if fine is not None:
        for index, seed in enumerate(seeds, start=1):
            network = Network(data[fine].name, seed, training, results / f"member_{seed}")
            networks.append((f"member {index} of {len(seeds)} (seed {seed})", network))
    check_planner(training.planner, training.plans)
    if not all(network.finished for _, network in networks):
        check_device(training.device)
        if training.small is None:  # that trainer is ours: nnU-Net would look through its own first
            check_trainer(training.trainer)
    results.mkdir(parents=True, exist_ok=True)
    for number, name in ((coarse, "coarse.log"), (fine, "members.log")):
        if number is not None:
            told(f"planning and preprocessing data set {number}")
            data[number].plan_and_preprocess(results / name)
    for _, network in networks:
        if not network.finished:
            network.check_data()
    for what, network in networks:
        told(network.doing(what))
        network.train(results / f"{network.home.name}.log")
    models = [network.model for _, network in networks]
    return (None, models) if coarse is None else (models[0], models[1:])
