"""Hostile configuration files are refused at once; the package runs nothing that it reads."""

from __future__ import annotations

import ast
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.config.loading import MAX_BYTES
from gpu_dcgen.errors import ConfigError

ROOT = Path(__file__).parents[2]
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# A grid's loop around a kernel, made of the kernel's own name and parameters.
OWN_SOURCE = {"gpu_dcgen/backend/gpu/launch.py": {"exec"}}

LEVELS = "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{','.join(['*' + chr(97 + k)] * 10)}]\n" for k in range(8)
)
MERGES = "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} {{<<: [{','.join(['*' + chr(97 + k)] * 10)}]}}\n"
    for k in range(8)
)
HOSTILE = {
    "a billion laughs": (
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + LEVELS,
        "more than 10,000 values, with its aliases written out",
    ),
    "a billion merges": ("a: &a {x: 1, y: 2}\n" + MERGES, "more than 10,000 values"),
    "an alias of itself": ("split: &a [*a]", "an alias is inside what it repeats"),
    "a deep nest": ("split: " + "[" * 3000, "not valid YAML"),
    "a number of many digits": ("seed: " + "9" * 5000, "not valid YAML"),
    "a day that never was": ("seed: 2020-13-45", "month must be in 1..12"),
    "a key twice": ("seed: 1\nseed: 2", "key 'seed' occurs twice"),
    "Python's objects": (
        "seed: !!python/object/apply:os.system [ls]",
        "could not determine a constructor",
    ),
    "keys that are numbers": ("1: 2", "Keys should be strings"),
    "not a number": ("split: {train_share: .nan}", "train_share"),
    "infinite": ("category_balancing: {max_weight: .inf}", "max_weight"),
    "days beyond 64 bits": ("features: {snapshot_days: 9223372036854775808}", "snapshot_days"),
    "hours beyond 64 bits": (
        "sequence_processing: {temporal_gap_hours: 9999999999}",
        "temporal_gap_hours",
    ),
    "a path for a table": ("inputs: {columns: {../../etc: {price: x}}}", "inputs.columns"),
    "a control character": ("seed: \x01", "not valid YAML"),
    "too large": ("# " + "x" * MAX_BYTES, "is larger than 262,144 bytes"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)
    assert time.process_time() - began < 5
    assert len(str(caught.value)) < 3000


def test_a_file_that_never_ends_is_not_read_to_its_end():
    with pytest.raises(ConfigError, match="larger than"):
        load_config(Path("/dev/zero"))


def test_anchors_are_accepted(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "split: {train_share: &share 0.7}\n"
        "filtering: {min_user_interactions: 6}\n"
        "similarity: {view_weight: *share}"
    )
    config = load_config(file)
    assert (config.split.train_share, config.similarity.view_weight) == (0.7, 0.7)


@pytest.mark.parametrize("value", ["2020-13-45", "9" * 5000, "&a [*a]", "[" * 3000, "{a: 1, a: 2}"])
def test_hostile_overrides_are_refused(value):
    with pytest.raises(ConfigError, match="the value is not valid YAML"):
        load_config(overrides=[f"seed={value}"])


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()
)
NAMES = st.one_of(
    st.sampled_from(
        [*DatasetConfig.model_fields, "columns", "channels", "score", "config_parameters"]
    ),
    st.text(max_size=5),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(data=ANYTHING)
def test_any_yaml_is_a_configuration_or_a_config_error(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "mine.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    try:
        load_config(file)
    except ConfigError as error:
        assert "mine.yaml" in str(error)


@settings(max_examples=150, deadline=None)
@given(
    raw=st.binary(max_size=200)
    | st.text(alphabet="{}[]:,&*!|>-?#'\"%@` \nab1.<~", max_size=60).map(str.encode)
)
def test_any_bytes_are_a_configuration_or_a_config_error(tmp_path_factory, raw):
    file = tmp_path_factory.mktemp("any") / "mine.yaml"
    file.write_bytes(raw)
    try:
        load_config(file)
    except ConfigError as error:
        assert "mine.yaml" in str(error)


def dangers(source: str) -> set[str]:
    """Calls and imports by which a program runs what it has read."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            names.add(node.module)
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            shell = any(word.arg == "shell" for word in node.keywords)
            trusting = any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
                for word in node.keywords
            )
            if (
                call in RUNS_CODE
                or call in ("yaml.load", "yaml.unsafe_load", "os.system", "torch.load")
                or shell
                or trusting
            ):
                names.add(call)
    return names


def test_nothing_that_is_read_is_run():
    files = [
        path
        for folder in ("gpu_dcgen", "cpu_fallback")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    dangerous = {
        path.relative_to(ROOT).as_posix(): names
        for path in files
        if (names := dangers(path.read_text("utf-8")))
    }
    assert dangerous == OWN_SOURCE
    source = """
        import pickle
        eval('1')
        yaml.load(x)
        f(shell=True)
        np.load(x, allow_pickle=True)
    """
    assert dangers(textwrap.dedent(source)) == {"pickle", "eval", "yaml.load", "f", "np.load"}
