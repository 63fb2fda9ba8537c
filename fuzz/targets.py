"""Everything in TwinTrack that reads bytes which it did not write, and what must become of them.

A target writes the bytes under the name that its reader expects and reads them. The reader returns,
or it raises a ValueError or OSError whose message names the file; anything else is a finding.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from volume_files import (
    Finding,
    annotation,
    example,
    mha,
    mhd,
    nifti,
    nifti_gz,
    npy,
    npz,
    nrrd,
    seg_nrrd,
    volume,
)

from twintrack import Calibrator, CaseTally, ScoreTally, load_calibrator
from twintrack.calibration.fitted_on import FittedCase
from twintrack.cohort import read_manifest
from twintrack.report.method_results import read_results
from twintrack.runs.fit import KIND, read_tallies
from twintrack.runs.records import Entry
from twintrack.runs.store import Store, open_stores
from twintrack.runs.tally_pack import NAME, DenseSums, TallyPack, write_pack
from twintrack.volumes import write_volume


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes
    ----------
    name
        What it is called on the command line.
    file
        Where, in a folder of its own, the reader looks for the bytes.
    read
        Reads the file of that path.
    seeds
        Makes good files, in a folder that is empty at first; what else it leaves there stays.
    form
        How the bytes are put together, for mutations that get past checksums.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]
    form: Literal["plain", "gzip", "zip", "text"]

    def check(self, folder: Path, data: bytes) -> str:
        """Read `data` and return "" or the message of the refusal; raises `Finding`."""
        path = folder / self.file
        path.write_bytes(data)
        try:
            self.read(path)
        except (ValueError, OSError) as error:
            if path.name not in str(error):
                raise Finding(f"its message does not name the file: {error!r}") from error
            return str(error)
        except BaseException as error:
            if isinstance(error, Finding):
                raise
            raise Finding(f"{type(error).__name__} is not documented: {error}") from error
        return ""


# --- cohorts, calibrators, stores, results --------------------------------------------------------


def manifest(folder: Path) -> list[bytes]:
    for name in ("s.nii", "t.nii", "a.nii", "b.nii", "v.nii"):
        (folder / name).touch()
    return [
        b"case,score,rater_1,rater_2\nA,s.nii,a.nii,b.nii\nB,t.nii,b.nii,a.nii\n",
        '\ufeffcase,score,rater_1,vessels,roi\r\n"A \u00fc",s.nii,a.nii,v.nii,\r\n'.encode(),
    ]


def calibrator(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    scores = [rng.random((6, 5, 4), np.float32) for _ in range(6)]
    raters = [[rng.random(s.shape) < s for _ in range(2)] for s in scores]
    found = []
    for parameters in ({"bins": 5}, {"bins": "auto"}, {"target": "single"}, {"target": "none"}):
        path = folder / "seed.json"
        Calibrator(**parameters).fit(scores, raters).save(path)
        found.append(path.read_bytes())
        path.unlink()
    sure = Calibrator(bins=5).fit(scores, raters)
    sure.keep_band(sure.band(np.linspace(0, 1, 9))).save(path)
    found.append(path.read_bytes())
    path.unlink()
    named = Calibrator(bins=5).partial_fit(scores[0], raters[0], case="A")
    named.record_cases([FittedCase.named("B", "0123456789abcdef-480")]).save(path)
    found.append(path.read_bytes())
    path.unlink()
    return found


def apply_calibrator(path: Path) -> None:
    loaded = load_calibrator(path)
    mapped = loaded.transform(np.linspace(0, 1, 33, dtype=np.float32))
    if not (np.all(np.diff(mapped) >= 0) and mapped[0] >= 0 and mapped[-1] <= 1):
        raise Finding("a calibrator that was read does not map [0, 1] into itself")
    if loaded.band_ is not None and loaded.band_.volumes is not None:
        ends = loaded.volume_interval([0, 1e6])
        if not np.all((ends.low >= 0) & (ends.low <= ends.high)):
            raise Finding("a calibrator that was read has an interval of no volumes")
    loaded.save(path.with_name("again.json"))


def score_tally(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(1)
    score = rng.random(300, np.float32).astype(np.float16)
    marks = [rng.random(300) < score for _ in range(3)]
    tally = ScoreTally(3).update(score, marks)
    of_sets = ScoreTally(3).update(score, marks).update(score, [marks[0], None, marks[2]])
    return saved_tallies(folder, [tally, ScoreTally(1), of_sets])


def case_tally(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(2)
    score = rng.random(300, np.float32)
    tally = CaseTally(2, 4).update(score, [rng.random(300) < score for _ in range(2)])
    return saved_tallies(folder, [tally, CaseTally(1)])


def saved_tallies(folder: Path, tallies: list[ScoreTally] | list[CaseTally]) -> list[bytes]:
    path = folder / "seed.npz"
    found = []
    for tally in tallies:
        tally.save(path)
        found.append(path.read_bytes())
    path.unlink()
    return found


def use_score_tally(path: Path) -> None:
    tally = ScoreTally.load(path)
    if tally.voxels:
        try:
            tally.equal_mass_bins(7)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


OPTIONS = {"region": "roi", "tumour": [1]}


def store(folder: Path) -> Store:
    """A store of two cases, one finished and one failed."""
    (folder / "s.nii").write_bytes(b"score")
    made = Store(folder, KIND, OPTIONS)
    with made.writing(["A", "B"], [FittedCase.named("C"), FittedCase.named("D", "ab-12")]):
        from twintrack.runs.records import Failure
        from twintrack.runs.stamps import read_stamp

        tally = ScoreTally(1).update(np.float32([0.5, 1]), np.array([[0, 1]]))
        place = made.tally_path("A")
        tally.save(made.staged(place.name))
        entry = Entry(
            "A",
            {"score": read_stamp(folder / "s.nii")},
            2,
            {"voxels_in_region": 2},
            {"tally": made.stamp_staged(place.name, place)},
        )
        made.save(entry, {made.staged(place.name): place})
        made.save_failure(Failure("B", "read", "score", "b.nii: truncated"))
    return made


def pack(folder: Path) -> list[bytes]:
    made = store(folder)
    tallies = (
        ScoreTally(2).update(np.float32(scores), np.zeros((2, len(scores)), np.uint8))
        for scores in ([0.1, 0.9], np.linspace(0, 1e-4, 40), [])
    )
    path = made.folder / "seed"
    write_pack(path, ((f"case {k}", (1, 2, 3, k), tally) for k, tally in enumerate(tallies)))
    data = path.read_bytes()
    path.unlink()
    return [data]


def use_pack(path: Path) -> None:
    opened = TallyPack(path)
    for k in range(3):
        if opened.has(f"case {k}", (1, 2, 3, k)):
            packed = opened.read(f"case {k}")
            sums = DenseSums(packed.raters)
            sums.add(packed)
            sums.tally()


def store_file(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(store(folder).folder / name).read_bytes()]


def use_store(path: Path) -> None:
    """All that is asked of a store, whichever of its files is damaged."""
    root = path.parents[2] if path.parent.name in ("cases", "failures") else path.parents[1]
    try:
        for found in open_stores(root):
            entry = found.find("A")
            if entry is not None:
                entry.made_from({"score": root / "s.nii"})
                _ = entry.nbytes
            found.failures()
            found.complete()
            found.fitted_on()
        list(read_tallies(root)[1])
    except ValueError as error:
        # What is missing or unfit is told of the store, not always of the one file.
        if str(root) not in str(error):
            raise
        raise ValueError(f"{path.name}: {error}") from error


def results(folder: Path) -> list[bytes]:
    return [b'case,tdsc,vi_CELIAC,notes\na,0.5,,nan\n"b, c",1,2.5,"of 0"\n']


def summary(folder: Path) -> list[bytes]:
    (folder / "cases.csv").write_text("case,tdsc\na,0.5\n")
    content = {
        "method": "MHR",
        "protocol": "corrected",
        "means": {"tdsc": {"mean": 0.75, "cases": 1}},
        "calibrator": {"target": "mhr"},
        "reliability": {"bin_count": [3, 0], "mean_score": [0.2, None], "mean_mhr": [0, None]},
        "fitted_on": {"same_case": ["a"], "other_score": []},
    }
    return [json.dumps(content).encode()]


def use_results(path: Path) -> None:
    read_results(path.parent)


# --- nnU-Net --------------------------------------------------------------------------------------


def network(name: str) -> Callable[[Path], list[bytes]]:
    files = {
        "dataset.json": {
            "labels": {"background": 0, "tumour": [1, 2], "ignore": 3},
            "channel_names": {"0": "CT"},
            "file_ending": ".nii.gz",
        },
        "plans.json": {"image_reader_writer": "SimpleITKIO", "configurations": {"3d": {}}},
    }

    def make(folder: Path) -> list[bytes]:
        (folder / "fold_0").mkdir()
        (folder / "fold_0" / "checkpoint_final.pth").touch()
        for other, content in files.items():
            (folder / other).write_text(json.dumps(content))
        return [(folder / name).read_bytes()]

    return make


def use_network(path: Path) -> None:
    from twintrack.nnunet.trained_folder import inspect_folder

    inspect_folder(path.parent)


def described_score(name: str) -> Callable[[Path], list[bytes]]:
    """What describes nnU-Net's class probabilities, which lie beside it with their segmentation."""
    files = {
        "dataset.json": {
            "labels": {"background": 0, "organ": [1, 2], "tumour": 2},
            "regions_class_order": [1, 2],
            "overwrite_image_reader_writer": "NibabelIOWithReorient",
            "file_ending": ".nii.gz",
        },
        "plans.json": {"image_reader_writer": "NibabelIOWithReorient"},
    }

    def make(folder: Path) -> list[bytes]:
        probabilities = np.stack([example().T, example().T / 2])
        np.savez(folder / "v.npz", probabilities=probabilities)
        labels = np.where(probabilities[1] > 0.5, 2, probabilities[0] > 0.5).T.astype(np.uint8)
        write_volume(folder / "v.nii.gz", labels, np.diag([-0.7, 0.8, 2.5, 1.0]))
        if name == "dataset.json":
            return [json.dumps(files[name]).encode()]
        (folder / "dataset.json").write_text(json.dumps(files["dataset.json"]))
        return [json.dumps(files[name]).encode()]

    return make


def use_described_score(path: Path) -> None:
    volume(path.with_name("v.npz"))


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of the same bytes for the same members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


_KEY = Store(Path(), KIND, OPTIONS).folder.name

TARGETS = {
    target.name: target
    for target in (
        Target("nifti", "v.nii", volume, nifti, "plain"),
        Target("nifti-gz", "v.nii.gz", volume, nifti_gz, "gzip"),
        Target("npy", "v.npy", volume, npy, "plain"),
        Target("npz", "v.npz", volume, npz, "zip"),
        Target("nrrd", "v.nrrd", volume, nrrd, "plain"),
        Target("seg-nrrd", "v.seg.nrrd", annotation, seg_nrrd, "plain"),
        Target("manifest", "manifest.csv", read_manifest, manifest, "text"),
        Target("calibrator", "c.json", apply_calibrator, calibrator, "text"),
        Target("score-tally", "t.npz", use_score_tally, score_tally, "zip"),
        Target("case-tally", "t.npz", CaseTally.load, case_tally, "zip"),
        Target(
            "store-record", f"{_KEY}/cases/A.json", use_store, store_file("cases/A.json"), "text"
        ),
        Target(
            "store-failure",
            f"{_KEY}/failures/B.json",
            use_store,
            store_file("failures/B.json"),
            "text",
        ),
        Target(
            "store-options", f"{_KEY}/options.json", use_store, store_file("options.json"), "text"
        ),
        Target("store-cohort", f"{_KEY}/cohort.json", use_store, store_file("cohort.json"), "text"),
        Target(
            "store-fitted-on",
            f"{_KEY}/fitted_on.json",
            use_store,
            store_file("fitted_on.json"),
            "text",
        ),
        Target("store-tally", f"{_KEY}/cases/A.npz", use_store, store_file("cases/A.npz"), "zip"),
        Target("pack", f"{_KEY}/{NAME}", use_pack, pack, "plain"),
        Target("results", "cases.csv", use_results, results, "text"),
        Target("summary", "summary.json", use_results, summary, "text"),
        Target("nnunet-dataset", "dataset.json", use_network, network("dataset.json"), "text"),
        Target("nnunet-plans", "plans.json", use_network, network("plans.json"), "text"),
        Target(
            "score-dataset",
            "dataset.json",
            use_described_score,
            described_score("dataset.json"),
            "text",
        ),
        Target(
            "score-plans", "plans.json", use_described_score, described_score("plans.json"), "text"
        ),
    )
}
if importlib.util.find_spec("SimpleITK"):
    TARGETS["mha"] = Target("mha", "v.mha", volume, mha, "plain")
    TARGETS["mhd"] = Target("mhd", "v.mhd", volume, mhd, "plain")

__all__ = ["TARGETS", "Finding", "Target", "zipped"]
