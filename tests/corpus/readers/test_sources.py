import os

import pytest

from jaxlens import errors
from jaxlens.corpus.readers import documents, sources


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for name in (
        "b.txt",
        "a.jsonl.gz",
        "sub/deep/z.parquet",
        "sub/C.JSONL",
        "sub/y.ndjson.zst",
        "sub/notes.md",
        "README",
        ".hidden.txt",
        ".git/x.txt",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def names(*paths):
    return [source.name for source in sources.find(paths)]


def test_folder_gives_supported_files_sorted_without_hidden_ones(tree):
    expected = ["a.jsonl.gz", "b.txt", "sub/C.JSONL", "sub/deep/z.parquet", "sub/y.ndjson.zst"]
    assert names(tree) == expected
    assert documents.expand([tree]) == [tree / name for name in expected]


def test_pattern_gives_names_relative_to_its_fixed_part(tree):
    assert names(f"{tree}/*.txt") == ["b.txt"]
    assert names(f"{tree}/sub/*") == ["C.JSONL", "deep/z.parquet", "y.ndjson.zst"]
    assert names(f"{tree}/**/z.*") == ["sub/deep/z.parquet"]


def test_pattern_relative_to_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert names("s*b/*.JSONL") == ["sub/C.JSONL"]
    assert names("sub") == ["C.JSONL", "deep/z.parquet", "y.ndjson.zst"]


def test_order_of_the_arguments_is_kept(tree):
    assert names(tree / "sub" / "C.JSONL", tree / "b.txt") == ["C.JSONL", "b.txt"]


def test_one_path_needs_no_list(tree):
    assert [s.name for s in sources.find(str(tree / "b.txt"))] == ["b.txt"]


def test_file_reached_twice_is_read_once(tree):
    assert names(tree / "b.txt", tree, f"{tree}/*.txt", "packaged", "packaged") == [
        "b.txt",
        "a.jsonl.gz",
        "sub/C.JSONL",
        "sub/deep/z.parquet",
        "sub/y.ndjson.zst",
        "pydoc",
    ]


def test_equal_names_in_different_folders_stay_apart(tmp_path):
    for part in "ab":
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.txt").write_text(part)
    both = [tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt"]
    assert [d.id for d in documents.read(both)] == ["x.txt", "x.txt~2"]


def test_existing_file_with_pattern_characters_is_itself(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert names(tmp_path / "a[1].txt") == ["a[1].txt"]


@pytest.mark.parametrize(
    "name",
    [
        *("absent.txt", "absent/*.txt", "", "empty", "nul\0.txt", "nul\0/*.txt", "*\0"),
        *("\ud800.txt", "\ud800/*.txt"),
    ],
)
def test_name_that_matches_nothing_is_missing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    given = str(tmp_path / name) if name else name
    with pytest.raises(errors.MissingError) as caught:
        sources.find([given])
    assert caught.value.exit_code == 66


def test_home_folder_of_an_impossible_user_is_missing():
    for name in ("~nul\0/a.txt", "~\ud800/a.txt", "~nobody-of-this-name/a.txt"):
        with pytest.raises(errors.MissingError):
            sources.find([name])


@pytest.mark.parametrize("name", ["a.md", "a.gz", "a.parquet.gz", "a.txt.xz", "txt"])
def test_named_file_of_other_format_is_refused_with_the_supported_ones(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(errors.DataError) as caught:
        sources.find([tmp_path / name])
    assert caught.value.exit_code == 65
    assert all(suffix in caught.value.hint for suffix in (".txt", ".jsonl", ".zst", ".parquet"))


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    pipe = tmp_path / "p.jsonl"
    os.mkfifo(pipe)
    for given in (pipe, tmp_path, f"{tmp_path}/*"):
        with pytest.raises(errors.DataError, match="not a regular file"):
            sources.find([given])


def test_device_is_refused():
    with pytest.raises(errors.DataError, match="not a regular file"):
        sources.find([os.devnull])


def test_links_are_followed(tree, tmp_path):
    (tmp_path / "link.txt").symlink_to(tree / "b.txt")
    (tmp_path / "folder").symlink_to(tree / "sub")
    assert names(tmp_path / "link.txt") == ["link.txt"]
    assert names(tmp_path / "folder") == ["C.JSONL", "deep/z.parquet", "y.ndjson.zst"]


def test_link_to_its_own_folder_ends(tree):
    (tree / "sub" / "again").symlink_to(tree)
    assert names(tree)[:2] == ["a.jsonl.gz", "b.txt"]
    assert len(names(tree)) == 5


def test_broken_link_in_a_folder_is_passed_over_and_counted(tree):
    whole = [source.name for source in sources.find([tree])]
    (tree / "gone.txt").symlink_to(tree / "nowhere.txt")
    for given in (tree, f"{tree}/*.txt"):
        survey = sources.survey([given])
        assert {"gone.txt"}.isdisjoint(source.name for source in survey.sources)
        assert "1 link that leads nowhere" in " ".join(survey.report())
    assert [source.name for source in sources.find([tree])] == whole
    with pytest.raises(errors.MissingError, match=r"gone\.txt"):
        sources.find([tree / "gone.txt"])


def test_name_that_is_not_utf8_becomes_text(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.txt")
    try:
        with open(path, "wb") as stream:
            stream.write(b"text")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    (document,) = documents.read([tmp_path])
    assert document.id == "\ufffd.txt"
