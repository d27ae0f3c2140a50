"""bdevperf as a process that is driven by RPC: started once, measured many times, and stopped (SIGSTOP) while others have their turn,
as a reactor polls all the time."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

from spdk.rpc.client import JSONRPCClient, JSONRPCException

# Seconds for a start, for one call, and for an end in order.
START = 60
CALL = 120
END = 10

CUTOFF = re.compile(r"^ *([0-9.]+)% : +([0-9.]+)us", re.MULTILINE)


class Failed(Exception):
    """A sentence for whoever runs the benchmark."""


class Result:
    """What one run of bdevperf has shown."""

    def __init__(self, jobs, printed):
        self.iops = sum(job["iops"] for job in jobs)
        self.mibps = sum(job["mibps"] for job in jobs)
        self.seconds = max(job["runtime"] for job in jobs)
        self.completed = round(sum(job["iops"] * job["runtime"] for job in jobs))
        self.max_us = max(job["max_latency_us"] for job in jobs)
        self.min_us = min(job["min_latency_us"] for job in jobs)
        # Of the first job, if there are several. The histogram has no bucket for a percentile that one before has already passed.
        summary = printed.partition("Latency summary")[2].split("Job: ")
        self.percentiles = [(float(at), float(us)) for at, us in CUTOFF.findall(summary[1] if len(summary) > 1 else "")]

    def percentile(self, wanted):
        """Microseconds under which that many percent of the I/Os were."""
        return next((us for at, us in self.percentiles if at >= wanted - 1e-6), self.max_us)


class Bdevperf:
    """One process, which measures the bdev of its configuration that is called `dut`."""

    def __init__(self, start, directory, name, calls, dut="Dut", cores="one", mib=256, options=(), flavour="preload", environment=()):
        self.name = name
        config, self.socket, self.output = (directory / ("%s.%s" % (name, kind)) for kind in ("json", "sock", "log"))
        config.write_text(json.dumps(document(calls)))
        command = start.command(cores, mib) + ["-r", str(self.socket), "-c", str(config), "-z", "-T", dut, "-l", *options]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True, env={**os.environ, "APP_FLAVOUR": flavour, **dict(environment)})
        self._wait_until_it_serves()

    def _wait_until_it_serves(self):
        deadline = time.monotonic() + START
        while not self.socket.exists() or not self._answers():
            if self.process.poll() is not None:
                raise Failed("%s did not start (exit %d):\n%s" % (self.name, self.process.returncode, self.tail()))
            if time.monotonic() > deadline:
                raise Failed("%s did not start within %d s:\n%s" % (self.name, START, self.tail()))
            time.sleep(0.02)
        self.threads = self._count_threads()

    def _count_threads(self):
        return len(self.call("thread_get_stats")["threads"])

    def _answers(self):
        try:
            self.call("framework_wait_init")
            return True
        except (JSONRPCException, OSError):
            return False

    def tail(self):
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-20:])

    def has_mapped(self, what):
        """Whether there is memory of this name, as the kernel lists it."""
        return what in pathlib.Path("/proc/%d/maps" % self.process.pid).read_text()

    def client(self):
        """A connection of its own, to be closed by `with`."""
        return JSONRPCClient(str(self.socket), timeout=CALL)

    def call(self, method, **params):
        with self.client() as client:
            return client.call(method, params)

    def perform(self, workload, depth=128, size=4096, seconds=1):
        """Runs a load, of whole seconds as bdevperf knows no others."""
        before = self.output.stat().st_size
        params = {"workload_type": workload, "queue_depth": depth, "io_size": str(size), "time_in_sec": seconds}
        try:
            jobs = self.call("perform_tests", **params)["results"]
        except (JSONRPCException, OSError) as error:
            raise Failed("%s of %s failed: %s\n%s" % (workload, self.name, error, self.tail())) from error
        # The thread of a load ends after the answer, and SPDK ends it by force, and breaks, if that takes five seconds: it must not
        # be stopped meanwhile. Each call is answered by a poller, so that this does not spin.
        while self._count_threads() > self.threads:
            pass
        with self.output.open("rb") as output:
            output.seek(before)
            return Result(jobs, output.read().decode(errors="replace"))

    @contextlib.contextmanager
    def performing(self, *args, **kwargs):
        """Runs a load while the block goes on; gives a function that says whether it still runs, and then its result."""
        results, errors = [], []

        def run():
            try:
                results.append(self.perform(*args, **kwargs))
            except Failed as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Running(thread, results)
        finally:
            thread.join()
        if errors:
            raise errors[0]

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(END)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Running:
    """A load that runs in a thread of its own."""

    def __init__(self, thread, results):
        self._thread = thread
        self._results = results

    def goes_on(self):
        return self._thread.is_alive()

    @property
    def result(self):
        """Once the block is over."""
        return self._results[0]


class Start:
    """How applications are started here."""

    CORES = {"one": "0x1", "two": "0x3"}

    def __init__(self, spdk, huge, count):
        self.spdk = spdk
        self.huge = huge
        self.memory = "--huge-unlink" if huge else "--no-huge"
        self.masks = dict(self.CORES)
        if count > 1:
            # The first core is where everything else of the machine tends to be.
            self.masks["one"] = "0x2"
        self.two_cores = count > 1

    def command(self, cores, mib):
        # It dies with us whatever happens, and leaves no file of a trace behind.
        return ["setpriv", "--pdeathsig", "KILL", self.spdk, "--fault", "bdevperf", self.memory, "-s", str(mib), "--no-pci",
                "--disable-cpumask-locks", "--num-trace-entries", "0", "-m", self.masks[cores]]


def document(calls):
    """A configuration of SPDK's. Fewer large buffers than usual, as many processes are there at the same time, and the loads bring
    their own."""
    few = {"method": "iobuf_set_options", "params": {"small_pool_count": 2048, "large_pool_count": 256}}
    return {"subsystems": [{"subsystem": "iobuf", "config": [few]}, {"subsystem": "bdev", "config": calls}]}


class Fleet:
    """Processes that are there at the same time, of which one runs."""

    def __init__(self, start, directory):
        self.start = start
        self.directory = directory
        self.members = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members.values():
            member.end()

    def add(self, name, calls, prepare=None, **how):
        """Starts one, has it prepared, and stops it until its turn."""
        member = self.members[name] = Bdevperf(self.start, self.directory, name, calls, **how)
        if prepare:
            prepare(member)
        member.pause()
        return member

    @contextlib.contextmanager
    def turn(self, name):
        """The one that runs meanwhile."""
        member = self.members[name]
        member.resume()
        try:
            yield member
        finally:
            member.pause()
