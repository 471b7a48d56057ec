"""Questions that are answered in a process of their own, with a time limit, in turn.

A call of a driver that hangs cannot be interrupted from Python, so a worker answers, and is killed
if it takes too long; the next question gets a new one. Answers are written to a JSON file after
each question. Needs the standard library alone, so that it runs whatever is missing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVE = "import sys; from tests.gpu import asking; asking.serve(int(sys.argv[1]), sys.argv[2])"
MIN_SECONDS = 1.0  # a question that has less is not asked
KILL_SECONDS = 10.0  # to wait for the end of a process that was killed


class NotAsked(Exception):
    """What a question needs is not here, which is no failure."""


@dataclass(frozen=True)
class Question:
    """A function `module:name` to call with `arguments` (JSON), in at most `limit_s`.

    It is not asked unless those that it `needs` were answered well. A dict with `good: False` and
    an exception are failures, `NotAsked` is none.
    """

    name: str
    function: str
    limit_s: float
    needs: tuple[str, ...] = ()
    arguments: tuple[Any, ...] = ()


class Report:
    """Answers by question, in a file that is whole at any time."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self._path, self._about = path, about
        self.answers: dict[str, dict[str, Any]] = {}

    def begin(self, name: str) -> None:
        """Write which question is asked, for the case that the machine does not come back."""
        self._write(asking=name)

    def add(self, name: str, answer: dict[str, Any]) -> None:
        self.answers[name] = answer
        self._write(asking=None)
        reason = answer.get("error") or answer.get("reason") or ""
        lines = [line for line in reason.splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        print(f"{answer['outcome']:7} {answer['seconds']:7.1f} s  {name}{last}", flush=True)

    def names(self, outcome: str) -> list[str]:
        return [name for name, answer in self.answers.items() if answer["outcome"] == outcome]

    @property
    def is_good(self) -> bool:
        """Whether something was answered, and nothing failed."""
        return bool(self.names("ok")) and not self.names("failed")

    def _write(self, asking: str | None) -> None:
        content = {
            **self._about,
            "asking": asking,
            "failed": self.names("failed"),
            "not_asked": self.names("skipped"),
            "answers": self.answers,
        }
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(part, self._path)


def ask_all(questions: Sequence[Question], report: Report, total_s: float) -> None:
    """Ask the questions in order, all of them within `total_s`."""
    end, worker = time.monotonic() + total_s, Worker()
    asked = {question.name for question in questions}
    try:
        for question in questions:
            needs = [name for name in question.needs if name in asked]
            unmet = [name for name in needs if report.answers[name]["outcome"] != "ok"]
            limit_s = min(question.limit_s, end - time.monotonic())
            if unmet:
                answer = _close("skipped", 0.0, reason=f"not after {unmet[0]!r}")
            elif limit_s < MIN_SECONDS:
                answer = _close("failed", 0.0, error=f"no time was left of {total_s:g} s")
            else:
                report.begin(question.name)
                answer = worker.ask(question, limit_s)
            report.add(question.name, answer)
    finally:
        worker.kill()


class Worker:
    """A process that answers questions one after another and can be killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Question, limit_s: float) -> dict[str, Any]:
        """Return the answer, or what became of the process; never waits much longer."""
        began = time.monotonic()
        process = self._running()
        request = {
            "function": question.function,
            "arguments": question.arguments,
            "limit_s": limit_s,
        }
        with contextlib.suppress(BrokenPipeError):  # a process that has ended has no answer
            process.stdin.write(json.dumps(request).encode() + b"\n")
        text = self._read_line(began + limit_s)
        seconds = round(time.monotonic() - began, 3)
        if text:
            return {**json.loads(text), "seconds": seconds}
        error = f"no answer in {limit_s:g} s"
        if text is not None:
            error = f"the process ended with exit code {process.wait()}"
        stack = self._trace.read_text()
        self.kill()
        return _close("failed", seconds, error=error, stack=stack)

    def kill(self) -> None:
        """End the process and all that it started; one that even the kernel cannot end is left."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=KILL_SECONDS)
        self._process.stdin.close()
        os.close(self._answers)
        self._trace.unlink()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._answers, theirs = os.pipe()
            handle, trace = tempfile.mkstemp(prefix="first_light_")
            os.close(handle)
            self._trace = Path(trace)
            path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs), trace],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=2,  # what libraries print; the lines of the report stay alone on stdout
                pass_fds=[theirs],
                start_new_session=True,  # a process group, to be killed as a whole
            )
            os.close(theirs)
        return self._process

    def _read_line(self, end: float) -> bytes | None:
        """Return a line; b"" where the process has ended, None where time has run out."""
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._answers, 1 << 16)
            if not part:
                return b""
            text += part
        return text


def serve(answers: int, trace: str) -> None:
    """Answer the questions that come through stdin, until it is closed."""
    with open(trace, "w") as stacks, os.fdopen(answers, "w") as out:
        faulthandler.enable(stacks)
        for line in sys.stdin:
            request = json.loads(line)
            faulthandler.dump_traceback_later(0.9 * request["limit_s"], file=stacks)
            answer = _answer(request["function"], request["arguments"])
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(answer, default=str), file=out, flush=True)


def _answer(function: str, arguments: list[Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        answer = getattr(importlib.import_module(module), name)(*arguments)
    except NotAsked as reason:
        return _close("skipped", 0.0, reason=str(reason))
    except Exception:
        return _close("failed", 0.0, error=traceback.format_exc())
    if isinstance(answer, dict) and answer.get("good") is False:
        return _close("failed", 0.0, error="the answer is wrong", answer=answer)
    return _close("ok", 0.0, answer=answer)


def _close(outcome: str, seconds: float, **details: Any) -> dict[str, Any]:
    return {"outcome": outcome, "seconds": seconds, **details}
