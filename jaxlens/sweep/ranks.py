"""Which of how many workers a process is, from what its scheduler has put into the environment."""

from __future__ import annotations

from collections.abc import Mapping

from jaxlens import config_values, errors
from jaxlens.config import RunConfig

_HINT = "check how the job was started, or write --shard I/N"


def of(config: RunConfig, environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of this worker, from 0, and number of workers; ``(0, 1)`` without ``shard``.

    Args:
        config: Its ``shard`` is ``I/N`` or ``auto``.
        environment: Variables, which decide what ``auto`` means.

    Raises:
        ConfigError: No scheduler has numbered this process, or its numbers make no sense.
    """
    if config.shard != config_values.AUTO:
        return config_values.shard_of(config.shard)
    outer = _array_task(environment) or _indexed_pod(environment, config.shard_count)
    inner = _process(environment)
    if outer is None and inner is None:
        raise errors.ConfigError(
            "--shard auto: no scheduler has numbered this process",
            "SLURM, Open MPI and indexed jobs of Kubernetes do; elsewhere write --shard I/N",
        )
    # Each task of an array may itself start several processes.
    (task, tasks), (process, processes) = outer or (0, 1), inner or (0, 1)
    return task * processes + process, tasks * processes


def _process(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Place of a process among those that ``mpirun`` or ``srun`` has started."""
    if (place := _pair(environment, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")) is not None:
        return place
    if environment.get("SLURM_PROCID") == "0" and "SLURM_NTASKS" not in environment:
        return 0, 1  # a batch script without srun
    return _pair(environment, "SLURM_PROCID", "SLURM_NTASKS")


def _array_task(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Place of a task in an array of SLURM, which may begin at any number and go on in steps."""
    name = "SLURM_ARRAY_TASK_ID"
    if name not in environment:
        return None
    number, first, count = (
        _number(environment, key) for key in (name, "SLURM_ARRAY_TASK_MIN", _ARRAY_COUNT)
    )
    step = _number(environment, _ARRAY_STEP) if _ARRAY_STEP in environment else 1
    place, odd = divmod(number - first, max(1, step))
    if odd or not 0 <= place < count:
        raise errors.ConfigError(
            f"--shard auto: {name} is {number} in an array of {errors.count(count, 'task')} "
            f"from {first} in steps of {step}",
            "give the array as one range, such as --array=0-7, or write --shard I/N",
        )
    return place, count


_ARRAY_COUNT, _ARRAY_STEP = "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_STEP"


def _indexed_pod(environment: Mapping[str, str], count: int | None) -> tuple[int, int] | None:
    """Index of a pod of Kubernetes, which does not tell it how many there are."""
    name = "JOB_COMPLETION_INDEX"
    if name not in environment:
        return None
    if count is None:
        raise errors.ConfigError(
            f"--shard auto: {name} is set, but Kubernetes does not say how many pods there are",
            "set JAXLENS_SHARD_COUNT to the completions of the job",
        )
    return _within(name, _number(environment, name), "JAXLENS_SHARD_COUNT", count)


def _pair(environment: Mapping[str, str], rank: str, size: str) -> tuple[int, int] | None:
    if rank not in environment:
        return None
    return _within(rank, _number(environment, rank), size, _number(environment, size))


def _within(rank_name: str, rank: int, size_name: str, size: int) -> tuple[int, int]:
    if not rank < size:
        raise errors.ConfigError(
            f"--shard auto: {rank_name} is {rank} and {size_name} is {size}", _HINT
        )
    return rank, size


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise errors.ConfigError(f"--shard auto: {name} is not set", _HINT)
    if not config_values.is_number(text):
        raise errors.ConfigError(f"--shard auto: {name} is {errors.show(text)}", _HINT)
    return int(text)
