"""The number of a worker, from the variables of schedulers."""

import pytest
from sweeps import flags, refused

from jaxlens import config, errors
from jaxlens.sweep import ranks


def auto(environment, count=None):
    given = {"shard": "auto"} | ({} if count is None else {"shard_count": count})
    return ranks.of(config.load([], {}, given), environment)


def array(number, first, count, step=1):
    names = ("ID", "MIN", "COUNT", "STEP")
    values = (number, first, count, step)
    return {f"SLURM_ARRAY_TASK_{n}": str(v) for n, v in zip(names, values, strict=True)}


def srun(process, count):
    return {"SLURM_PROCID": str(process), "SLURM_NTASKS": str(count)}


def mpi(process, count):
    return {"OMPI_COMM_WORLD_RANK": str(process), "OMPI_COMM_WORLD_SIZE": str(count)}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (array(5, 1, 8), (4, 8)),
        (array(7, 1, 4, step=3), (2, 4)),
        (array(5, 1, 8) | {"SLURM_PROCID": "0"}, (4, 8)),  # as sbatch sets it without --ntasks
        (array(5, 1, 8) | srun(2, 3), (14, 24)),
        (srun(2, 3), (2, 3)),
        ({"SLURM_PROCID": "0"}, (0, 1)),
        (mpi(3, 4), (3, 4)),
        # On each node srun starts one daemon of mpirun, whose processes inherit its number.
        (mpi(3, 4) | srun(1, 2), (3, 4)),
    ],
)
def test_schedulers_number_their_workers(environment, expected):
    assert auto(environment) == expected


def test_every_process_of_every_task_has_a_number_of_its_own():
    found = {auto(array(4 + 2 * i, 4, 5, step=2) | srun(j, 3)) for i in range(5) for j in range(3)}
    assert found == {(number, 15) for number in range(15)}


def test_kubernetes_gives_the_index_and_we_the_count():
    assert auto({"JOB_COMPLETION_INDEX": "2"}, 6) == (2, 6)
    assert config.load([], {"JAXLENS_SHARD_COUNT": "6"}).shard_count == 6


@pytest.mark.parametrize(
    ("environment", "count", "what"),
    [
        ({}, None, "no scheduler has numbered this process"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, None, "SLURM_ARRAY_TASK_MIN is not set"),
        (array(7, 1, 3), None, "7 in an array of 3 tasks from 1 in steps of 1"),
        (array(2, 1, 3, step=2), None, "2 in an array of 3 tasks from 1 in steps of 2"),
        (array(0, 1, 3), None, "0 in an array"),
        (array(0, 0, 0), None, "0 in an array of 0 tasks"),
        (srun(3, 3), None, "SLURM_PROCID is 3 and SLURM_NTASKS is 3"),
        ({"SLURM_PROCID": "1"}, None, "SLURM_NTASKS is not set"),
        (mpi("x", 3), None, "OMPI_COMM_WORLD_RANK is 'x'"),
        (mpi("-1", 3), None, "OMPI_COMM_WORLD_RANK is '-1'"),
        ({"JOB_COMPLETION_INDEX": "2"}, None, "does not say how many pods"),
        ({"JOB_COMPLETION_INDEX": "2"}, 2, "JOB_COMPLETION_INDEX is 2 and JAXLENS_SHARD_COUNT"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(environment, count, what):
    with pytest.raises(errors.ConfigError, match="--shard auto: ") as caught:
        auto(environment, count)
    assert what in caught.value.message and caught.value.hint


def test_without_auto_the_environment_decides_nothing():
    assert ranks.of(config.load([], {}, {"shard": "1/4"}), array(0, 0, 2)) == (1, 4)
    assert ranks.of(config.load([], {}), array(0, 0, 2)) == (0, 1)


def test_the_command_line_refuses_before_it_reads_a_model(texts, tmp_path, capsys, monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_ARRAY_TASK_ID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    command = flags(tmp_path / "none", texts, tmp_path / "out")
    assert "no scheduler" in refused(capsys, 2, *command, "--shard", "auto")
