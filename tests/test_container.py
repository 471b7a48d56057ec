"""The container files and environment.yml say the same as pyproject.toml, and keep the rules of a
good image.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gpu_dcgen.cli import app

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
README = (ROOT / "README.md").read_text("utf-8")
CONTAINERS = (ROOT / "docs" / "guide" / "containers.md").read_text("utf-8")
GPU = (ROOT / "docs" / "guide" / "gpu.md").read_text("utf-8")
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
NOT_IN_THE_CONTEXT = (
    ".git/config",
    ".env",
    "data/processed/transactions.parquet",
    "docker/Dockerfile.cpu",
    "gpu-dcgen-demo/input/articles.parquet",
    "gpu_dcgen/.ipynb_checkpoints/x.py",
    "gpu_dcgen/__pycache__/cli.cpython-312.pyc",
    # as Python writes it, before it has its name
    "gpu_dcgen/__pycache__/cli.cpython-312.pyc.139872",
    "gpu_dcgen/kernels/__pycache__/draws.draw-61.py312.1.nbc",
    "gpu_dcgen/kernels/draws.draw-61.py312.nbi",
    "gpu_dcgen.egg-info/PKG-INFO",
    "tests/cli/test_cli.py",
)


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a Dockerfile, continued lines joined, comments left out, its ARG
    defaults put in.
    """
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    matching = [
        tuple(line.split(None, 1)) for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()
    ]
    defaults = dict(
        arguments.split("=", 1)
        for name, arguments in matching
        if name == "ARG" and "=" in arguments
    )
    return [
        (name, re.sub(r"\$\{(\w+)\}", lambda hit: defaults.get(hit[1], hit[0]), arguments))
        for name, arguments in matching
    ]


def bases(path: Path) -> list[str]:
    return [arguments.split()[0] for name, arguments in instructions(path) if name == "FROM"]


def last_stage(path: Path) -> list[tuple[str, str]]:
    steps = instructions(path)
    return steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") + 1 :]


def in_context(name: str, rules: str | None = None) -> bool:
    """Whether .dockerignore leaves a file to the engine: the last rule that matches it, or a folder
    it is in, decides.
    """
    wanted = True
    for rule in ((ROOT / ".dockerignore").read_text() if rules is None else rules).splitlines():
        if rule and not rule.startswith("#"):
            pattern = (
                re.escape(rule.removeprefix("!"))
                .replace(r"\*\*/", "(.*/)?")
                .replace(r"\*", "[^/]*")
            )
            pattern = pattern.replace(r"\[", "[").replace(r"\]", "]")
            if re.fullmatch(f"{pattern}(/.*)?", name):
                wanted = rule.startswith("!")
    return wanted


def tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    return {
        hit[1]: hit[2]
        for line in requirements
        if (hit := re.fullmatch(r"([\w-]+)>=([\d.]+)", line))
    }


def conda(name: str) -> str:
    """What environment.yml says after the name of a package."""
    (line,) = [
        line
        for line in ENVIRONMENT["dependencies"]
        if isinstance(line, str) and re.match(rf"{name}\b(?!-)", line)
    ]
    return line.removeprefix(name)


# Versions


def test_rapids_has_one_version():
    pinned = {
        hit
        for lines in EXTRAS.values()
        for line in lines
        for hit in re.findall(r"^cu(?:df|ml)-cu\d+==(.*)\.\*$", line)
    }
    assert len(pinned) == 1
    (version,) = pinned
    assert conda("cudf") == conda("cuml") == f"={version}"
    assert f"RAPIDS {version}" in CONTAINERS and f"RAPIDS {version}" in GPU


@pytest.mark.parametrize("cuda", ["12", "13"])
def test_an_extra_is_of_one_cuda_version(cuda):
    packages = {re.match(r"[\w-]+", line)[0] for line in EXTRAS[f"gpu-cu{cuda}"]}
    assert packages == {f"cudf-cu{cuda}", f"cuml-cu{cuda}", f"cupy-cuda{cuda}x"}


def test_both_cuda_versions_can_be_had_everywhere_and_13_is_the_default():
    text = (ROOT / "environment.yml").read_text()
    assert re.findall(r"^ *(# )?- cuda-version>=(\d+)", text, re.MULTILINE) == [
        ("", "13"),
        ("# ", "12"),
    ]
    assert ("ARG", "CUDA=13") in instructions(ROOT / "docker" / "Dockerfile.gpu")
    assert "`gpu-cu13`" in GPU and "`gpu-cu12`" in GPU


@pytest.mark.parametrize("cuda", ["12", "13"])
def test_the_image_and_conda_have_the_packages_of_the_extra(cuda):
    (install,) = [
        line
        for name, line in instructions(ROOT / "docker" / "Dockerfile.gpu")
        if name == "RUN" and "needs.txt" in line
    ]
    command = re.fullmatch(r"(python .*) > needs.txt +&& pip .* --requirement needs.txt", install)[
        1
    ]
    listed = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "CUDA": cuda},
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.splitlines() == [*PROJECT["dependencies"], *EXTRAS[f"gpu-cu{cuda}"]]
    # As conda names and pins them, the package's own dependencies apart.
    extra = {
        re.sub(r"-cu(da)?\d+x?(\[ctk\])?", "", line).replace("==26.10.*", "=26.10")
        for line in EXTRAS[f"gpu-cu{cuda}"]
    }
    result = {line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)}
    own = {line for line in result if re.match(r"(python|pip|cuda-version)\b", line)}
    assert result - own - set(PROJECT["dependencies"]) == extra


def test_faiss_is_an_extra_of_its_own():
    assert lower_bounds(EXTRAS["faiss-gpu"]).keys() == {"faiss-gpu"}
    assert lower_bounds(EXTRAS["faiss-cpu"]).keys() == {"faiss-cpu"}
    assert "add `faiss-gpu`" in CONTAINERS


def test_python_is_the_same_in_both_images_and_with_conda_and_the_package_takes_it():
    hits = [
        re.search(r"(?:^python:|-py)(\d+\.\d+)", base)
        for path in DOCKERFILES
        for base in bases(path)
    ]
    (version,) = {hit[1] for hit in hits}
    assert conda("python") == f"={version}"
    lowest, excluded = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert int(lowest) <= int(version.split(".")[1]) < int(excluded)
    assert f"Needs Python 3.{lowest} to 3.{int(excluded) - 1}" in README


def test_conda_is_told_what_pip_is_told():
    result = lower_bounds([line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)])
    assert lower_bounds(PROJECT["dependencies"]).items() <= result.items()
    assert set(result) - lower_bounds(PROJECT["dependencies"]).keys() == {"cupy"}
    assert ENVIRONMENT["channels"] == ["rapidsai", "conda-forge"]
    assert ENVIRONMENT["dependencies"][-1] == {"pip": ["--editable ."]}


# What the engine is given


def test_rules_are_read_as_docker_reads_them():
    rules = "# comment\n*\n!kept\n**/*.py[co]\n"
    assert [
        name
        for name in ("kept", "kept/a.py", "kept/b/a.pyc", "other/kept", "a.py")
        if in_context(name, rules)
    ] == [
        "kept",
        "kept/a.py",
    ]
    assert in_context("a/b") != in_context("a/b", "")


def test_the_context_is_what_a_wheel_is_built_from_and_nothing_else():
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}
    needed |= {name for name in tracked_files() if name.split("/")[0] in packages}
    assert {name for name in tracked_files() if in_context(name)} == needed
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] in needed
    assert [name for name in NOT_IN_THE_CONTEXT if in_context(name)] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there(path):
    copies = [arguments.split() for name, arguments in instructions(path) if name == "COPY"]
    from_context = [
        source for words in copies if not words[0].startswith("--from") for source in words[:-1]
    ]
    assert "." in from_context
    assert all(
        source == "." or (ROOT / source).is_file() and in_context(source) for source in from_context
    )


# Images


def test_there_is_an_image_for_each_machine():
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.cpu", "Dockerfile.gpu"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_built_on_pinned_ones(path):
    for base in bases(path):
        name, _, tag = base.partition(":")
        assert re.search(r"\d+\.\d+", tag) and "latest" not in tag, f"{name} is not pinned"
    labels = dict(instructions(path))["LABEL"]
    assert (
        f'base.name="docker.io/{"" if "/" in bases(path)[-1] else "library/"}{bases(path)[-1]}"'
        in labels
    )
    assert f'licenses="{PROJECT["license"]}"' in labels


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_without_rights_and_its_code_is_not_its_users(path):
    users = [i for i, (name, _) in enumerate(last_stage(path)) if name == "USER"]
    last = last_stage(path)[users[-1]][1]
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", last), (
        f"USER {last}: a number, as orchestrators check that it is not 0"
    )
    after = [
        arguments
        for name, arguments in last_stage(path)[users[-1] :]
        if name in ("RUN", "COPY", "ADD")
    ]
    assert not [line for line in after if re.search(r"\b(pip|apt-get|conda|mamba) ", line)]
    assert not [line for name, line in instructions(path) if name == "COPY" and "--chown" in line]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_starts_the_tool_itself(path):
    stage = dict(last_stage(path))
    assert stage["ENTRYPOINT"] == '["gpu-dcgen"]' and "gpu-dcgen" in PROJECT["scripts"]
    assert stage["CMD"] == '["--help"]'


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_compiled_kernels_have_a_place_that_everybody_can_write_to(path):
    stage = last_stage(path)
    cache = re.search(r"NUMBA_CACHE_DIR=(\S+)", dict(stage)["ENV"])[1]
    (volume,) = [
        mount["target"]
        for mount in COMPOSE["services"]["build"]["volumes"]
        if mount["type"] == "volume"
    ]
    assert cache.startswith(f"{volume}/")
    runs = [arguments for name, arguments in stage if name == "RUN"]
    assert any(f"mkdir --mode=0777 {volume}" in run for run in runs)
    assert runs[-1].startswith("umask 000") and "gpu-dcgen build" in runs[-1], (
        "kernels are compiled with the image"
    )


# Compose


@pytest.mark.parametrize("service", ["build", "build-cpu"])
def test_a_job_can_write_to_its_output_alone(service):
    job = COMPOSE["services"][service]
    assert job["read_only"] and job["cap_drop"] == ["ALL"] and job["network_mode"] == "none"
    writable = [
        mount["target"]
        for mount in job["volumes"]
        if mount["type"] == "bind" and not mount.get("read_only")
    ]
    verb, *options, inputs, output = job["command"]
    assert options == ([] if service == "build-cpu" else ["--backend", "gpu"])
    assert (verb, writable) == ("build", [str(Path(output).parent)])
    assert inputs not in writable
    build = job["build"]
    assert (ROOT / build["dockerfile"]).is_file() and (
        ROOT / "docker" / build["context"]
    ).resolve() == ROOT
    assert job["image"] == f"gpu-dcgen:{Path(build['dockerfile']).suffix[1:]}"


def test_only_the_job_for_gpus_asks_for_one():
    (device,) = COMPOSE["services"]["build"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in COMPOSE["services"]["build-cpu"]


# docs/guide/containers.md


def docker_commands() -> list[str]:
    return re.findall(r"^\$ (docker .*)$", CONTAINERS, re.MULTILINE)


def test_the_guide_builds_and_runs_each_image():
    built = dict(
        re.findall(
            r"docker build --file (\S+) --tag (\S+) \.$", "\n".join(docker_commands()), re.MULTILINE
        )
    )
    assert built == {f"docker/{path.name}": f"gpu-dcgen:{path.suffix[1:]}" for path in DOCKERFILES}
    run = [command for command in docker_commands() if command.startswith("docker run")]
    assert sorted(
        tag for tag in built.values() for command in run if f" {tag} " in command
    ) == sorted(built.values())
    assert ["--gpus" in command for command in run] == [
        " gpu-dcgen:gpu " in command for command in run
    ]


@pytest.mark.parametrize(
    "command", [line for line in docker_commands() if line.startswith("docker run")]
)
def test_what_the_readme_runs_in_a_container_is_a_command_of_the_tool(command, tmp_path):
    host, mounted = re.search(r'--volume "\$PWD/(\w+):(/\w+)"', command).groups()
    arguments = re.split(r" gpu-dcgen:\w+ ", command)[1].split()
    assert arguments[0] == "build" and all(
        path.startswith(f"{mounted}/") for path in arguments[1:3]
    )
    (tmp_path / host).mkdir()
    here = [argument.replace(mounted, str(tmp_path / host), 1) for argument in arguments]
    result = CliRunner().invoke(app, here)
    assert result.exit_code == 2 and "the folder does not exist" in result.output, (
        "the tool got as far as looking for the tables"
    )
