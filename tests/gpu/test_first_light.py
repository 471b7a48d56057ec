"""The whole program, with arrays of the host in the place of a device, and what it may not miss."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shlex
import sys
import types

import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cpu_fallback import NumpyBackend
from tests.gpu import asking, first_light, questions
from tests.gpu import expected_digests as expected
from tests.gpu.asking import NotAsked, Question, Report, ask_all
from tests.gpu.machines import StrictFilesBackend

WITHOUT_SYNTH = ["tables of synth_0.1", "synth_0.1", "synth_0.1 again"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the digests of the tiny shop, and its tables."""
    folder = tmp_path_factory.mktemp("first_light")
    arguments = ["--make-digests", str(folder / "digests.json"), "--shops", "tiny"]
    assert first_light.main([*arguments, "--work", str(folder / "work")]) == 0
    return folder


@pytest.fixture
def settings(prepared, tmp_path):
    """The settings of a run, with a digest file of its own to change."""
    copy = tmp_path / "digests.json"
    copy.write_text((prepared / "digests.json").read_text())
    work = str(prepared / "work")
    return {"place": "strict", "work": work, "online_retail": None, "digests": str(copy)}


def run(prepared, out, *options):
    files = ["--digests", str(prepared / "digests.json"), "--out", str(out)]
    where = ["--work", str(prepared / "work"), "--place", "strict"]
    code = first_light.main([*files, *where, *options])
    return code, json.loads(out.read_text())


def test_the_whole_program_runs_without_a_device(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GPU_DCGEN_ONLINE_RETAIL", raising=False)
    code, answered = run(prepared, tmp_path / "out.json")
    names = [question.name for question in first_light.list_questions({}, is_long=False)]
    asked = [name for name in names if name not in first_light.ON_A_DEVICE]
    assert list(answered["answers"]) == asked
    missing = [name for name in asked if name.startswith("online_retail")] + WITHOUT_SYNTH
    assert answered["not_asked"] == missing and answered["failed"] == []
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].partition(":")[0] for line in lines[:-1]] == asked
    answer = answered["answers"]["tiny with RAPIDS"]["answer"]
    digests = json.loads((prepared / "digests.json").read_text())["shops"]["tiny"]
    assert answer["content_digest"] == digests["content_digest"]
    assert (
        answer["timings"] and answered["answers"]["files of libcudf"]["answer"]["codec"] == "ZSTD"
    )


@pytest.mark.slow
def test_the_whole_program_runs_on_real_data(prepared, tmp_path, online_retail):
    folder = ["--online-retail", str(online_retail)]
    digests = ["--make-digests", str(tmp_path / "digests.json"), "--shops", "tiny", "online_retail"]
    assert first_light.main([*digests, *folder, "--work", str(tmp_path / "work")]) == 0
    code, answered = run(tmp_path, tmp_path / "out.json", *folder)
    assert code == 0 and answered["not_asked"] == WITHOUT_SYNTH
    assert answered["answers"]["similarity time"]["answer"]["log"] == "online_retail"


def test_the_device_is_asked_first_and_all_limits_are_set():
    listed = first_light.list_questions({}, is_long=False)
    names = [question.name for question in listed]
    assert names[:5] == ["packages", "driver", "NVVM", "one kernel", "one sort"]
    assert names.index("similarity time") < names.index("RAPIDS") < names.index("device tests")
    assert first_light.TOTAL_S < 12 * 60
    listed = first_light.list_questions({}, is_long=True)
    names = [question.name for question in listed]
    for position, question in enumerate(listed):
        assert set(question.needs) <= set(names[:position]), question.name
        module, _, function = question.function.partition(":")
        assert module == "tests.gpu.questions" and callable(getattr(questions, function))
        assert question.limit_s > 0


def test_the_plan_in_the_guide_has_each_question_with_its_limit():
    guide = (asking.ROOT / "docs" / "guide" / "gpu.md").read_text("utf-8")
    table = guide.partition("<!-- questions: begin -->")[2].partition("<!-- questions: end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    listed = first_light.list_questions({}, is_long=False)
    assert [(row[0], float(row[3])) for row in rows] == [(q.name, q.limit_s) for q in listed]
    seconds = [int(row[2].split()[0]) for row in rows]
    assert sum(seconds) < first_light.TOTAL_S, "the plan does not fit the time"
    second = guide.partition("--only ")[2].partition("```")[0].replace("\\\n", " ")
    names = shlex.split(second)
    assert set(names) <= {question.name for question in listed}
    first = {name for name in (row[0] for row in rows) if "RAPIDS" not in name} - set(names)
    assert first == {"driver", "NVVM", "one kernel", "one sort", "similarity time"}


def test_the_packages_in_the_guide_bring_all_that_they_need():
    """They are installed without dependencies, beside what the machine has."""
    guide = (asking.ROOT / "docs" / "guide" / "gpu.md").read_text("utf-8")
    named = guide.partition("--target packages --no-deps ")[2].partition("`")[0].split()
    assert {"pydantic", "pytest", "hypothesis"} <= set(named)
    requirements = {
        canonicalize_name(distribution.name): distribution.requires or ()
        for distribution in importlib.metadata.distributions()
    }
    # With an old pydantic, some are not there, and not needed.
    needed = [Requirement(line) for name in named for line in requirements.get(name, ())]
    names = {need.name for need in needed if not need.marker or need.marker.evaluate({"extra": ""})}
    missing = {canonicalize_name(name) for name in names} - {*named, *questions.PACKAGES}
    assert not missing


def test_other_digests_fail_and_the_columns_are_named(settings, monkeypatch):
    monkeypatch.setattr(questions, "_machine", lambda place, has_rapids: NumpyBackend(1))
    assert questions.build_shop(settings, "tiny", True)["good"]
    path = asking.Path(settings["digests"])
    content = json.loads(path.read_text())
    content["shops"]["tiny"]["digests"]["train_dataset"]["item_id"] = "0" * 16
    path.write_text(json.dumps(content))
    answer = questions.build_shop(settings, "tiny", True)
    assert answer["good"] is False
    assert answer["computed_otherwise"] == answer["written_otherwise"] == ["train_dataset.item_id"]


def test_files_that_are_not_what_was_computed_fail(settings, monkeypatch):
    monkeypatch.setattr(questions, "_machine", lambda place, has_rapids: NumpyBackend(1))
    digest_files = expected.digest_files

    def digest_others(dataset, names):
        path = dataset / "user_sequences.parquet"
        pq.write_table(pq.read_table(path).slice(1), path)
        return digest_files(dataset, names)

    monkeypatch.setattr(expected, "digest_files", digest_others)
    answer = questions.build_shop(settings, "tiny", True)
    assert answer["good"] is False and answer["computed_otherwise"] == []
    assert {name.partition(".")[0] for name in answer["written_otherwise"]} == {"user_sequences"}


def test_tables_that_others_made_are_told_from_a_wrong_gpu(settings):
    path = asking.Path(settings["digests"])
    content = json.loads(path.read_text())
    content["shops"]["tiny"]["tables"]["articles"] = "0" * 64
    path.write_text(json.dumps(content))
    answer = questions.build_shop(settings, "tiny", True)
    assert answer["good"] is False and "are not those of the digests" in answer["tables"]


def test_tables_are_hashed_by_their_rows(prepared, tmp_path):
    folder = prepared / "work" / "tiny"
    hashes = expected.hash_tables(folder)
    assert set(hashes) == {"articles", "customers", "transactions"}
    for name in hashes:
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=999, compression="none")
    assert expected.hash_tables(tmp_path) == hashes
    other = table.slice(0, len(table) - 1)
    pq.write_table(other, tmp_path / f"{name}.parquet")
    assert [n for n in hashes if expected.hash_tables(tmp_path)[n] != hashes[n]] == [name]


def test_what_is_not_there_is_not_asked(settings):
    with pytest.raises(NotAsked, match="no --online-retail FOLDER was given"):
        expected.find_tables("online_retail", settings)
    with pytest.raises(NotAsked, match="has no digests of synth_0.1"):
        questions.write_tables(settings, "synth_0.1")


def test_without_rapids_the_questions_about_it_are_not_asked(settings, monkeypatch):
    monkeypatch.setattr(questions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAsked, match="pylibcudf is not installed"):
        questions.open_rapids({**settings, "place": "device"})


def test_a_kernel_that_computes_wrongly_fails(settings, monkeypatch):
    backend = NumpyBackend(1)
    monkeypatch.setattr(questions, "_machine", lambda place, has_rapids: backend)
    assert questions.run_kernel(settings)["good"]
    assert questions.sort(settings)["good"]
    monkeypatch.setattr(backend, "for_each", lambda *arguments, **options: None)
    monkeypatch.setattr(backend, "stable_argsort", lambda keys, n_bits: keys.argsort()[::-1])
    assert not questions.run_kernel(settings)["good"]
    assert not questions.sort(settings)["good"]


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ("def test_a(): pass", True),
        ("def test_a(): assert False", False),
        ("import pytest\ndef test_a(): pytest.skip('no GPU tested here: no driver')", False),
        ("import pytest\ndef test_a(): pytest.skip('not on Mondays')", False),
        (
            "import pytest\ndef test_a(): pass\n"
            "def test_b(): pytest.skip('no GPU tested here: no driver')",
            False,
        ),
        ("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('not on Mondays')", True),
        ("import warnings\ndef test_a(): warnings.warn('generic unit', DeprecationWarning)", True),
    ],
)
def test_a_run_that_sees_no_gpu_is_a_failure(body, good, tmp_path):
    (tmp_path / "test_it.py").write_text(f"{body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    question = Question("t", "tests.gpu.questions:run_tests", 60.0, (), ([str(tmp_path)],))
    report = Report(tmp_path / "out.json", {})
    ask_all([question], report, 60.0)
    assert report.answers["t"]["answer"]["good"] is good


def test_blocks_come_to_the_host_only_when_they_are_written(tmp_path):
    """The machine without RAPIDS gives arrays of its own, which a writer of the host refuses."""
    backend = StrictFilesBackend()
    questions._write_block(tmp_path / "a.parquet", backend)
    questions._write_block(tmp_path / "b.parquet", NumpyBackend(1))
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
    assert backend._transfers.to_host > 0


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
def test_nvvm_is_asked_without_a_device(settings):
    answer = questions.compile_with_nvvm(settings)
    assert answer["good"] and "nvvm" in answer["library"]


def test_a_toolkit_of_the_machine_is_used_where_nobody_names_one(prepared, tmp_path, monkeypatch):
    """Workers, which compile with its NVVM, inherit it."""
    monkeypatch.setattr(first_light, "TOOLKIT", tmp_path / "cuda")
    homes = []
    for folder, variable in ((False, None), (True, None), (True, "/opt/cuda")):
        if folder:
            (tmp_path / "cuda" / "nvvm").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("CUDA_HOME", variable or "")  # so that what main sets is undone too
        if variable is None:
            monkeypatch.delenv("CUDA_HOME")
        _, content = run(prepared, tmp_path / "out.json", "--only", "one sort")
        homes.append(content["CUDA_HOME"])
    assert homes == [None, str(tmp_path / "cuda"), "/opt/cuda"]


def test_a_package_that_the_machine_lacks_is_named(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    for name in list(sys.modules):
        if name.startswith("gpu_dcgen"):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="pydantic"):
        questions.list_packages(settings)


@pytest.mark.parametrize(
    ("code", "text", "good"),
    [(0, "9 passed", True), (1, "9 passed", False), (0, "no GPU tested here: no driver", False)],
)
def test_all_tests_without_a_gpu_are_a_failure(code, text, good, settings, monkeypatch):
    monkeypatch.setattr(
        questions.subprocess,
        "run",
        lambda command, **options: types.SimpleNamespace(returncode=code, stdout=text),
    )
    assert questions.run_all_tests(settings)["good"] is good


def test_a_name_that_no_question_has_is_refused(prepared, tmp_path, capsys):
    arguments = ["--digests", str(prepared / "digests.json"), "--only", "one kernels"]
    assert first_light.main([*arguments, "--work", str(tmp_path)]) == 2
    assert "no question is called one kernels; there are: packages, driver" in (
        capsys.readouterr().out
    )


def test_without_a_device_it_says_so(prepared, tmp_path):
    """As on any machine that has no CuPy or no driver."""
    files = ["--digests", str(prepared / "digests.json"), "--out", str(tmp_path / "out.json")]
    asked = ["--only", "packages", "driver", "one kernel"]
    assert first_light.main([*files, "--work", str(tmp_path), *asked]) == 1
    answered = json.loads((tmp_path / "out.json").read_text())
    assert answered["failed"] and "one kernel" in answered["not_asked"]
