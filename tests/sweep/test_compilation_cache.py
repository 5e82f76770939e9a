"""Compiled programs outlive a run, and nothing damaged or foreign is ever executed."""

import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys

import jax
import pytest
from sweeps import configure, digest, flags

from jaxlens.cli import read_texts
from jaxlens.sweep import cache, compilation_cache, run

CODE = "from jaxlens.cli.main import main; main()"


@pytest.fixture
def cached(tmp_path):
    """A cache folder."""
    return cache.folder(str(tmp_path / "cache"))


@pytest.fixture
def untold():
    """JAX without a folder of its own, as most users have it."""
    told = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", told)
    compilation_cache.compilation_cache.reset_cache()


def run_alone(tiny, texts, out, kept):
    """The command line in a process of its own; its log."""
    left_out = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {name: v for name, v in os.environ.items() if name not in left_out}
    command = [*flags(tiny, texts, out), "--set", f"cache={kept}"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def programs(folder):
    (found,) = pathlib.Path(folder).glob(f"*/{compilation_cache.FOLDER}")
    return {p.name: p.read_bytes() for p in found.iterdir() if p.name != "SEALS.json"}


def damage(folder, names):
    """Flips a bit of each program of these kinds."""
    chosen = random.Random(0)
    for path in sorted(folder.rglob("*-cache")):
        if path.name.startswith(names):
            data = bytearray(path.read_bytes())
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
            path.write_bytes(data)


@pytest.mark.long
def test_a_second_run_compiles_again_what_is_damaged_and_nothing_else(tiny, texts, tmp_path, swept):
    kept = tmp_path / "cache"
    run_alone(tiny, texts, tmp_path / "one", kept)
    made = programs(kept)
    small = ("jit_read", "jit_residuals", "jit__update")  # of the gate, and of the totals
    assert any(n.startswith("jit_apply") for n in made) and any(n.startswith(small) for n in made)
    damage(kept, small)
    damaged = programs(kept)
    times = {p: p.stat().st_mtime_ns for p in kept.rglob("*-cache")}
    run_alone(tiny, texts, tmp_path / "two", kept)
    again = programs(kept)
    # A loaded machine takes so long for small programs that some are kept for the first time.
    for path, time in times.items():
        if path.name.startswith(small):
            assert again[path.name] != damaged[path.name], path
        else:
            assert path.stat().st_mtime_ns == time, path
    assert all(digest(tmp_path / out) == digest(swept) for out in ("one", "two"))


@pytest.mark.long
def test_a_second_run_compiles_nothing_and_damaged_programs_are_compiled_again(
    tiny, texts, tmp_path, swept
):
    kept = tmp_path / "cache"
    run_alone(tiny, texts, tmp_path / "one", kept)
    made = programs(kept)
    assert any(name.startswith("jit_apply") for name in made)
    times = {p: p.stat().st_mtime_ns for p in kept.rglob("*-cache")}
    run_alone(tiny, texts, tmp_path / "two", kept)
    # A loaded machine takes so long for small programs that some are kept for the first time.
    assert {p: p.stat().st_mtime_ns for p in times} == times
    damage(kept, "")
    damaged = programs(kept)
    run_alone(tiny, texts, tmp_path / "three", kept)
    again = programs(kept)
    both = set(again) & set(made)
    assert any(name.startswith("jit_apply") for name in both)
    assert all(again[name] != damaged[name] for name in both)
    assert all(digest(tmp_path / out) == digest(swept) for out in ("one", "two", "three"))


def test_the_next_prompt_finds_the_programs_of_the_one_before(untold, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLENS_CACHE", str(tmp_path))
    kept = []
    for text in ("the quick brown fox", "a lazy dog while it rains in the old town"):
        jax.clear_caches()  # as in a new process
        read_texts.prompts(str(tiny), [text], ("final_norm",), (), 1)
        lens = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("jit__read-*-cache")}
        kept.append(lens)
    (seals,) = tmp_path.rglob("SEALS.json")
    assert len(kept[0]) == 1 and kept[0] == kept[1]
    assert {path.name for path in kept[1]} <= set(json.loads(seals.read_bytes()))


def program(name):
    """As JAX names its files."""
    return f"jit_{name}-{hashlib.sha256(name.encode()).hexdigest()}-cache"


def test_only_programs_with_a_true_seal_are_left(cached, untold):
    path = compilation_cache.enable(cached)
    good, flipped, late = map(program, ("good", "flipped", "late"))
    for name in (good, flipped, late):
        (path / name).write_bytes(name.encode())
        if name != late:
            compilation_cache.seal(path)
    (path / flipped).write_bytes(b"flipper")
    assert compilation_cache.enable(cached) == path
    assert sorted(p.name for p in path.iterdir()) == ["SEALS.json", good]
    for broken in (b"", b"[]", b"\xff", b"{" * 9, json.dumps({good: 3}).encode()):
        (path / good).write_bytes(good.encode())
        (path / "SEALS.json").write_bytes(broken)
        assert compilation_cache.enable(cached) == path
        assert [p.name for p in path.iterdir()] == ["SEALS.json"]


def test_programs_that_another_process_removes_are_no_failure(cached, untold, monkeypatch, caplog):
    """A run that starts removes what has no seal yet, also what another run has just written."""
    caplog.set_level("INFO")
    path = compilation_cache.enable(cached)
    kept, gone = program("kept"), program("gone")
    for step in ("_sha256", "_remove_oldest"):
        for name in (kept, gone):
            (path / name).write_bytes(name.encode())
        before = getattr(compilation_cache, step)

        def rival(file, before=before):
            (path / gone).unlink(missing_ok=True)
            return before(file)

        with monkeypatch.context() as patched:
            patched.setattr(compilation_cache, step, rival)
            compilation_cache.seal(path)
            assert list(json.loads((path / "SEALS.json").read_bytes())) == [kept]
            (path / gone).write_bytes(b"")
            assert compilation_cache.enable(cached) == path
        assert sorted(p.name for p in path.iterdir()) == ["SEALS.json", kept]
    assert not [one for one in caplog.records if one.name == "jaxlens"]


def test_two_sealed_programs_that_were_swapped_are_both_removed(cached, untold):
    """JAX itself would run each in the place of the other."""
    path = compilation_cache.enable(cached)
    one, two = path / program("one"), path / program("two")
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    compilation_cache.seal(path)
    one.write_bytes(b"2")
    two.write_bytes(b"1")
    assert compilation_cache.enable(cached) == path
    assert [p.name for p in path.iterdir()] == ["SEALS.json"]


def test_jax_names_its_files_as_is_believed_here(cached, untold):
    """Else nothing would be sealed, or be removed."""
    path = compilation_cache.enable(cached)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: x * 3 + len(str(path)))(jax.numpy.arange(7.0)).block_until_ready()
    made = [p.name for p in path.iterdir() if p.name.endswith("-cache")]
    assert made and all(compilation_cache._PROGRAM.fullmatch(name) for name in made)


def test_what_others_left_there_is_never_removed_nor_read(cached, untold, tmp_path):
    path = compilation_cache.enable(cached)
    (tmp_path / "precious").write_bytes(b"mine")
    for name in ("thesis.tex", "x-cache", "SEALS.json.bak"):
        (path / name).write_bytes(b"mine")
    (path / "folder").mkdir()
    (path / program("linked")).symlink_to(tmp_path / "precious")
    compilation_cache.seal(path)
    assert compilation_cache.enable(cached) == path
    left = {"thesis.tex", "x-cache", "SEALS.json.bak", "folder", "SEALS.json"}
    assert {p.name for p in path.iterdir()} == left
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert json.loads((path / "SEALS.json").read_bytes()) == {}


def test_the_oldest_go_first_where_there_are_too_many(cached, untold, monkeypatch):
    path = compilation_cache.enable(cached)
    for age, name in enumerate(map(program, ("new", "old", "oldest"))):
        (path / name).write_bytes(b"x" * 100)
        os.utime(path / name, (10**9 - age, 10**9 - age))
    monkeypatch.setattr(compilation_cache, "MAX_BYTES", 250)
    compilation_cache.seal(path)
    assert {p.name for p in path.iterdir()} == {"SEALS.json", program("new"), program("old")}


def test_a_folder_that_jax_was_told_is_left_alone(cached):
    assert jax.config.jax_compilation_cache_dir
    assert compilation_cache.enable(cached) is None
    assert not (cached / compilation_cache.FOLDER).exists()


def test_nothing_is_kept_where_others_could_write_or_nobody_can(tmp_path, caplog):
    path = cache.folder(str(tmp_path))
    assert path is not None and path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o770)
    assert cache.folder(str(tmp_path)) is None
    assert "others can write" in caplog.text
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cache.folder(str(blocked)) is None
    assert cache.folder("none") is None
    compilation_cache.seal(None)


def test_no_folder_is_followed_that_is_a_link_or_lies_where_others_can_write(tmp_path, caplog):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / program("mine")).write_bytes(b"mine")
    kind = cache.folder(str(tmp_path / "first")).name
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / kind).symlink_to(precious)
    (tmp_path / "third").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "cache").mkdir(mode=0o700)
    (tmp_path / "loop").symlink_to("loop")
    for told, why in {
        "second": "is a link",
        "open/cache": "others can write",
        "open/new": "others can write",
        "loop": "is a link",
    }.items():
        caplog.clear()
        assert cache.folder(str(tmp_path / told)) is None, told
        assert why in caplog.text
    assert not (tmp_path / "open" / "new").exists()
    cached = cache.folder(str(tmp_path / "third"))
    (cached / compilation_cache.FOLDER).symlink_to(precious)
    told = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert compilation_cache.enable(cached) is None
    finally:
        jax.config.update("jax_compilation_cache_dir", told)
    assert [p.name for p in precious.iterdir()] == [program("mine")]


def test_a_sticky_folder_and_our_own_links_are_no_danger(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert cache.folder(str(tmp_path / "tmp" / "cache")).parent == tmp_path / "tmp" / "cache"
    assert cache.folder(str(tmp_path / "link" / "cache")).parent == tmp_path / "real" / "cache"
    assert (tmp_path / "real" / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_belongs_to_others_is_not_used(tmp_path, caplog):
    for name in ("folder", "above/cache", "sticky/planted"):
        (tmp_path / name).mkdir(parents=True, mode=0o755)
    (tmp_path / "sticky").chmod(0o1777)
    (tmp_path / "sticky" / "link").symlink_to(tmp_path / "folder")
    for name in ("folder", "above", "sticky/planted", "sticky/link"):
        os.chown(tmp_path / name, 12345, 12345, follow_symlinks=False)
    for told in ("folder", "above/cache", "sticky/planted", "sticky/link"):
        caplog.clear()
        assert cache.folder(str(tmp_path / told)) is None, told
        assert "belongs to another user" in caplog.text
    assert not any((tmp_path / "folder").iterdir())


def test_a_run_goes_on_where_the_cache_cannot_be_used(tiny, texts, tmp_path, swept):
    blocked = tmp_path / "file"
    blocked.write_text("")
    run.run(configure(tiny, texts, tmp_path / "out", cache=str(blocked)))
    assert digest(tmp_path / "out") == digest(swept)


def test_machines_that_differ_do_not_share(monkeypatch, tmp_path):
    one = cache.folder(str(tmp_path))
    monkeypatch.setattr(cache.environment, "instructions", lambda: "fpu avx2")
    assert cache.folder(str(tmp_path)) != one
