"""Tasks on a cluster: each is answered once, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dse.cluster import tasks
from dse.cluster.connection import Connection
from dse.cluster.groups import GroupSize
from dse.cluster.pool import ClusterPool
from dse.cluster.remote import SupersededError, do_task, packed
from dse.cluster.tasks import Tasks
from dse.cluster.versions import versions
from dse.core.errors import InputError
from dse.table.fill import map_workload
from dse.table.plan import make_plan
from dse.workload.layers import Layer, Workload
from tests.dse.fakes import FakeEngine
from tests.processes import needs_proc, until, until_gone

SMALL = {"C": 4, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3}
NET = Workload("net", (Layer("first", "conv", SMALL), Layer("second", "conv", SMALL | {"M": 4})))


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with Connection("local:2") as opened:
        yield opened


@pytest.fixture
def pool(connection: Connection) -> ClusterPool:
    return ClusterPool(connection)


def double(number: int) -> int:
    return 2 * number


def wait_and_double(number: int) -> int:
    time.sleep(0.5)
    return 2 * number


def _first_time(file: Path) -> bool:
    try:
        file.open("x").close()
    except FileExistsError:
        return False
    return True


def end_once(job: tuple[Path, int]) -> int:
    """Ends its worker at the first of all calls that share a file."""
    file, number = job
    if number == 3 and _first_time(file):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def stop_once(job: tuple[Path, int]) -> int:
    """Stops its worker at the first call, as a machine that is cut off."""
    file, number = job
    if number == 3 and _first_time(file):
        file.with_suffix(".pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    return 2 * number


def end_always(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise InputError("layer", f"found {number}", "another")


def fail(number: int) -> int:
    raise ZeroDivisionError(number)


def superseded_once(file: Path) -> str:
    if _first_time(file):
        raise SupersededError
    return "done"


def refuse_last(number: int) -> int:
    if number == 59:
        raise InputError("layer", f"found {number}", "another")
    return number


def length(shared: bytes, number: int) -> int:
    return len(shared) + number


def test_each_task_is_answered_once(pool: ClusterPool) -> None:
    assert sorted(pool.answers(double, range(40))) == [2 * n for n in range(40)]
    assert pool.alone(0) and not pool.alone(1)
    assert pool.described(5) == "2 workers of local:2"


def test_short_tasks_are_sent_together(pool: ClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, bool]] = []
    begin = Tasks.begin

    def counting(self: Tasks[tuple[int, bool]], name: tuple[int, bool], *arguments: object) -> None:
        sent.append(name)
        begin(self, name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Tasks, "begin", counting)
    learn = GroupSize.learn
    monkeypatch.setattr(GroupSize, "learn", lambda self, tasks, seconds: learn(self, tasks, 0.001 * tasks))
    assert sorted(pool.answers(double, range(400))) == [2 * n for n in range(400)]
    assert len(sent) < 200
    sent.clear()
    assert sorted(ClusterPool(pool.connection, group_s=0).answers(double, range(40))) == [2 * n for n in range(40)]
    assert len(sent) == 40


def test_what_a_group_leaves_is_done_by_another(pool: ClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.cluster.pool.GroupSize.of", lambda self, waiting, under_way: min(5, waiting))
    short = ClusterPool(pool.connection, group_s=1e-9)  # each group ends after its first task
    assert sorted(short.answers(double, range(12))) == [2 * n for n in range(12)]


def test_answers_before_a_refusal_are_not_lost(pool: ClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.cluster.pool.GroupSize.of", lambda self, waiting, under_way: waiting)
    found = []
    with pytest.raises(InputError, match="found 59"):
        for answer in pool.answers(refuse_last, range(60)):
            found.append(answer)
    assert found == list(range(59))


def test_workers_share_data(pool: ClusterPool) -> None:
    assert sorted(pool.answers(length, [1, 2, 3], b"four")) == [5, 6, 7]


def test_a_task_whose_worker_is_killed_is_done_again(pool: ClusterPool, tmp_path: Path) -> None:
    answers = pool.answers(end_once, [(tmp_path / "ended", n) for n in range(8)])
    assert sorted(answers) == [2 * n for n in range(8)]
    assert (tmp_path / "ended").exists()


def test_workers_that_are_killed_while_they_start_are_started_again(
    pool: ClusterPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_RESTORE_S", 0.2)
    nannies, killed = pool.connection.cluster.client.cluster.workers, set[int]()

    def kill_all() -> bool:
        for nanny in list(nannies.values()):
            if nanny.pid and nanny.pid not in killed:
                os.kill(nanny.pid, signal.SIGKILL)
                killed.add(nanny.pid)
        return len(killed) >= 6

    thread = threading.Thread(target=until, args=(kill_all,))
    thread.start()
    assert sorted(pool.answers(wait_and_double, range(8))) == [2 * n for n in range(8)]
    thread.join()


def test_a_task_of_a_worker_that_is_cut_off_is_done_by_another(
    pool: ClusterPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.cluster.pool.SLOW_S", 0.2)
    answers = list(pool.answers(stop_once, [(tmp_path / "stopped", n) for n in range(8)]))
    assert sorted(answers) == [2 * n for n in range(8)]
    with suppress(ProcessLookupError):  # on a busy machine its nanny has already given it up
        os.kill(int((tmp_path / "stopped.pid").read_text()), signal.SIGCONT)  # it is back: its answer is not wanted
    assert sorted(pool.answers(double, range(4))) == [0, 2, 4, 6]


def test_tasks_that_end_every_worker_are_an_error(pool: ClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MOST_LOSSES", 1)
    with pytest.raises(InputError, match=r"^--cluster: \d+ workers have ended with the same task"):
        list(pool.answers(end_always, [1]))


def test_what_a_task_refuses_and_a_defect(pool: ClusterPool) -> None:
    with pytest.raises(InputError, match=r"^layer: found 1 \(allowed: another\)$"):
        list(pool.answers(refuse, [1]))
    with pytest.raises(RuntimeError, match=r"(?s)a worker failed:\n.*ZeroDivisionError: 1"):
        list(pool.answers(fail, [1]))


def test_a_task_that_another_worker_has_begun_since_is_sent_again(connection: Connection, tmp_path: Path) -> None:
    with Tasks[str](connection.cluster) as under_way:
        under_way.begin("only", superseded_once, tmp_path / "superseded")
        found = None
        while found is None:
            found = under_way.wait(1.0)
    assert found == ("only", "done")


def test_work_that_is_left_early_is_cancelled(pool: ClusterPool) -> None:
    answers = pool.answers(time.sleep, [0.0, *[0.5] * 20])
    next(answers)
    answers.close()
    client = pool.connection.cluster.client
    until(lambda: not client.processing() or not any(client.processing().values()))
    assert list(pool.answers(double, [1])) == [2]


def test_a_worker_with_other_sources_is_named() -> None:
    wanted = replace(versions(), sources="another", python="3.0")
    outcome = do_task(packed(double, 1), wanted, 0)
    assert outcome.error is not None
    assert "--cluster: worker" in str(outcome.error)
    assert f"has sources of ENOS {versions().sources}, not another, Python {versions().python}, not 3.0" in str(
        outcome.error
    )


def test_a_table_has_the_rows_of_one_process(pool: ClusterPool, tmp_path: Path) -> None:
    engine = FakeEngine()
    there = map_workload(NET, engine=engine, store=tmp_path / "a", jobs=pool)
    here = map_workload(NET, engine=engine, store=tmp_path / "b", jobs=1)
    assert there.rows == here.rows and len(there.rows) == len(make_plan(NET, engine=engine).rows)


def test_the_real_mapper_has_the_rows_of_one_process(pool: ClusterPool, tmp_path: Path) -> None:
    small = Workload("small", NET.layers[:1])
    there = map_workload(small, store=tmp_path / "a", jobs=pool, remainders=False)
    assert there.rows == map_workload(small, store=tmp_path / "b", jobs=1, remainders=False).rows


@needs_proc
def test_nothing_is_left_when_a_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONSAFEPATH", "PYTHONHASHSEED", "DASK_LOGGING__DISTRIBUTED"):  # what Dask sets
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with Connection("local:2") as opened:
        pids = set(ClusterPool(opened).answers(_pid, range(8)))
    assert pids
    until_gone(pids)
    assert dict(os.environ) == before


def _pid(_: int) -> int:
    return os.getpid()
