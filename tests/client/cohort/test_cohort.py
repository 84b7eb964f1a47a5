"""medimageparse cohort: what is asked, what is not asked again, what is told where."""

import csv
import itertools
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet
import pytest
from medimageparse_client import Client
from medimageparse_client.cli import main
from medimageparse_client.cohort import records, servers, tables
from medimageparse_client.cohort.shards import Shard

PROMPTS = ["--prompt", "liver", "--prompt", "spleen"]


@pytest.fixture(autouse=True)
def here(tmp_path, volume_file, monkeypatch):
    """A folder with scans/{0,1,2}.nii.gz, which differ, and scans/more/0.nii.gz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(servers, "pauses", lambda: itertools.repeat(1e-3))
    for name in ("JOB_COMPLETION_INDEX", "JOB_COMPLETION_COUNT"):
        monkeypatch.delenv(name, raising=False)
    Path("scans/more").mkdir(parents=True)
    image = nib.load(volume_file)
    for number, name in enumerate(("0", "1", "2", "more/0")):
        voxels = np.asanyarray(image.dataobj).copy()
        voxels[0, 0, 0] = number % 3
        nib.save(nib.Nifti1Image(voxels, image.affine), f"scans/{name}.nii.gz")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def manifest(*lines, name="scans.csv"):
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def asked(triton):
    n = len(triton.requests)
    triton.requests.clear()
    return n


def test_each_case_has_a_result_and_a_report_beside_it_and_rows_in_the_tables(triton, capsys):
    assert main(["cohort", "scans", "--recursive", *PROMPTS, "-o", "out"]) == 0
    assert "4 of 4 volumes segmented" in capsys.readouterr().err
    names = {str(path.relative_to("out/results")) for path in Path("out/results").rglob("*") if path.is_file()}
    assert names == {f"{name}{ending}" for name in ("0", "1", "2", "more/0") for ending in (".nii.gz", ".json")}
    summary = rows("out/summary.csv")
    assert [(row["id"], row["structure"]) for row in summary] == [
        (name, prompt) for name in ("0", "1", "2", "more/0") for prompt in ("liver", "spleen")
    ]
    with Client() as client:
        alone = client.segment("scans/1.nii.gz", ["liver", "spleen"])
    assert [float(row["volume_ml"]) for row in summary[2:4]] == [row["volume_ml"] for row in alone.statistics()]
    assert Path("out/results/1.nii.gz").read_bytes()[10:] == alone.nifti[10:]
    assert rows("out/failed.csv") == []
    told = json.loads(Path("out/results/1.json").read_text())
    assert told["prompts"] == alone.report["prompts"]
    assert told["cohort"]["input_sha256"] == rows("out/cases.csv")[1]["input_sha256"]
    assert len({row["input_sha256"] for row in rows("out/cases.csv")}) == 3  # two are equal


def test_parquet_has_the_rows_of_csv_in_types(triton):
    triton.told = {"spleen": {"present": False, "why_absent": "low_score", "volume_ml": None}}
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 0
    table = pyarrow.parquet.read_table("out/summary.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        name: {"float64": "double"}.get(kind, kind) for name, kind in tables.SUMMARY.items()
    }
    for typed, row in zip(table.to_pylist(), rows("out/summary.csv"), strict=True):
        assert (typed["id"], typed["present"]) == (row["id"], row["present"] == "true")
        assert typed["volume_ml"] == (float(row["volume_ml"]) if row["volume_ml"] else None)
    absent = [row for row in table.to_pylist() if not row["present"]]
    assert {(row["prompt"], row["why_absent"]) for row in absent} == {("spleen", "low_score")}


@pytest.mark.usefixtures("triton")
def test_without_pyarrow_there_is_csv_and_a_word(monkeypatch, capsys):
    monkeypatch.setattr(tables, "has_parquet", lambda: False)
    monkeypatch.setattr("medimageparse_client.cli.cohort.has_parquet", lambda: False)
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 0
    assert "medimageparse-client[parquet]" in capsys.readouterr().err
    assert not list(Path("out").glob("*.parquet"))
    assert len(rows("out/summary.csv")) == 6


def test_only_what_changed_is_asked_again(triton):
    command = ["cohort", "scans", *PROMPTS, "-o", "out"]
    assert main(command) == 0
    assert asked(triton) == 3
    assert main(command) == 0
    assert asked(triton) == 0
    os.utime("scans/0.nii.gz", (1, 1))  # another time, the same content
    assert main(command) == 0
    assert asked(triton) == 0
    Path("scans/0.nii.gz").write_bytes(Path("scans/1.nii.gz").read_bytes())
    assert main(command) == 0
    assert asked(triton) == 1
    assert main(["cohort", "scans", "--prompt", "liver", "-o", "out"]) == 0
    assert asked(triton) == 3
    assert main(["cohort", "scans", "--prompt", "liver", "-o", "out", "--intensity", "none"]) == 0
    assert asked(triton) == 3
    Path("out/results/2.json").unlink()  # killed before it came
    Path("out/results/1.nii.gz").write_bytes(b"cut off")
    assert main(["cohort", "scans", "--prompt", "liver", "-o", "out", "--intensity", "none"]) == 0
    assert asked(triton) == 2


def test_checksum_finds_what_size_and_time_hide(triton):
    command = ["cohort", "scans", *PROMPTS, "-o", "out"]
    assert main(command) == 0
    asked(triton)
    for path in (Path("scans/0.nii.gz"), Path("out/results/1.nii.gz")):
        state, data = path.stat(), bytearray(path.read_bytes())
        data[4] ^= 1  # the time that gzip writes
        path.write_bytes(data)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert main(command) == 0
    assert asked(triton) == 0
    assert main([*command, "--checksum"]) == 0
    assert asked(triton) == 2


def test_a_report_of_before_never_vouches_for_a_result_of_now(triton, monkeypatch):
    """Killed between result and report, then asked as before: the result is that of the other prompts."""
    assert main(["cohort", "scans", "--prompt", "liver", "-o", "out"]) == 0
    write, n_written = records.write_file, []

    def killed(path, data):
        write(path, data)
        n_written.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_file", killed)
        assert main(["cohort", "scans", "--prompt", "spleen", "-o", "out", "--in-flight", "1"]) == 130
    assert n_written
    asked(triton)
    assert main(["cohort", "scans", "--prompt", "liver", "-o", "out"]) == 0
    assert asked(triton) == len(n_written)


def test_a_manifest_names_volumes_and_what_rows_ask(triton, capsys):
    name = manifest(
        "id,file,prompts,preset,intensity,time_point,age",
        "p1/ct,scans/0.nii.gz,liver & left kidney,,,,50",
        ",scans/1.nii.gz,,demo-ct,none,,",
        "b,scans/2.nii.gz,,,,0,",
    )
    assert main(["cohort", name, "--prompt", "heart", "-o", "out"]) == 0
    sent = sorted((r.get("text"), r.get("preset"), r["intensity"]) for r in triton.requests if "text" in r)
    assert sent == [("heart", None, "auto"), ("liver & left kidney", None, "auto")]
    [preset] = [r for r in triton.requests if "preset" in r]
    assert (preset["preset"], preset["intensity"]) == ("demo-ct", "none")
    assert [row["id"] for row in rows("out/cases.csv")] == ["p1/ct", "1", "b"]
    assert Path("out/results/p1/ct.nii.gz").exists()
    assert "columns of the manifest that are not read: age" in capsys.readouterr().err


@pytest.mark.usefixtures("triton")
def test_a_name_of_the_catalogue_stands_in_the_summary():
    assert main(["cohort", "scans", "--preset", "demo-ct", "-o", "out"]) == 0
    named = {(row["structure"], row["prompt"]) for row in rows("out/summary.csv")}
    assert ("liver", "Visualization of the liver in abdominal CT imaging") in named


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path", "scans/0.nii.gz"], "no column file"),
        (["file,file", "a,b"], "one name"),
        (["file"], "no case"),
        (["file,id", ",a"], "line 2 of the manifest: its file is empty"),
        (["file", "scans/0.nii.gz", "scans/more/0.nii.gz"], "line 3 of the manifest has the id of line 2"),
        (["file,id", "a.nii,x", "b.nii,X"], "line 3 of the manifest has the id of line 2"),
        (["file,id", "a.nii,../x"], "line 2 of the manifest: the id cannot name a file"),
        (["file,id", "a.nii,/x"], "cannot name a file"),
        (["file,id", f"a.nii,{'x' * 201}"], "more than 200 bytes"),
        (["file,prompts,preset", "a.nii,liver,demo-ct"], "prompts and a preset"),
        (["file,preset", "a.nii,secret"], "line 2 of the manifest: the preset is not known"),
        (["file,prompts", "a.nii,liver &"], "line 2 of the manifest: a prompt is empty"),
        (["file,intensity", "a.nii,secret"], "its intensity is none of auto"),
        (["file,time_point", "a.nii,secret"], "its time_point is a whole number"),
        (["file", "a.nii,b,c"], "more cells than columns"),
        (["file", '"a.nii'], "no line of a table"),
        (["file", "dicomweb://host/studies/1/series/2"], "an address needs an id"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_line_and_not_its_words(lines, words, triton, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["cohort", manifest(*lines), "--prompt", "liver", "-o", "out"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in told
    assert "secret" not in told
    assert triton.requests == []


def test_failures_stand_in_a_table_and_not_in_the_log_and_are_asked_again_when_somebody_says_so(triton, capsys):
    Path("scans/broken.nii.gz").write_bytes(b"no volume")
    name = manifest(
        "file,prompts",
        "scans/0.nii.gz,liver",
        "scans/1.nii.gz,refused",
        "scans/2.nii.gz,slow",
        "scans/broken.nii.gz,liver",
        "scans/secret.nii.gz,liver",
        "scans/more/0b.nii.gz,crash",
    )
    Path("scans/more/0.nii.gz").rename("scans/more/0b.nii.gz")
    command = ["cohort", name, "-o", "out"]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "1 of 6 volumes segmented; failed: 1 no answer in time, 1 refused, 1 the server failed, 2 unreadable" in told
    assert not any(word in told for word in ("secret", "broken", "scans/", "0b", "the prompt is bad"))
    failed = {row["id"]: row for row in rows("out/failed.csv")}
    assert failed["1"]["reason"] == "the prompt is bad; send another"
    assert failed["secret"]["reason"] == "No such file or directory"
    assert failed["secret"]["file"].endswith("scans/secret.nii.gz")
    asked(triton)
    assert main(command) == 1
    assert asked(triton) == 0
    del triton.failures["refused"]
    assert main([*command, "--retry-failed"]) == 1
    failed = {row["id"]: row["tries"] for row in rows("out/failed.csv")}
    assert failed == {"2": "2", "broken": "2", "secret": "2", "0b": "2"}
    Path("scans/secret.nii.gz").write_bytes(Path("scans/0.nii.gz").read_bytes())  # it has come
    assert main(command) == 1
    assert "secret" in {row["id"] for row in rows("out/cases.csv")}
    assert not Path("out/failures/secret.json").exists()


def test_a_result_of_another_volume_does_not_stay_beside_a_failure(triton):
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 0
    Path("scans/0.nii.gz").write_bytes(b"no volume any more")
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 1
    assert not list(Path("out/results").glob("0.*"))
    assert {row["id"] for row in rows("out/summary.csv")} == {"1", "2"}


@pytest.mark.usefixtures("triton")
def test_all_failing_in_one_way_has_that_code():
    assert main(["cohort", "scans", "--prompt", "refused", "-o", "out"]) == 6


def test_a_server_that_stays_away_ends_the_run_and_the_same_command_goes_on(triton, capsys):
    command = ["cohort", "scans", "-o", "out", "--prompt", "gone", "--retry-for", "0"]
    assert main(command) == 3
    assert "3 volumes are left, and the same command goes on with them" in capsys.readouterr().err
    assert rows("out/failed.csv") == []
    del triton.failures["gone"]
    assert main(command) == 0


def test_several_servers_share_the_work(triton, monkeypatch):
    urls, infer = set(), triton.infer
    monkeypatch.setattr(triton, "infer", lambda self, *a, **o: urls.add(self.url) or infer(self, *a, **o))
    command = ["cohort", "scans", *PROMPTS, "-o", "out", "--in-flight", "1", "--recursive"]
    assert main([*command, "--url", "one:1,two:2", "--url", "three:3"]) == 0
    assert urls <= {"one:1", "two:2", "three:3"}
    assert len(urls) > 1
    with pytest.raises(SystemExit):
        main([*command, "--url", "one:1,,nonsense"])


def test_shards_are_disjoint_and_complete_and_have_tables_of_their_own(triton, monkeypatch):
    command = ["cohort", "scans", *PROMPTS, "-o", "out", "--recursive"]
    assert main([*command, "--shard", "0/3"]) == 0
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert main([*command, "--shards", "3"]) == 0
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    monkeypatch.setenv("JOB_COMPLETION_COUNT", "3")
    assert main(command) == 0
    assert asked(triton) == 4
    ids = [row["id"] for k in range(3) for row in rows(f"out/cases-{k}-of-3.csv")]
    assert sorted(ids) == ["0", "1", "2", "more/0"]
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    assert main([*command, "--tables"]) == 0
    assert asked(triton) == 0
    assert len(rows("out/summary.csv")) == 8


def test_a_case_stays_in_its_shard_and_shards_are_of_like_size():
    shards = [Shard(index, 3) for index in range(3)]
    of = {name: [shard.index for shard in shards if name in shard] for name in map(str, range(3000))}
    assert all(len(found) == 1 for found in of.values())
    sizes = [sum(found == [k] for found in of.values()) for k in range(3)]
    assert min(sizes) > 900
    assert ("p1" in Shard(0, 2)) != ("p1" in Shard(1, 2))


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (["--shard", "3/3"], {}, "they are 0 to 2"),
        (["--shard", "1"], {}, "--shard is I/N"),
        (["--shard", "x/3"], {}, "whole number"),
        (["--shards", "3"], {}, "JOB_COMPLETION_INDEX"),
        ([], {"JOB_COMPLETION_INDEX": "0"}, "nothing says how many there are"),
        (["--shards", "3"], {"JOB_COMPLETION_INDEX": "3"}, "they are 0 to 2"),
    ],
)
def test_a_shard_that_is_not_one_is_refused(options, environment, words, triton, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["cohort", "scans", *PROMPTS, "-o", "out", *options])
    assert words in capsys.readouterr().err
    assert triton.requests == []


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha", "seg.nrrd"])
def test_results_are_of_the_kind_that_is_asked_for(ending):
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 0
    assert main(["cohort", "scans", *PROMPTS, "-o", "out", "--format", ending]) == 0
    found = {path.name for path in Path("out/results").iterdir() if path.suffix != ".json"}
    assert found == {f"{k}.{ending}" for k in range(3)}  # those of before are gone
    with Client() as client:
        alone = client.segment("scans/1.nii.gz", ["liver", "spleen"])
    assert Path(f"out/results/1.{ending}").read_bytes() == alone.to_bytes(f".{ending}")


@pytest.mark.parametrize(
    "options",
    [["--overlap"], ["--seg-type", "labelmap"], ["--format", "seg.dcm", "--resample-tilt"], ["--preset", "demo-ct"]],
)
def test_options_that_do_not_fit_are_refused(options, triton):
    with pytest.raises(SystemExit):
        main(["cohort", "scans", *PROMPTS, "-o", "out", *options])
    assert triton.requests == []


@pytest.mark.usefixtures("triton")
def test_a_dicom_object_of_what_is_no_series_fails_with_a_way_out():
    assert main(["cohort", "scans", *PROMPTS, "-o", "out", "--format", "seg.dcm"]) == 5
    assert all("write .nii.gz" in row["reason"] for row in rows("out/failed.csv"))


@pytest.mark.usefixtures("triton")
def test_what_a_killed_run_left_half_written_goes_once_nobody_can_be_writing_it():
    old, new = (Path(f"out/results/.medimageparse-{name}.tmp") for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 0
    assert (old.exists(), new.exists()) == (False, True)


def test_a_volume_that_changes_while_it_is_asked_gives_no_result(triton, monkeypatch):
    answer = triton.answer_volume

    def writing(self, *arguments):
        os.utime("scans/0.nii.gz", (1, 1))
        return answer(self, *arguments)

    monkeypatch.setattr(triton, "answer_volume", writing)
    assert main(["cohort", manifest("file", "scans/0.nii.gz"), "--prompt", "liver", "-o", "out"]) == 5
    assert "changed while" in rows("out/failed.csv")[0]["reason"]
    assert not list(Path("out").glob("results/*"))


@pytest.mark.usefixtures("triton")
def test_progress_without_a_terminal_is_lines_with_rate_and_time_left(capsys):
    assert main(["cohort", "scans", *PROMPTS, "-o", "out", "--progress-every", "1e-9", "--in-flight", "1"]) == 0
    assert "1 of 3 volumes, 0 failed, " in (told := capsys.readouterr().err)
    assert " a minute, " in told
    assert " left" in told
    assert main(["cohort", "scans", *PROMPTS, "-o", "out", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("triton")
def test_results_of_two_networks_are_told(monkeypatch, triton, capsys):
    report = triton.report
    monkeypatch.setattr(triton, "report", lambda *a: report(*a) | {"networks": {"checkpoint": "old"}})
    assert main(["cohort", manifest("file", "scans/0.nii.gz"), *PROMPTS, "-o", "out"]) == 0
    monkeypatch.setattr(triton, "report", lambda *a: report(*a) | {"networks": {"checkpoint": "new"}})
    assert main(["cohort", manifest("file", "scans/0.nii.gz", "scans/1.nii.gz"), *PROMPTS, "-o", "out"]) == 0
    assert "2 different networks; cases.csv says which" in capsys.readouterr().err
    assert len({row["networks"] for row in rows("out/cases.csv")}) == 2


@pytest.mark.usefixtures("triton")
def test_a_disk_that_is_full_ends_the_run(monkeypatch, capsys):
    def full(path, data):
        raise OSError(28, "No space left on device", "out")

    monkeypatch.setattr(records, "write_file", full)
    assert main(["cohort", "scans", *PROMPTS, "-o", "out"]) == 5
    assert "No space left on device" in capsys.readouterr().err
