"""The paper from end to end on synthetic CTs: networks are trained, run, calibrated and measured.

``python -m twintrack.demos.paper`` generates three cohorts of phantom CTs (training with one rater,
calibration and test with five), trains a coarse nnU-Net and K = 3 small members with nnU-Net's own
code, predicts, fits a calibrator for every target, evaluates as the benchmark does and writes the
report with Tables 1 and 2 and Figures 2 and 3. It needs neither a GPU nor data; what is finished is
not done again when it is repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from twintrack.calibration.calibrator import Calibrator
from twintrack.cohort import Case, load_case, read_manifest
from twintrack.cohort.score_records import calibrate_score
from twintrack.datasets.phantom import PhantomSpec, write_cohort, write_panorama
from twintrack.demos.nodules import METHODS, MHR
from twintrack.errors import InputError
from twintrack.files import read_record, write_text
from twintrack.nnunet import Pipeline, RoiRule
from twintrack.nnunet.curvas import prepare_curvas
from twintrack.nnunet.image_cases import find_images
from twintrack.nnunet.panorama import PanoramaJob, prepare_panorama
from twintrack.nnunet.predict_job import PredictJob, predict_cohort
from twintrack.nnunet.train import train_ensemble
from twintrack.nnunet.training import Small, Training
from twintrack.report.build import build_report
from twintrack.report.comparison import Comparison
from twintrack.report.examples import Example, cut_example
from twintrack.report.maps import MapPlot
from twintrack.report.method_results import MethodResults, read_results
from twintrack.runs.engine import Settings, notes_of
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_tallies, read_tallies, tally_cohort
from twintrack.volumes import read_volume

MARGINS = (30.0, 30.0, 15.0)  # mm; the phantoms' field of view is small, PANORAMA's would fill it
COARSE, FINE = 103, 104
PREPARED = "prepared.done"


@dataclass(frozen=True)
class Scale:
    """How much work the demonstration is.

    Parameters
    ----------
    training, calibration, test
        Cases of each cohort.
    members
        K, the number of high-resolution networks.
    shape
        Voxels of a CT along x, y, z, of 2.5 x 2.5 x 3 mm.
    coarse, fine
        Networks and length of their training.
    """

    training: int = 12
    calibration: int = 8
    test: int = 10
    members: int = 3
    shape: tuple[int, int, int] = (112, 96, 64)
    coarse: Small = field(default_factory=lambda: Small(patch=(16, 32, 32), epochs=6))
    fine: Small = field(default_factory=lambda: Small(epochs=12))


def run_demo_full(
    out: Path,
    scale: Scale | None = None,
    *,
    seed: int = 0,
    resamples: int = 5000,
    told: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Do all of it and write everything to a folder.

    Parameters
    ----------
    out
        Gets the cohorts, nnU-Net's folders, predictions, calibrators, results and ``report/``.
    scale
        How much work.
    seed
        Of the phantoms, the networks and the bootstrap.
    resamples
        Of the cases, for the intervals.
    told
        Told what is worked on.

    Raises
    ------
    ValueError
        The folder holds a demonstration of another scale or seed; names what differs.
    """
    scale = scale or Scale()
    spec = PhantomSpec(
        shape=scale.shape,
        spacing=(2.5, 2.5, 3.0),
        rater_bias=1.5,
        disagreement=2.5,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, scale, seed)
    coarse, members = _train(out, replace(spec, raters=1), scale, seed, told)

    told("loading the networks")
    pipeline = Pipeline(
        members,
        coarse,
        device="cpu",
        roi=RoiRule(margins=MARGINS),
        checkpoint="checkpoint_final.pth",
    )
    # Cohorts differ in their cases' numbers: no patient is in two of them.
    first = 100_000
    calibration = _predicted(out, "calibration", spec, first, scale.calibration, pipeline, told)
    test = _predicted(out, "test", spec, 2 * first, scale.test, pipeline, told)

    told("fitting")
    calibrators = _fit(out, calibration, pipeline)
    results = {}
    for name, target in METHODS.items():
        told(f"evaluating: {name}")
        results[name] = _evaluate(out / "results" / target, test, calibrators[name], name)
    told("writing the report")
    results[MHR] = replace(results[MHR], examples=_examples(test, calibrators[MHR]))
    band = calibrators[MHR].bootstrap_band(resamples=200, seed=seed)
    return build_report(
        results,
        out / "report",
        reference=MHR,
        resamples=resamples,
        seed=seed,
        title="TwinTrack from end to end on phantom CTs",
        introduction=_introduction(scale, seed),
        maps=[
            MapPlot.of(name, calibrator, band if name == MHR else None)
            for name, calibrator in calibrators.items()
            if METHODS[name] in ("single", "mhr")
        ],
    )


def _claim(out: Path, scale: Scale, seed: int) -> None:
    """Write to a folder what is done in it, or refuse it: what is finished there would be kept."""
    wanted = json.loads(json.dumps({"seed": seed, **asdict(scale)}))
    stamp = out / "scale.json"
    there = read_record(stamp, dict) if stamp.is_file() else {}
    if not there and not (out / PREPARED).is_file():
        write_text(stamp, json.dumps(wanted, indent=1) + "\n")
        return
    differing = [
        f"{name} {there.get(name, 'not recorded')} (now {value})"
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    if differing:
        raise InputError(
            f"holds a demonstration of another scale or seed: {', '.join(differing)}; "
            "delete it or choose another folder with -o",
            file=out,
        )


def _train(
    out: Path, spec: PhantomSpec, scale: Scale, seed: int, told: Callable[[str], None]
) -> tuple[Path, list[Path]]:
    raw = out / "nnUNet_raw"
    prepared = out / PREPARED
    if not prepared.is_file():
        told(f"generating {scale.training} CTs to train on")
        write_panorama(out / "panorama", spec, scale.training)
        told("preparing nnU-Net's data sets")
        source = out / "panorama"
        job = PanoramaJob(raw, COARSE, FINE, margins=MARGINS)
        prepare_panorama(source / "images", [source / "labels"], job)
        prepared.touch()
    training = Training(
        raw,
        out / "nnUNet_preprocessed",
        out / "nnUNet_results",
        device="cpu",
        processes=2,
        small=scale.coarse,
    )
    coarse, _ = train_ensemble(training, [], None, COARSE, told)
    assert coarse is not None  # noqa: S101 - its data set was named
    seeds = range(seed + 1, seed + 1 + scale.members)
    _, members = train_ensemble(replace(training, small=scale.fine), seeds, FINE, None, told)
    return coarse, members


def _predicted(
    out: Path,
    name: str,
    spec: PhantomSpec,
    first: int,
    count: int,
    pipeline: Pipeline,
    told: Callable[[str], None],
) -> list[Case]:
    """Generate a cohort with several raters, predict it, and return it with its scores."""
    home = out / name
    generated = home / "generated.done"
    if not generated.is_file():
        told(f"generating {count} CTs with {spec.raters} raters: {name}")
        write_cohort(home, spec, range(first, first + count))
        generated.touch()
    images = find_images(home / "cases", pipeline.channels)
    scores = home / "scores"

    told(f"predicting {count} CTs: {name}")
    outcomes = predict_cohort(images, PredictJob(pipeline, scores, rois=True), keep=True)
    for outcome in outcomes:
        if outcome.failure is not None:
            raise InputError(outcome.failure.message, case=outcome.case)
    for case, notes in notes_of(outcomes).items():
        told(f"{case}: {'; '.join(notes)}")
    prepare_curvas(home / "cases", home / "scores.csv", scores, rois=True)
    return read_manifest(home / "scores.csv")


def _fit(out: Path, cases: Sequence[Case], pipeline: Pipeline) -> dict[str, Calibrator]:
    """Fit every target to the same tallies."""
    job = TallyJob("box")
    store = out / "calibrators" / "tallies"
    store.parent.mkdir(exist_ok=True)
    tally_cohort(cases, job, store, Settings(workers=1))
    calibrators = {}
    for name, target in METHODS.items():
        calibrator = Calibrator(target, ensemble=pipeline.ensemble)
        _, tallies = read_tallies(store)
        fit_tallies(calibrator, tallies, job.region, keep=True)
        calibrator.save(out / "calibrators" / f"{target}.json")
        calibrators[name] = calibrator
    return calibrators


def _evaluate(
    folder: Path, cases: Sequence[Case], calibrator: Calibrator, name: str
) -> MethodResults:
    job = EvaluateJob(protocol="official", calibrator=calibrator, region="box")
    found = evaluate_cohort(cases, job, folder / "store", settings=Settings(workers=1))
    found.write(folder, name)
    return read_results(folder)[1]


def _examples(cases: Sequence[Case], calibrator: Calibrator, count: int = 3) -> list[Example]:
    """Show the cases whose raters disagree most, relative to what they mark."""
    found = []
    for case in cases:
        loaded = load_case(case, "all")
        raters = np.stack(loaded.masks)
        votes = raters.sum(axis=0)
        marked = int(np.count_nonzero(votes))
        if not marked:
            continue
        agreed = float(np.count_nonzero(votes == len(raters)) / marked)
        found.append((agreed, case))
    examples = []
    for _, case in sorted(found, key=lambda entry: (entry[0], entry[1].name))[:count]:
        loaded = load_case(case, "all")
        image = read_volume(case.annotations[0].with_name("image.nii.gz"))
        score = np.asarray(loaded.score.array, np.float32)
        assert case.roi is not None  # noqa: S101 - they were predicted with their regions
        calibrated = score.copy()
        calibrate_score(calibrator, calibrated, read_volume(case.roi).array)
        examples.append(
            cut_example(
                case.name, score, loaded.masks, calibrated, image.array, loaded.score.affine
            )
        )
    return examples


def _introduction(scale: Scale, seed: int) -> str:
    steps = scale.fine.epochs * scale.fine.iterations
    return (
        f"Synthetic CTs of 2.5 × 2.5 × 3 mm, seed {seed}: {scale.training} with one rater to train "
        f"on, {scale.calibration} with five raters to fit, {scale.test} to measure. A coarse "
        f"nnU-Net finds the pancreas at 4.5 × 4.5 × 9 mm; {scale.members} small nnU-Nets (features "
        f"{scale.fine.features}, {steps} steps of {scale.fine.batch} patches, other seeds) are "
        "averaged inside the region. Planning, preprocessing, training, prediction: nnU-Net "
        "v2's own code, with AdamW, without augmentation and with a heavier tumour in the loss.\n\n"
        "The networks are trained for minutes, and raters and anatomy follow from formulae: the "
        "figures show that the pipeline works and how the targets compare here; they say nothing "
        "about patients."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration from the command line."""
    parser = argparse.ArgumentParser(prog="twintrack.demos.paper", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-full-output"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tiny", action="store_true", help="two cases a cohort and a few steps: does it run?"
    )
    given = parser.parse_args(arguments)
    start = time.monotonic()

    def told(message: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {message}", file=sys.stderr, flush=True)

    scale = Scale()
    if given.tiny:
        coarse = replace(scale.coarse, epochs=1, iterations=2)
        fine = replace(scale.fine, epochs=1, iterations=2)
        scale = Scale(training=2, calibration=2, test=2, coarse=coarse, fine=fine)
    try:
        run_demo_full(given.output, scale, seed=given.seed, told=told)
    except (ValueError, OSError) as error:
        print(f"twintrack.demos.paper: {error}", file=sys.stderr)
        return 2
    told(f"done: look at {given.output / 'report' / 'report.html'}")
    table = (given.output / "report" / "table1.md").read_text(encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
