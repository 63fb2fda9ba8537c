"""Which labels of annotation files are the tumour, in fit and evaluate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_cohort
from twintrack.volumes import write_volume

SHAPE = (9, 8, 7)
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


def organ_and_tumour(mask):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:8, 1:7, 1:6] = 1
    labels[mask > 0] = 2
    return labels


LEFT = np.indices(SHAPE)[0] > 4
STORED = {
    "2": organ_and_tumour,
    "2,3": lambda mask: organ_and_tumour(mask) + ((mask > 0) & LEFT).astype(np.uint8),
    "255": lambda mask: mask * np.uint8(255),
    "-1": lambda mask: -mask.astype(np.int16),
    "1": lambda mask: mask.astype(np.float64),
}


@pytest.fixture
def case(tmp_path):
    rng = np.random.default_rng(0)
    write_volume(tmp_path / "s.nii.gz", rng.random(SHAPE, np.float32), AFFINE)
    raters = []
    for k in (1, 2):
        mask = np.zeros(SHAPE, np.uint8)
        mask[3:7, 2:6, 2:5] = rng.random((4, 4, 3)) < 0.5
        raters.append(tmp_path / f"r{k}.nii.gz")
        write_volume(raters[-1], mask, AFFINE)
    return Case("A", tmp_path / "s.nii.gz", tuple(raters))


def stored(case, folder, change):
    from twintrack.volumes import read_volume

    raters = []
    for path in case.raters:
        array = change(read_volume(path).array)
        name = folder / f"labels_{path.name}"
        dtype = "float64" if array.dtype.kind == "f" else None
        write_volume(name, array, AFFINE, dtype)
        raters.append(name)
    return replace(case, raters=tuple(raters))


@pytest.mark.parametrize("label", STORED)
def test_chosen_labels_are_the_tumour(case, tmp_path, label):
    labels = stored(case, tmp_path, STORED[label])
    chosen = tuple(label.split(","))
    for job in (TallyJob("box"), EvaluateJob(), EvaluateJob(region="all")):
        found = replace(job, label=chosen)
        product, expected = found.compute(found.read(labels)), job.compute(job.read(case))
        assert product.tally == expected.tally
        assert product.result == expected.result
        assert found.options == {**job.options, "label": list(chosen)}


def test_other_labels_are_refused_and_named(case, tmp_path):
    labels = stored(case, tmp_path, organ_and_tumour)
    for job in (TallyJob("all"), EvaluateJob()):
        with pytest.raises(
            ValueError, match=r"is 2; labels must be 0 or 1; .* holds 0, 1, 2: .*--label"
        ):
            job.compute(job.read(labels))
        with pytest.raises(
            ValueError, match=r"labels_r1\.nii\.gz: label 'tumour' is no whole number"
        ):
            replace(job, label=("tumour",)).read(labels)


def test_a_label_that_no_file_has_is_told(case, tmp_path, capfd):
    from twintrack.cli import main
    from twintrack.cohort import write_manifest

    labels = stored(case, tmp_path, organ_and_tumour)
    with pytest.raises(
        ValueError, match=r"any of 1 cases; --label is 7, .*labels_r1\.nii\.gz holds 0, 1, 2"
    ):
        fit_cohort([labels], Calibrator(), TallyJob("all", label=("7",)), tmp_path / "store")
    fit_cohort([labels], Calibrator("none"), TallyJob("all", label=("7",)), tmp_path / "store")
    write_manifest(tmp_path / "m.csv", [labels])
    given = ["-i", str(tmp_path / "m.csv"), "-o", str(tmp_path / "found"), "--label", "7"]
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", *given])
    assert "holds 0, 1, 2: name the tumour's label" in " ".join(capfd.readouterr().err.split())


def test_a_store_of_other_labels_is_not_taken(case, tmp_path):
    labels = stored(case, tmp_path, organ_and_tumour)
    fitted = {}
    for label in (("2",), ("1",), ("2",)):
        calibrator = Calibrator(bins=10)
        fit_cohort([labels], calibrator, TallyJob("all", label=label), tmp_path / "store")
        fitted[label] = calibrator
    plain = Calibrator(bins=10)
    fit_cohort([case], plain, TallyJob("all"), tmp_path / "plain")
    assert fitted["2",].map_ == plain.map_
    assert fitted["1",].map_ != plain.map_
    found = evaluate_cohort([labels], EvaluateJob(label=("2",)), tmp_path / "evaluated")
    assert found.options["label"] == ["2"]


def test_segments_of_slicer_are_chosen_by_name_or_number(case, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    from twintrack.volumes import read_volume

    raters = []
    for path in case.raters:
        mask = read_volume(path).array.T
        organ = np.zeros_like(mask)
        organ[1:6, 1:7, 1:8] = 1
        image = sitk.GetImageFromArray(np.stack([organ, mask], -1), isVector=True)
        image.SetSpacing((0.8, 0.8, 2.5))
        for number, name in enumerate(("pancreas", "tumour")):
            for key, value in (
                ("ID", f"S{number}"),
                ("Name", name),
                ("Layer", number),
                ("LabelValue", 1),
            ):
                image.SetMetaData(f"Segment{number}_{key}", str(value))
        raters.append(tmp_path / f"{path.name.partition('.')[0]}.seg.nrrd")
        sitk.WriteImage(image, str(raters[-1]), useCompression=True)
    segmented = replace(case, raters=tuple(raters))
    job = TallyJob("all")
    expected = job.compute(job.read(case)).tally
    chosen = replace(job, label=("tumour",))
    assert chosen.compute(chosen.read(segmented)).tally == expected
    with pytest.raises(
        ValueError, match=r"label '1' is several segments of it; it has pancreas \(1\), tumour"
    ):
        replace(job, label=("1",)).read(segmented)
    with pytest.raises(ValueError, match=r"label 'cyst' is no segment of it"):
        replace(job, label=("cyst",)).read(segmented)
