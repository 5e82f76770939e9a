"""Mounted buckets, by tables of what is mounted."""

import pytest

from jaxlens import errors
from jaxlens.files import mounts

TABLE = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
my-bucket /mnt/gcs fuse.gcsfuse rw,nosuid 0 0
s3fs /mnt/s3fs fuse.s3fs rw 0 0
my-bucket /mnt/goofys fuse.goofys rw 0 0
mountpoint-s3 /mnt/aws fuse rw,nosuid,nodev 0 0
remote:bucket /mnt/rclone\\040drive fuse.rclone rw 0 0
/dev/fuse /mnt/sshfs fuse.sshfs rw 0 0
JuiceFS:x /mnt/juice fuse.juicefs rw 0 0
s3fs /srv/s3fs ext4 rw 0 0
tmpfs /mnt/gcs/local tmpfs rw 0 0
damaged
"""


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    path = tmp_path / "mounts"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "TABLE", path)
    return path


@pytest.mark.parametrize(
    ("folder", "program"),
    [
        ("/mnt/gcs/runs/gpt2", "gcsfuse"),
        ("/mnt/gcs", "gcsfuse"),
        ("/mnt/s3fs/run", "s3fs"),
        ("/mnt/goofys/run", "goofys"),
        ("/mnt/aws/run", "mountpoint-s3"),
        ("/mnt/rclone drive/run", "rclone"),
        ("/mnt/sshfs/../aws/run", "mountpoint-s3"),
        ("/mnt/gcs-not/run", None),
        ("/mnt/gcs/local/run", None),
        ("/mnt/sshfs/run", None),
        ("/mnt/juice/run", None),
        ("/srv/s3fs/run", None),
        ("/home/run", None),
    ],
)
def test_programs_are_found_by_what_is_mounted(folder, program):
    assert mounts.program_of(folder) == program
    if program is None:
        mounts.refuse_bucket(folder)
        return
    with pytest.raises(errors.ConfigError, match=f"in a bucket that {program} mounts") as raised:
        mounts.refuse_bucket(folder)
    assert "s3://" in raised.value.hint


def test_a_later_mount_in_the_same_place_counts(table):
    table.write_text(TABLE + "tmpfs /mnt/gcs tmpfs rw 0 0\n")
    assert mounts.program_of("/mnt/gcs/run") is None


def test_systems_without_a_table_have_none(table):
    table.unlink()
    assert mounts.program_of("/mnt/gcs/run") is None
