"""Settings: the contract's are accepted, mistakes are named, printed ones read back."""

import re
from pathlib import Path

import pytest
import yaml

from gpu_dcgen.config import (
    DatasetConfig,
    Section,
    count_usable_cores,
    load_config,
    render_config,
    to_fraction,
)
from gpu_dcgen.errors import ConfigError

CONTRACT = """
config_parameters:
  negative_sampling:
    random_negatives_per_positive: 10
    hard_negatives_per_positive: 5
    in_batch_negatives: true
    similarity_threshold: 0.3

  sequence_processing:
    max_sequence_length: 50
    min_sequence_length: 3
    temporal_gap_hours: 72

  category_balancing:
    enable_balancing: true
    balance_threshold: 0.2  # max deviation from target
    smoothing_factor: 0.5

  filtering:
    min_user_interactions: 5
    min_item_interactions: 10
    max_user_interactions: 1000

scalability_config:
  local_development:
    num_workers: 4
    batch_size: 10000
    chunk_size: 1000

  cloud_processing:
    num_workers: 32
    batch_size: 50000
    chunk_size: 5000
    distributed_processing: true

  memory_optimization:
    chunked_processing: true
    lazy_loading: true
    sparse_matrices: true
    compression_level: 3
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def sections(config: Section):
    yield config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Section):
            yield from sections(value)


def test_the_contract_pasted_in_gives_the_defaults(tmp_path):
    assert load_config(write(tmp_path, CONTRACT)) == DatasetConfig()


def test_the_contracts_cloud_profile_can_be_chosen(tmp_path):
    resources = load_config(write(tmp_path, CONTRACT), ["profile=cloud_processing"]).resources
    assert (resources.num_workers, resources.batch_size, resources.chunk_size) == (
        32,
        50_000,
        5_000,
    )
    assert resources.distributed_processing


def test_a_setting_beats_its_profile():
    assert (
        load_config(
            overrides=["profile=cloud_processing", "resources.num_workers=3"]
        ).resources.num_workers
        == 3
    )


def test_what_is_printed_reads_back_as_the_same_configuration(tmp_path):
    changed = DatasetConfig(
        seed=7,
        inputs={
            "columns": {"transactions": {"t_dat": "order date: " + "x" * 200}},
            "channels": {5: "online"},
            "price": "none",
        },
        category_balancing={"mode": "off"},
    )
    for config in (DatasetConfig(), changed):
        assert load_config(write(tmp_path, render_config(config))) == config


def test_printed_settings_are_below_their_meaning():
    text = render_config(DatasetConfig())
    assert "  channels: {1: offline, 2: online}\n" in text
    assert re.search(
        r"  # Negatives per positive [^:]*\(D12\)[^:]* From 0 to 256\.\n"
        r"  random_negatives_per_positive: 10\n",
        text,
    )
    assert "One of: chronological, shuffled." in " ".join(
        text.split("order: chronological")[0].split()
    )


def test_every_setting_is_documented():
    undocumented = [
        f"{type(section).__name__}.{name}"
        for section in sections(DatasetConfig())
        for name, field in type(section).model_fields.items()
        if not isinstance(getattr(section, name), Section) and not field.description
    ]
    assert undocumented == []


def test_every_setting_has_a_default_and_the_schema_names_it():
    schema = DatasetConfig.model_json_schema()
    assert set(schema["properties"]) == set(DatasetConfig.model_fields)
    assert "required" not in schema


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("negative_samplin: {}", "negative_samplin"),
        ("negative_sampling: {hard: 5}", "negative_sampling.hard"),
        ("split: {train_share: 0.9, val_share: 0.1}", "split"),
        ("output: {order: random}", "output.order"),
        ("filtering: {min_user_interactions: 0}", "filtering.min_user_interactions"),
        (
            "negative_sampling: {random_negatives_per_positive: 0, hard_negatives_per_positive: 0}",
            "negative_sampling",
        ),
        ("memory_optimization: {lazy_loading: false}", "memory_optimization.lazy_loading"),
        ("scalability_config: {turbo: 1}", "turbo"),
        ("inputs: {channels: {300: online}}", "300"),
        (
            "category_balancing: {target_distribution: [0.2, 0.6, 0.3]}",
            "category_balancing: target_distribution: found shares that sum to 1.1; expected 1.",
        ),
        (
            "category_balancing: {min_weight: 6}",
            "category_balancing: found min_weight 6.0 and max_weight 5.0; expected the minimum",
        ),
        (
            "negative_sampling: {similarity_threshold: 0.8}",
            "negative_sampling: found similarity_threshold 0.8 and similarity_ceiling 0.8; "
            "expected the threshold below the ceiling.",
        ),
        (
            "negative_sampling: {percentile_range: [0.5, 0.2]}",
            "negative_sampling: found percentile_range [0.5, 0.2]; expected the first share",
        ),
        (
            "negative_sampling: {percentile_range: [0.5, 0.5]}",
            "negative_sampling: found percentile_range [0.5, 0.5]; expected the first share",
        ),
        ("seed: -1", "seed: found -1; expected greater than or equal to 0."),
        ("output: {order: random}", "output.order: found 'random'; expected 'chronological' or"),
        ("negative_sampling: {score: {prise: 1}}", "score.prise: unknown key; did you mean price?"),
        ("negative_samplin: {}", "negative_samplin: unknown key; did you mean negative_sampling?"),
        ("zzz: 1", "  zzz: unknown key.\n"),
        ("- a list", "sections"),
        ("split: [", "YAML"),
        (
            "filtering: {min_user_interactions: 3}\n"
            "config_parameters: {filtering: {min_item_interactions: 2}}",
            "twice",
        ),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, text, named):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("split: 5", "split"),
        ("resources: [1]", "resources"),
        ("resources: fast", "resources"),
        ("category_balancing: true", "category_balancing"),
        ("output: 3\nscalability_config: {memory_optimization: {compression_level: 3}}", "output"),
        ("scalability_config: 4", "scalability_config"),
        ("config_parameters: [a, b]", "config_parameters"),
        ("profile: [a]", "profile"),
    ],
)
def test_a_section_of_the_wrong_kind_is_a_config_error(tmp_path, text, section):
    with pytest.raises(ConfigError, match=section):
        load_config(write(tmp_path, text))


def test_shares_that_sum_to_1_but_for_rounding_are_accepted():
    thirds = load_config(
        overrides=["category_balancing.target_distribution=[0.3333333, 0.3333333, 0.3333333]"]
    )
    assert sum(thirds.category_balancing.target_distribution) != 1
    with pytest.raises(ConfigError, match="target_distribution"):
        load_config(
            overrides=["category_balancing.target_distribution=[0.33333, 0.33333, 0.33333]"]
        )


def test_equal_minimal_and_maximal_weights_are_accepted():
    assert load_config(
        overrides=["category_balancing.min_weight=2", "category_balancing.max_weight=2"]
    )


def test_the_largest_pool_of_candidates_has_places_of_16_bits():
    """The kernel numbers a pool's candidates in int16; no accepted setting may need more."""

    def largest(name):
        bounds = [
            bound.le for bound in type(settings).model_fields[name].metadata if hasattr(bound, "le")
        ]
        return bounds[0]

    settings = DatasetConfig().negative_sampling
    buyers, items = largest("collaborative_buyers"), largest("collaborative_items")
    assert largest("item_cf_top_k") + buyers * items + largest("category_draws") <= 32_766


def test_an_empty_section_means_its_defaults(tmp_path):
    assert (
        load_config(write(tmp_path, "split:\nresources:\ncategory_balancing:\n")) == DatasetConfig()
    )


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_an_override_reads_its_value_as_yaml_and_makes_its_section():
    config = load_config(
        overrides=["negative_sampling.percentile_range=[0.1, 0.4]", "inputs.views=false"]
    )
    assert config.negative_sampling.percentile_range == (0.1, 0.4) and config.inputs.views is False


def test_an_override_beats_the_file_and_leaves_its_neighbours(tmp_path):
    file = write(tmp_path, "split: {train_share: 0.6, val_share: 0.2}")
    split = load_config(file, ["split.train_share=0.7"]).split
    assert (split.train_share, split.val_share) == (0.7, 0.2)


def test_an_override_beats_the_contracts_own_wrapping(tmp_path):
    config = load_config(
        write(tmp_path, CONTRACT), ["negative_sampling.hard_negatives_per_positive=8"]
    )
    assert config.negative_sampling.hard_negatives_per_positive == 8


@pytest.mark.parametrize("override", ["split.train_share", "=3", "split.train_share=[", "a.b=1"])
def test_an_override_that_cannot_be_used_is_a_config_error(override):
    with pytest.raises(ConfigError):
        load_config(overrides=[override])


def test_balancing_switched_off_is_mode_off():
    assert (
        load_config(overrides=["category_balancing.enable_balancing=false"]).category_balancing.mode
        == "off"
    )


def test_a_configuration_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        DatasetConfig().seed = 1


def test_usable_cores_are_those_the_process_may_run_on_else_all(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert count_usable_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert count_usable_cores() == 12
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert count_usable_cores() == 1


def test_threads_are_never_more_than_the_usable_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert DatasetConfig(resources={"num_workers": 64}).n_threads == 2
    assert DatasetConfig(resources={"num_workers": 1}).n_threads == 1


def test_shares_are_the_decimals_that_were_written():
    assert to_fraction(0.29) * 100 == 29 != 0.29 * 100 // 1


def test_rows_per_positive_counts_the_positive():
    assert DatasetConfig().rows_per_positive == 16


def test_a_dumped_configuration_reads_back():
    config = DatasetConfig(seed=3)
    assert (
        DatasetConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
        == config
    )
