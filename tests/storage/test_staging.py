"""One rename publishes, no old dataset is lost, and nothing is left behind (D23)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gpu_dcgen.errors import OutputError
from gpu_dcgen.storage import staging as module
from gpu_dcgen.storage.staging import Staging


def data_set(folder: Path, text: str = "old") -> Path:
    (folder / "train_dataset.parquet").mkdir(parents=True)
    (folder / "train_dataset.parquet" / "part-00000.parquet").write_text(text)
    (folder / "manifest.json").write_text(json.dumps(text))
    return folder


def staged(output: Path, text: str = "new", *, overwrite: bool = False) -> Staging:
    """A dataset in its staging folder."""
    staging = Staging(output, overwrite)
    data_set(staging.path, text)
    return staging


def published(folder: Path) -> str:
    (part,) = folder.glob("*/*.parquet")
    assert json.loads((folder / "manifest.json").read_text()) == part.read_text()
    return part.read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_data_set_appears_whole_and_alone(tmp_path):
    output = tmp_path / "output"
    staging = staged(output)
    assert names(tmp_path) == [".output.staging"], "beside the output, so that a rename moves it"
    staging.publish()
    assert published(output) == "new"
    assert names(tmp_path) == ["output"]


def test_an_empty_folder_may_become_the_output(tmp_path):
    (tmp_path / "output").mkdir()
    staged(tmp_path / "output").publish()
    assert published(tmp_path / "output") == "new"
    assert names(tmp_path) == ["output"]


def test_an_output_that_is_there_is_replaced_only_when_asked(tmp_path):
    output = data_set(tmp_path / "output")
    with pytest.raises(OutputError, match=r"already exists\.\n.*overwrite=True"):
        Staging(output, overwrite=False)
    assert names(tmp_path) == ["output"]
    staging = staged(output, overwrite=True)
    assert published(output) == "old", "until the new one is whole"
    staging.publish()
    assert published(output) == "new"
    assert names(tmp_path) == ["output"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced(overwrite, tmp_path):
    (tmp_path / "output").write_text("years of work")
    with pytest.raises(OutputError, match="already exists"):
        Staging(tmp_path / "output", overwrite)
    assert (tmp_path / "output").read_text() == "years of work"
    assert names(tmp_path) == ["output"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not a dataset"):
        Staging(tmp_path / "output", overwrite=True)
    assert names(tmp_path / "output") == ["thesis.tex"]


def test_a_folder_called_manifest_makes_no_data_set(tmp_path):
    (tmp_path / "output" / "manifest.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not a dataset"):
        Staging(tmp_path / "output", overwrite=True)


def test_what_was_made_is_removed_with_its_new_parents(tmp_path):
    """Folders that were there stay, and so does a new one that has got something else in it."""
    (tmp_path / "there").mkdir()
    staged(tmp_path / "there" / "a" / "b" / "output").discard()
    assert names(tmp_path / "there") == []
    staging = staged(tmp_path / "there" / "a" / "b" / "output")
    (tmp_path / "there" / "a" / "note").write_text("mine")
    staging.discard()
    assert names(tmp_path / "there" / "a") == ["note"]


def test_a_parent_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/a: cannot be written to \(Not a directory\)"):
        Staging(tmp_path / "file" / "a" / "output", overwrite=False)
    assert names(tmp_path) == ["file"]


@pytest.fixture(params=["at once", "in two steps"])
def exchange(request, monkeypatch) -> str:
    """File systems that let two names change places, and those that cannot."""
    if request.param == "in two steps":
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    return request.param


def fails_to_rename(monkeypatch: pytest.MonkeyPatch, source: Path, error: BaseException) -> None:
    """Renames of `source` fail; all others work."""
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path == source:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)


def test_a_new_data_set_takes_the_place_of_the_old_one(exchange, tmp_path):
    output = data_set(tmp_path / "output")
    staged(output, overwrite=True).publish()
    assert published(output) == "new"
    assert names(tmp_path) == ["output"]


@pytest.mark.parametrize(
    "error",
    [OSError("Device or resource busy"), KeyboardInterrupt()],
    ids=["an error", "an interrupt"],
)
def test_a_failing_rename_brings_the_old_data_set_back(error, tmp_path, monkeypatch):
    output = data_set(tmp_path / "output")
    staging = staged(output, overwrite=True)
    monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    fails_to_rename(monkeypatch, staging.path, error)
    with pytest.raises(type(error)):
        staging.publish()
    assert published(output) == "old"
    staging.discard()
    assert names(tmp_path) == ["output"]


def test_an_old_data_set_that_cannot_be_moved_stays(tmp_path, monkeypatch):
    output = data_set(tmp_path / "output")
    staging = staged(output, overwrite=True)
    monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    fails_to_rename(monkeypatch, output, OSError("Device or resource busy"))
    with pytest.raises(OSError, match="busy"):
        staging.publish()
    staging.discard()
    assert published(output) == "old"
    assert names(tmp_path) == ["output"]


def test_names_that_cannot_change_places_are_an_error(tmp_path):
    data_set(tmp_path / "one")
    with pytest.raises(FileNotFoundError) as error:
        module._exchange(tmp_path / "one", tmp_path / "nothing")
    assert error.value.filename2 == str(tmp_path / "nothing")


def test_a_link_goes_on_pointing_to_its_folder(tmp_path):
    """What is replaced is the dataset behind the link, on its own disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").symlink_to(data_set(tmp_path / "disk" / "sets"))
    staging = staged(tmp_path / "output", overwrite=True)
    assert staging.folder.parent == (tmp_path / "disk").resolve()
    staging.publish()
    assert (tmp_path / "output").is_symlink()
    assert published(tmp_path / "disk" / "sets") == "new"
    assert names(tmp_path / "disk") == ["sets"]
    assert names(tmp_path) == ["disk", "output"]


def test_a_link_to_nothing_yet_may_be_the_output(tmp_path):
    (tmp_path / "output").symlink_to(tmp_path / "later")
    staged(tmp_path / "output").publish()
    assert (tmp_path / "output").is_symlink()
    assert published(tmp_path / "later") == "new"


def test_a_relative_output_is_found_again_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    staging = staged(Path("output"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    staging.publish()
    assert published(tmp_path / "output") == "new"


def test_every_file_and_folder_is_on_disk_before_the_name_points_to_them(tmp_path, monkeypatch):
    events = []
    flush, rename = module._flush, Path.rename
    monkeypatch.setattr(
        module, "_flush", lambda path: (events.append(os.path.normpath(path)), flush(path))
    )
    monkeypatch.setattr(
        Path, "rename", lambda path, target: (events.append("rename"), rename(path, target))[1]
    )
    staging = staged(tmp_path / "output")
    paths = {str(staging.path), *map(str, staging.path.rglob("*"))}
    staging.publish()
    assert len(paths) == 4
    marker = {str(staging.folder), str(staging.folder / "publishing")}
    assert set(events[: events.index("rename")]) == paths | marker
    assert events[events.index("rename") + 1 :] == [str(tmp_path.resolve())]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_during_the_build_is_not_touched(overwrite, tmp_path):
    staging = staged(tmp_path / "output", overwrite=overwrite)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="already exists"):
        staging.publish()
    assert (tmp_path / "output" / "thesis.tex").read_text() == "years of work"


def test_two_builds_of_one_output_do_not_meet(tmp_path):
    first = staged(tmp_path / "output")
    with pytest.raises(
        OutputError,
        match=rf"another build of it is running \(process {os.getpid()} on .*\)\.\nWait",
    ):
        Staging(tmp_path / "output", overwrite=True, resume=True)
    other = staged(tmp_path / "other")
    first.publish()
    other.publish()
    assert published(tmp_path / "output") == "new"
    assert names(tmp_path) == ["other", "output"]


def test_what_was_left_is_there_for_who_resumes(tmp_path):
    staged(tmp_path / "output").release_lock()
    staging = Staging(tmp_path / "output", overwrite=False, resume=True)
    assert published(staging.path) == "new"
    staging.publish()
    assert published(tmp_path / "output") == "new"
    assert names(tmp_path) == ["output"]


def test_who_may_not_replace_the_output_loses_nothing_that_was_left(tmp_path):
    staged(tmp_path / "output").release_lock()
    data_set(tmp_path / "output")
    with pytest.raises(OutputError, match="already exists"):
        Staging(tmp_path / "output", overwrite=False)
    staging = Staging(tmp_path / "output", overwrite=True, resume=True)
    assert published(staging.path) == "new"
    staging.discard()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_a_data_set_is_replaced_without_what_linux_alone_has(platform, tmp_path, monkeypatch):
    """No exchange of names; on Windows no flush of folders and no removal of an open file."""
    output = data_set(tmp_path / "output")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", platform)
        staged(output, overwrite=True).publish()
    assert published(output) == "new"
    assert names(tmp_path) == ["output"]


def test_a_name_leaves_room_for_that_of_the_staging_folder(tmp_path):
    longest = "ü" + "x" * (255 - len("..staging") - 2)
    staged(tmp_path / longest).publish()  # the file system agrees
    assert published(tmp_path / longest) == "new"
    with pytest.raises(
        OutputError, match="has 247 bytes, at most 246 can be used.\nChoose a shorter name"
    ):
        Staging(tmp_path / f"{longest}x", overwrite=False)
    assert names(tmp_path) == [longest]


def test_a_path_that_is_too_long_is_refused(tmp_path):
    deep = tmp_path.joinpath(*["x" * 200] * 20)
    with pytest.raises(
        OutputError, match="fewer than 4,096 can be used.\nChoose an OUTPUT with a shorter path"
    ):
        Staging(deep / "output", overwrite=False)
    assert names(tmp_path) == []


STEPS = ("before", "old aside", "exchanged", "new in place")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("died", STEPS)
def test_a_build_that_died_while_it_published_leaves_one_data_set_whole(died, resume, tmp_path):
    output = data_set(tmp_path / "output")
    staging = staged(output, overwrite=True)
    (staging.folder / "publishing").write_text(module._manifest_digest(staging.path))
    if died == "exchanged":
        module._exchange(staging.path, output)
    elif died != "before":
        output.rename(staging.folder / "old")
        if died == "new in place":
            staging.path.rename(output)
    staging.release_lock()
    version = "new" if died in ("exchanged", "new in place") else "old"

    following = Staging(output, overwrite=True, resume=resume)
    assert published(output) == version
    gone_on_from = names(following.path) != []
    assert gone_on_from == (resume and version == "old"), "what is published is not gone on from"
    following.discard()
    assert names(tmp_path) == ["output"]


def test_a_mount_point_is_no_output(tmp_path, monkeypatch):
    (tmp_path / "output").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "output")
    with pytest.raises(OutputError, match="is a mount point"):
        Staging(tmp_path / "output", overwrite=True)
