"""Stage 10: the JSON files."""

from __future__ import annotations

from gpu_dcgen.contract.json_files import write_json


def test_json_is_for_people(tmp_path):
    write_json(tmp_path / "a.json", {"größe": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "größe": [\n  1\n ]\n}\n'
