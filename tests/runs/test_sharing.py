"""Tallies without names: the same fit, and nothing in the copy that names anybody."""

from __future__ import annotations

import csv
import dataclasses

import pytest
from folders import content

from twintrack import Calibrator
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.pooled_tallies import Place, pool_tallies
from twintrack.runs.sharing import share_tallies

PATIENTS = ["Mustermann", "Mustermann", None, "Musterfrau", None, None]


@pytest.fixture
def named(cases, tmp_path):
    """A cohort whose cases, patients and files have names."""
    named = []
    for case, patient in zip(cases, PATIENTS, strict=True):
        name = f"Muster {case.name}"
        score = tmp_path / "files" / f"{name}.nii.gz"
        score.parent.mkdir(exist_ok=True)
        score.write_bytes(case.score.read_bytes())
        named.append(dataclasses.replace(case, name=name, score=score, patient=patient))
    return named


@pytest.fixture
def store(named, tmp_path):
    fit_cohort(named, Calibrator(bins=5), TallyJob("roi"), tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def share(store, tmp_path):
    def share(name="sent", site="ULM", **more):
        asked = {key: more.pop(key) for key in ("only", "without") if key in more}
        made_with, tallies = read_tallies(store, **asked)
        target = tmp_path / name
        return target, share_tallies(tallies, made_with, target, tmp_path / "key.csv", site, **more)

    return share


def test_a_copy_gives_the_same_map_and_groups(share, store):
    target, shared = share()
    (made_with, ours), (as_sent, sent) = read_tallies(store), read_tallies(target)
    assert as_sent == made_with
    assert sent.cases == sorted(shared.names.values()) == [f"ULM-000{k}" for k in range(1, 7)]
    assert sent.total() == ours.total()
    assert {shared.names[case]: tally for case, tally in ours} == dict(sent)
    assert sorted(map(len, sent.groups().values())) == sorted(map(len, ours.groups().values()))
    assert set(sent.patients().values()) == {None, "ULM-P0001", "ULM-P0002"}
    maps = [fit_tallies(Calibrator(bins=20), tallies, "roi").map_ for tallies in (ours, sent)]
    assert maps[0] == maps[1]


@pytest.mark.parametrize("digests", [True, False])
def test_nothing_in_a_copy_names_anybody(share, store, digests):
    assert b"Muster" in b"".join(content(store).values())
    target, _ = share(digests=digests)
    for path, held in content(target).items():
        for name in (b"Muster", b"PHANTOM", b"nii.gz", b"annotation", b'mtime_ns":1'):
            assert name not in held, path
        assert "Muster" not in str(path)
    # With the digest of the score a case is found out that is in both.
    places = [Place(store), Place(target)]
    if digests:
        with pytest.raises(
            ValueError, match="it is of the very score of case 'Muster PHANTOM_0000"
        ):
            pool_tallies(places)
    else:
        assert len(pool_tallies(places).tallies) == 12
    fitted = [
        fit_tallies(Calibrator(bins=5), read_tallies(place.folder)[1], "roi").fitted_on_
        for place in places
    ]
    assert ({one.score for one in fitted[0]} == {one.score for one in fitted[1]}) == digests


def test_a_case_is_called_the_same_in_every_copy(share, tmp_path):
    _, few = share("few", without=["*2", "*3"])
    _, all_of_them = share("all")
    assert {case: all_of_them.names[case] for case in few.names} == few.names
    assert set(all_of_them.names.values()) == {f"ULM-000{k}" for k in range(1, 7)}
    with (tmp_path / "key.csv").open(newline="") as file:
        rows = {(row["kind"], row["name"]): row["shared"] for row in csv.DictReader(file)}
    assert rows["case", "Muster PHANTOM_00000"] == few.names["Muster PHANTOM_00000"]
    assert rows["patient", "Mustermann"] == few.patients["Mustermann"]
    assert len(rows) == 8


def test_what_would_give_names_away_or_mix_copies_is_refused(store, tmp_path):
    made_with, tallies = read_tallies(store)
    target = tmp_path / "sent"

    def share(key=tmp_path / "key.csv", site="ULM"):
        share_tallies(tallies, made_with, target, key, site)

    with pytest.raises(ValueError, match=r"key\.csv: it says who is who, and must not lie in what"):
        share(target / "key.csv")
    with pytest.raises(ValueError, match="'a/b' cannot be used as a file name"):
        share(site="a/b")
    (tmp_path / "cohort.csv").write_text("case,score\nA,a.nii\n")
    with pytest.raises(ValueError, match=r"cohort\.csv: is no key of shared tallies"):
        share(tmp_path / "cohort.csv")
    (tmp_path / "twice.csv").write_text("kind,name,shared\ncase,A,ULM-0001\ncase,B,ULM-0001\n")
    with pytest.raises(ValueError, match=r"twice\.csv: has a name twice"):
        share(tmp_path / "twice.csv")
    assert not target.exists()
    assert not (tmp_path / "key.csv").exists()
    share()
    with pytest.raises(ValueError, match="holds something already; name a new folder"):
        share()
