"""Output paths: nothing but a regular file is replaced, and the old one survives a full disk."""

import contextlib
import os
import pathlib
import resource
import shutil
import socket
import stat
import sys
import threading

import pytest
from sweeps import refused, run_cli

from jaxlens import errors
from jaxlens.files import outputs
from jaxlens.view.figures import files as pictures
from jaxlens.view.figures import svg

OLD, NEW = b"old", b"new" * 3000


@contextlib.contextmanager
def small_files(size):
    """A disk that takes so many bytes of a file, and no more; nor of Python's bytecode."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeps = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = keeps


def received(path, act):
    """What comes out of a pipe while something is done."""
    found = []
    reader = threading.Thread(target=lambda: found.append(pathlib.Path(path).read_bytes()))
    reader.start()
    result = act()
    reader.join(60)
    assert stat.S_ISFIFO(os.lstat(path).st_mode)
    return result, found[0]


def test_a_file_is_replaced_whole_and_its_mode_follows_the_umask(tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(OLD)
    path.chmod(0o600)
    before = os.umask(0o027)
    try:
        outputs.write(path, NEW)
        outputs.append(tmp_path / "lines", b"one\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == NEW
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, tmp_path / "lines")] == [0o640, 0o640]
    assert sorted(os.listdir(tmp_path)) == ["lines", "page.html"]


def test_files_that_belong_together_all_survive_a_full_disk(tmp_path):
    small, large = b"s" * 10, NEW
    for name in ("a.csv", "b.parquet"):
        (tmp_path / name).write_bytes(OLD)
    with small_files(1000), pytest.raises(errors.StorageError, match=r"cannot write .*b\.parquet"):
        outputs.write_all(tmp_path, {"a.csv": small, "b.parquet": large})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.csv": OLD, "b.parquet": OLD}
    paths = outputs.write_all(tmp_path, {"a.csv": small, "b.parquet": large})
    assert [path.read_bytes() for path in paths] == [small, large]
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "b.parquet"]


def test_the_old_file_survives_a_full_disk(tmp_path):
    from matplotlib import figure

    drawn = figure.Figure()
    drawn.add_subplot()
    for name, write in {
        "page.html": lambda path: outputs.write(path, NEW),
        "lines": lambda path: outputs.append(path, NEW),
        **{f"a{s}": lambda path: pictures.save(drawn, path) for s in pictures.FORMATS},
    }.items():
        path = tmp_path / name
        path.write_bytes(OLD)
        with small_files(1000), pytest.raises(errors.StorageError, match="cannot write"):
            write(path)
        assert path.read_bytes() == OLD, name
        write(path)
        assert path.stat().st_size > 1000
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize("write", [outputs.write, outputs.append])
def test_a_pipe_is_written_to(tmp_path, write):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "link")
    for name in ("pipe", "link"):
        assert received(tmp_path / "pipe", lambda n=name: write(tmp_path / n, NEW))[1] == NEW
    assert os.readlink(tmp_path / "link") == "pipe"


@pytest.mark.parametrize("write", [outputs.write, outputs.append])
def test_a_device_is_written_to(tmp_path, write):
    """A node like /dev/null, since a test that fails must not take away the real one."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
        path.read_bytes()
    except OSError as error:
        pytest.skip(f"needs root and devices: {error}")
    write(path, NEW)
    assert stat.S_ISCHR(os.lstat(path).st_mode) and os.listdir(tmp_path) == ["null"]


def test_the_real_null_device_is_left_to_users_who_could_not_replace_it():
    if os.access("/dev", os.W_OK):
        pytest.skip("this user could replace it")
    outputs.write("/dev/null", NEW)


def test_links_to_files_are_followed_and_stay(tmp_path):
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real"
    real.write_bytes(OLD)
    os.symlink("there/real", tmp_path / "one")
    os.symlink("one", tmp_path / "two")
    os.symlink(tmp_path / "there" / "new", tmp_path / "dangling")
    outputs.write(tmp_path / "two", NEW)
    outputs.write(tmp_path / "dangling", NEW)
    assert real.read_bytes() == NEW == (tmp_path / "there" / "new").read_bytes()
    assert sorted(os.listdir(tmp_path / "there")) == ["new", "real"]
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "dangling"))


def test_an_open_file_of_the_process_is_appended_to(tmp_path):
    """What /dev/stdout is: renaming over it would cut off what is printed later."""
    with (tmp_path / "printed").open("wb", buffering=0) as stream:
        stream.write(b"before ")
        os.symlink(f"/proc/self/fd/{stream.fileno()}", tmp_path / "stdout")
        outputs.write(tmp_path / "stdout", b"page ")
        stream.seek(0, os.SEEK_END)
        stream.write(b"after")
    assert (tmp_path / "printed").read_bytes() == b"before page after"


@pytest.mark.parametrize("write", [outputs.write, outputs.append])
def test_folders_sockets_and_loops_are_refused(tmp_path, write):
    (tmp_path / "folder").mkdir()
    os.symlink("loop", tmp_path / "loop")
    os.symlink("folder", tmp_path / "link")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket"))
    bound.close()
    before = sorted(os.listdir(tmp_path))
    for name, what in {
        "folder": "a directory",
        "link": "a directory",
        "socket": "a socket",
        "loop": "leads nowhere",
    }.items():
        with pytest.raises(errors.ConfigError, match=what):
            write(tmp_path / name, NEW)
    with pytest.raises(errors.StorageError, match="No such file"):
        write(tmp_path / "nowhere" / "x", NEW)
    assert sorted(os.listdir(tmp_path)) == before


def test_names_of_our_own_are_never_followed(tmp_path):
    (tmp_path / "precious").write_bytes(OLD)
    os.symlink("precious", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("link", "a link"), ("pipe", "a pipe")):
        with pytest.raises(errors.ConfigError, match=what):
            outputs.write(tmp_path / name, NEW, own=True)
    assert (tmp_path / "precious").read_bytes() == OLD
    outputs.write(tmp_path / "precious", NEW, own=True)
    assert (tmp_path / "precious").read_bytes() == NEW


@pytest.mark.parametrize(
    ("option", "start"),
    [
        ("html", b"<!doctype"),
        pytest.param("png", b"\x89PNG", marks=pytest.mark.long),
        pytest.param("svg", b"<?xml", marks=pytest.mark.long),
    ],
)
def test_show_writes_to_a_pipe(tmp_path, option, start):
    path = tmp_path / f"pipe.{option}"
    os.mkfifo(path)
    code, found = received(path, lambda: run_cli("show", "--" + option, path, "the old town"))
    assert code == 0 and found.lower().startswith(start.lower())


def test_the_report_and_the_study_follow_no_link_out_of_a_run(
    studied, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(svg, "svg", lambda plot, *ends: "<svg><defs></svg>")
    out = shutil.copytree(studied / "trained", tmp_path / "run")
    (tmp_path / "precious").write_bytes(OLD)
    (out / "report.html").symlink_to(tmp_path / "precious")
    (tmp_path / "elsewhere").mkdir()
    (out / "study").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(capsys, 2, "report", out)
    assert "leads out of" in refused(capsys, 65, "study", out)
    assert (tmp_path / "precious").read_bytes() == OLD and not os.listdir(tmp_path / "elsewhere")
    assert run_cli("report", out, "--out", out / "report.html") == 0  # named by the user
    assert (tmp_path / "precious").read_bytes().startswith(b"<!doctype html>")


@pytest.mark.parametrize("to", ["parquet", "csv", "hdf5"])
def test_an_export_replaces_nothing(swept, tmp_path, capsys, to):
    path = tmp_path / f"rows.{to.replace('hdf5', 'h5')}"
    os.mkfifo(path)
    os.symlink("nothing", link := tmp_path / f"link{path.suffix}")
    for target in (path, link):
        assert "exists" in refused(capsys, 2, "export", swept, "--to", to, "--out", target)
    assert stat.S_ISFIFO(os.lstat(path).st_mode) and link.is_symlink()


def _order_of(command, studied, out):
    """A command that writes several files of our names into a folder of the user."""
    trained, other = studied / "trained", studied / "random-1"
    if command == "report":  # the page is not what is asked about
        return ("report", trained, "--out", out.parent / "page.html", "--figures", out)
    runs = (trained, other) if command == "compare" else (trained,)
    return (command, *runs, "--out", out)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("study", "results.csv"),
        pytest.param("compare", "comparison.json", marks=pytest.mark.long),
        ("compare", "comparison.svg"),
        ("report", "Q0-depth.svg"),
    ],
)
def test_what_is_planted_under_our_names_in_a_folder_is_refused(
    studied, tmp_path, capsys, monkeypatch, command, name
):
    monkeypatch.setattr(svg, "svg", lambda plot, *ends: "<svg><defs></svg>")
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_bytes(OLD)
    precious.chmod(0o600)
    out.mkdir()
    order = _order_of(command, studied, out)
    (out / name).symlink_to(precious)
    assert "is a link" in refused(capsys, 2, *order)
    assert precious.read_bytes() == OLD and stat.S_IMODE(precious.stat().st_mode) == 0o600
    (out / name).unlink()
    os.mkfifo(out / name)
    assert "is a pipe" in refused(capsys, 2, *order)
    (out / name).unlink()
    (out / name).write_bytes(OLD)
    (tmp_path / "link").symlink_to(out)  # of a folder that the user names, a link is followed
    before = os.umask(0o027)
    try:
        assert run_cli(*_order_of(command, studied, tmp_path / "link")) == 0
    finally:
        os.umask(before)
    assert (out / name).read_bytes() != OLD
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o640}


def test_a_name_that_is_taken_is_found_before_any_file_is_written(tmp_path):
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(errors.ConfigError, match="is a link"):
        outputs.write_all(tmp_path, {"a": NEW, "b": NEW})
    assert os.listdir(tmp_path) == ["b"]
    (tmp_path / "b").unlink()
    made = tmp_path / "new" / "folder"
    assert outputs.write_all(made, {"a": NEW, "b": OLD}) == [made / "a", made / "b"]
    assert [(made / name).read_bytes() for name in "ab"] == [NEW, OLD]


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.h5", "tallies"])
def test_where_an_export_may_go(swept, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    to = {"x.csv": "csv", "x.parquet": "parquet", "x.h5": "hdf5", "tallies": "csv"}[name]
    order = ["export", swept, "--to", to, *["--tallies"] * (name == "tallies"), "--out"]
    os.mkdir("folder")
    os.mkdir(f"folder/{name}")
    os.mkfifo(name)
    os.symlink("nothing", f"folder/link-{name}")
    for there in (name, f"folder/{name}", f"folder/link-{name}"):
        assert "exists" in refused(capsys, 2, *order, there)
    os.symlink(swept, "run")
    for inside in (swept / name, f"run/{name}", f"folder/../run/shards/{name}"):
        assert "is inside the run" in refused(capsys, 2, *order, inside)
    if name != "tallies":
        told = refused(capsys, 74, *order, f"missing/{name}")
        assert f"missing/{name}: No such file" in told and "cannot write" in told
        assert "create the folder" in told and "Errno" not in told
        for other in ("/dev/null", "x.txt", "."):
            assert "does not name a file for" in refused(capsys, 2, *order, other)
    assert sorted(os.listdir("folder")) == [f"link-{name}", name] and not os.path.exists("missing")
    os.symlink("folder", "way")
    assert run_cli(*order, f"way/new-{name}") == 0  # a link to a folder is a folder
    assert os.path.exists(f"folder/new-{name}")


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_benchmark_looks_at_its_paths_before_it_measures(tmp_path, capsys, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxlens.bench.measure.measure", lambda *given: pytest.fail("it measures"))
    os.mkdir("folder.svg")
    os.symlink("loop.svg", "loop.svg")
    assert "is a directory" in refused(capsys, 2, "bench", option, "folder.svg")
    assert "leads nowhere" in refused(capsys, 2, "bench", option, "loop.svg")
    told = refused(capsys, 74, "bench", option, "missing/x.svg")
    assert "mkdir -p missing" in told
    assert sorted(os.listdir()) == ["folder.svg", "loop.svg"]


@pytest.mark.parametrize(
    "command",
    ["study loop", "repair loop", "verify loop", "finalize loop", "run --out loop", "export loop"],
)
def test_a_folder_that_is_a_loop_of_links_is_no_defect(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    words = command.split() + (["--to", "csv"] if command.startswith("export") else [])
    code = run_cli(*words)
    printed = capsys.readouterr().err
    assert code in (65, 66, 74) and "internal" not in printed and "loop" in printed
