"""A worker answers in turn, is killed in time, and what it says is written at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from tests.gpu import asking
from tests.gpu.asking import NotAsked, Question, Report, ask_all

HERE = "tests.gpu.test_asking"


def add(a, b):
    return {"sum": a + b, "process": os.getpid()}


def differ():
    return {"good": False, "differing": ["train_dataset.item_id"]}


def divide():
    return 1 / 0


def need_a_library():
    raise NotAsked("pylibcudf is not installed")


def hang(pid_file):
    """Wait for a process that outlives its parent, unless all of them are killed."""
    sleep = subprocess.Popen(["sleep", "600"])
    with open(pid_file, "w") as file:
        file.write(str(sleep.pid))
    sleep.wait()


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def read(path):
    with open(path) as file:
        return json.load(file)


def question(name, *arguments, limit_s=60.0, needs=()):
    return Question(name, f"{HERE}:{name}", limit_s, needs, arguments)


def ask(tmp_path, *questions, total_s=600.0):
    report = Report(tmp_path / "out.json", {"version": "1"})
    ask_all(questions, report, total_s)
    return report


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_process_answers_in_turn(tmp_path):
    first, second = question("add", 1, 2), Question("again", f"{HERE}:add", 60.0, (), (3, 4))
    report = ask(tmp_path, first, second)
    answers = [report.answers[name]["answer"] for name in ("add", "again")]
    assert [answer["sum"] for answer in answers] == [3, 7]
    assert answers[0]["process"] == answers[1]["process"] != os.getpid()
    assert report.is_good


def test_a_question_that_hangs_is_ended_in_time_and_the_next_is_asked(tmp_path):
    pid_file, began = tmp_path / "pid", time.monotonic()
    report = ask(tmp_path, question("add", 1, 1), question("hang", str(pid_file), limit_s=1.0))
    report_after = ask(
        tmp_path, question("hang", str(pid_file), limit_s=5.0), question("add", 2, 2)
    )
    assert time.monotonic() - began < 100
    failed = report.answers["hang"]
    assert (failed["outcome"], failed["error"]) == ("failed", "no answer in 1 s")
    assert "in hang" in failed["stack"], "it does not say where it hung"
    assert report_after.answers["add"]["answer"]["sum"] == 4
    assert not report.is_good and not report_after.is_good
    assert not is_running(int(pid_file.read_text())), "what the question started still runs"


def test_a_process_that_crashes_is_an_answer_and_the_next_is_asked(tmp_path):
    report = ask(tmp_path, question("crash"), question("add", 1, 2))
    failed = report.answers["crash"]
    assert failed["error"] == f"the process ended with exit code -{int(signal.SIGSEGV)}"
    assert "in crash" in failed["stack"]
    assert report.names("ok") == ["add"] and report.names("failed") == ["crash"]


def test_errors_and_wrong_answers_are_failures_and_what_is_missing_is_none(tmp_path, capsys):
    report = ask(
        tmp_path,
        question("divide"),
        question("differ"),
        question("need_a_library"),
        question("add", 1, 2),
    )
    assert report.names("failed") == ["divide", "differ"]
    assert report.names("skipped") == ["need_a_library"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["failed", "failed", "skipped", "ok"]
    assert lines[0].endswith("divide: ZeroDivisionError: division by zero")
    assert lines[2].endswith("need_a_library: pylibcudf is not installed")


def test_a_question_is_not_asked_after_a_failure_of_what_it_needs(tmp_path):
    after = Question("after", f"{HERE}:add", 60.0, ("divide",), (1, 2))
    last = Question("last", f"{HERE}:add", 60.0, ("after", "a question of another run"), (1, 2))
    report = ask(tmp_path, question("divide"), after, last)
    assert report.answers["after"]["reason"] == "not after 'divide'"
    assert report.answers["last"]["reason"] == "not after 'after'"


def test_a_run_that_asks_nothing_is_not_good(tmp_path):
    assert not ask(tmp_path).is_good
    assert not ask(tmp_path, question("need_a_library")).is_good


def test_a_question_without_time_is_a_failure(tmp_path):
    report = ask(tmp_path, question("add", 1, 2), total_s=0.5)
    assert report.answers["add"]["error"] == "no time was left of 0.5 s"
    assert not report.is_good


def test_each_answer_is_written_before_the_next_question(tmp_path):
    path = tmp_path / "out.json"
    peek = Question("peek", f"{HERE}:read", 60.0, (), (str(path),))
    report = ask(tmp_path, question("add", 1, 2), peek)
    seen = report.answers["peek"]["answer"]
    assert (seen["asking"], list(seen["answers"])) == ("peek", ["add"])
    assert seen["answers"]["add"]["answer"]["sum"] == 3
    finished = read(path)
    assert (finished["asking"], finished["version"]) == (None, "1")
    assert list(finished["answers"]) == ["add", "peek"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_a_report_is_whole_even_where_writing_it_ends_early(tmp_path, monkeypatch):
    report = Report(tmp_path / "out.json", {})
    report.add("first", {"outcome": "ok", "seconds": 0.0})

    def die(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(asking.os, "replace", die)
    try:
        report.add("second", {"outcome": "ok", "seconds": 0.0})
    except OSError:
        assert list(read(tmp_path / "out.json")["answers"]) == ["first"]
    else:
        raise AssertionError("an error was swallowed")


def test_the_machinery_needs_the_standard_library_alone():
    code = (
        "import sys, tests.gpu.asking, tests.gpu.first_light; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=asking.ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(run.stdout.split()) <= {"__main__", "tests"}
