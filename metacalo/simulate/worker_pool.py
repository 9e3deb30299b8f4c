"""Worker processes side by side: showers come as they are finished, and a worker that dies is replaced."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from metacalo.errors import ConfigError, MetacaloError, SimulationError
from metacalo.simulate.job import Job, Shot
from metacalo.simulate.records import Deposits, read_message

__all__ = ["Pool", "WorkerReplacedWarning", "cores"]

ATTEMPTS = 3
_SOURCE = str(Path(__file__).parents[2])


class WorkerReplacedWarning(UserWarning):
    """A worker was killed; another one simulates the shower that it was at."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class Pool:
    """Simulates showers of a job in several processes; use as a context manager, which ends them all.

    Args:
        job: the setup.
        environment: variables of the processes besides this one's.
        logs: folder for what Geant4 prints; None leaves it on this process's standard error.
        ready: called with Geant4's version when the first process is set up.
    """

    def __init__(
        self, job: Job, environment: Mapping[str, str], logs: Path | None, ready: Callable[[str], object]
    ) -> None:
        self.job, self.logs, self._ready = job, logs, ready
        paths = [_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)}
        self.environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._running: set[_Worker] = set()
        self._lock, self._stopped = threading.Lock(), False
        self._done: queue.SimpleQueue[Deposits | str | MetacaloError | None] = queue.SimpleQueue()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._running:
                worker.process.kill()

    def showers(self, shots: Iterable[Shot], workers: int) -> Iterator[Deposits]:
        """Finished showers, in the order in which they are finished.

        Raises:
            ConfigError: Geant4 has no such physics.
            SimulationError: Geant4 stopped, or a shower killed `ATTEMPTS` workers.
        """
        waiting: queue.SimpleQueue[Shot] = queue.SimpleQueue()
        for shot in shots:
            waiting.put(shot)
        threads = [
            threading.Thread(target=self._serve, args=(waiting, number), daemon=True)
            for number in range(min(workers, waiting.qsize()))
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            found = self._done.get()
            if found is None:
                left -= 1
            elif isinstance(found, Deposits):
                yield found
            elif isinstance(found, str):
                warnings.warn(found, WorkerReplacedWarning, stacklevel=2)
            else:
                raise found

    def _serve(self, waiting: queue.SimpleQueue[Shot], number: int) -> None:
        """One process, and those that replace it, until no shower waits."""
        worker: _Worker | None = None
        try:
            while not self._stopped:
                try:
                    shot = waiting.get_nowait()
                except queue.Empty:
                    break
                for attempt in range(1, ATTEMPTS + 1):
                    worker = worker or self._start(number)
                    if (deposits := worker.simulate(shot)) is not None:
                        self._done.put(deposits)
                        break
                    status = self._end(worker)
                    worker = None
                    if self._stopped:
                        return
                    what = f"a worker ended within shower {shot.index} ({status})"
                    if attempt == ATTEMPTS:
                        raise SimulationError(f"{what}, {ATTEMPTS} times; go on with --resume, or another --seed")
                    self._done.put(f"{what}; another one takes it over")
        except (MetacaloError, OSError) as error:
            self._done.put(error if isinstance(error, MetacaloError) else SimulationError(f"no worker starts: {error}"))
        finally:
            if worker is not None:
                self._end(worker)
            self._done.put(None)

    def _start(self, number: int) -> _Worker:
        log = self.logs / f"worker-{number}.log" if self.logs else None
        with self._lock:
            if self._stopped:
                raise SimulationError("stopped")
            worker = _Worker(self.environment, log)
            self._running.add(worker)
        version = worker.set_up(self.job)
        if version is None:
            status = self._end(worker)
            raise SimulationError(
                f"Geant4 stopped before the first shower ({status}); --verbose shows what it prints, and "
                f"{self.job.physics} may need data that are not in {self.environment.get('G4LEDATA')}"
            )
        self._ready(version)
        return worker

    def _end(self, worker: _Worker) -> str:
        with self._lock:
            self._running.discard(worker)
        return worker.end()


class _Worker:
    """One process."""

    def __init__(self, environment: Mapping[str, str], log: Path | None) -> None:
        self.log = log
        errors = log.open("wb") if log else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metacalo.simulate.geant4_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environment),
        )
        if errors:
            errors.close()

    def set_up(self, job: Job) -> str | None:
        """Geant4's version; None where the process ended."""
        self._tell(job.to_json())
        message = read_message(self._output)
        if message is None:
            return None
        if message.kind == "failed":
            self.end()
            raise ConfigError(message.content.decode())
        return str(json.loads(message.content)["geant4"])

    def simulate(self, shot: Shot) -> Deposits | None:
        """The shower; None where the process ended."""
        self._tell(shot.to_json())
        message = read_message(self._output)
        if message is not None and message.kind == "failed":
            self.end()
            raise SimulationError(f"shower {shot.index}: {message.content.decode()}")
        return Deposits.from_bytes(message.content) if message else None

    @property
    def _output(self) -> BinaryIO:
        assert self.process.stdout is not None
        return self.process.stdout  # type: ignore[return-value]

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # reading will say so
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> str:
        """Waits for the end of the process, and says why it ended."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                with suppress(OSError):
                    stream.close()
        code = self.process.wait()
        return _last_words(self.log) or (f"signal {-code}" if code < 0 else f"exit code {code}")


def _last_words(log: Path | None) -> str:
    """What Geant4's last fatal exception says, on one line."""
    text = log.read_text(errors="replace") if log and log.is_file() else ""
    found = re.findall(r"EEEE -+ G4Exception-START(.*?)(?:\*\*\*|$)", text, re.DOTALL)
    return " ".join(found[-1].replace("-", " ").split())[:300] if found else ""
