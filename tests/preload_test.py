#!/usr/bin/env python3
"""libannulet-posix before libc: what it exports, what it costs, and programs that it must not change.

usage: preload_test.py BUILD
"""

import contextlib
import errno
import http.server
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

from cases import Cases

SOURCES = pathlib.Path(__file__).resolve().parent / "preloaded"
SECONDS_ALLOWED = 60
ENGINES = ("uring", "epoll")

NAMES = set(
    """
    select pselect poll ppoll epoll_wait epoll_pwait epoll_pwait2 sleep usleep nanosleep clock_nanosleep read
    write readv writev recv recvfrom recvmsg send sendto sendmsg accept accept4 connect close getaddrinfo
    __poll_chk __ppoll_chk __read_chk __recv_chk __recvfrom_chk
    """.split()
)
MOST_NANOSECONDS = 5.0


class Built:
    """The libraries, and the programs in C, in a directory of their own."""

    def __init__(self, build, scratch):
        self.build = pathlib.Path(build).resolve()
        self.scratch = scratch
        self.library = self.build / "libannulet-posix.so.0"
        self.after = scratch / "libafter.so"
        self.compile("after.c", self.after, "-shared", "-fPIC")
        self.alone = self.compile("alone.c", scratch / "alone")
        self.cost = self.compile("cost.c", scratch / "cost")
        found = [f"-L{self.build}", f"-L{scratch}", f"-Wl,-rpath,{self.build}:{scratch}"]
        plain = [*found, "-lannulet-posix", "-lannulet"]  # libc comes next
        libraries = [*plain, "-lafter"]
        self.entered = self.compile("entered.c", scratch / "entered", *libraries)
        self.each_name = self.compile("each_name.c", scratch / "each_name", *libraries)
        self.quiet_fork = self.compile("quiet_fork.c", scratch / "quiet_fork", *plain)
        static = [self.build / "libannulet.a", "-lstdc++", "-lboost_context", "-luring"]
        hidden = ["-DCALLS_BY_OUR_NAME", "-Wl,--exclude-libs,libannulet.a", *static]
        beside = [f"-L{self.build}", f"-Wl,-rpath,{self.build}", "-Wl,--no-as-needed", "-lannulet-posix"]
        self.static_hubs = [
            self.compile("static_hub.c", scratch / "static_hub", "-rdynamic", *static),
            self.compile("static_hub.c", scratch / "static_hidden", "-rdynamic", *hidden),
        ]
        self.static_beside = [
            self.compile("static_hub.c", scratch / "static_beside", *static, *beside),
            self.compile("static_hub.c", scratch / "static_hidden_beside", *hidden, *beside),
        ]

    def compile(self, source, program, *flags):
        strict = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{self.build}/include")
        subprocess.run(["gcc", *strict, SOURCES / source, "-o", program, *flags], check=True)
        return program

    def preloaded(self, *more):
        return {"LD_PRELOAD": ":".join(map(str, (self.library, *more)))}


def ended(command, environment=None, **options):
    """How a program ended, and what it said."""
    env = os.environ | (environment or {})
    done = subprocess.run(
        [str(word) for word in command],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_ALLOWED,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


def symbols(library, which):
    command = ("nm", "-D", which, "--format=posix", library)
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {re.sub("@.*", "", line.split()[0]) for line in listed.splitlines()}


def wrong_exports(built):
    exported = symbols(built.library, "--defined-only")
    return [f"exports {name}" for name in exported - NAMES] + [f"lacks {name}" for name in NAMES - exported]


def circles(built):
    """What annulet itself would ask of the library that asks annulet."""
    library = built.build / "libannulet.so.0"
    asked = symbols(library, "--undefined-only") & NAMES
    listed = subprocess.run(("readelf", "-rW", library), capture_output=True, text=True, check=True).stdout
    by_name = set(re.findall(r"JUMP_SLO\w*\s+\w+\s+(annulet_\w+)", listed))
    return [f"libannulet calls {name}" for name in asked - {"getaddrinfo"} | by_name]


def wrong_cost(built):
    status, said, error = ended((built.cost, built.after), built.preloaded(built.after))
    if status != 0:
        return [f"ended with {status}: {error}"]
    print(f"note: a call costs {said.strip()} ns more on a thread without a hub")
    return [] if float(said) <= MOST_NANOSECONDS else [f"a call costs {said.strip()} ns more"]


# --- programs that know nothing of it ---


def without_times(end):
    """How long curl tried differs from try to try."""
    status, said, error = end
    return status, said, re.sub(r"after \d+ ms", "after some ms", error)


def differences(built, command, plainly=None, **options):
    """Between a program alone and with the library; `plainly` is the status that it must have alone."""
    alone = ended(command, **options)
    preloaded = ended(command, built.preloaded(), **options)
    wrong = [] if plainly is None or alone[0] == plainly else [f"alone it ends with {alone[0]}: {alone[2]}"]
    same = without_times(alone) == without_times(preloaded)
    return wrong + ([] if same else [f"alone {alone}", f"with the library {preloaded}"])


BASH = r"""
trap 'echo trapped' USR1
for i in 1 2 3; do echo $i; done | while read -r n; do echo $((n * n)); done
kill -USR1 $$
read -r line < <(sleep 0.1; echo late)
echo "$line"
read -r -t 0.1 none < <(sleep 1) || echo "nothing: $?"
(exec 5<>/dev/null; echo x >&5; exit 2) || echo "subshell: $?"
sleep 0.2 & wait $!
exec 3>&-
exit 7
"""
PYTHON = r"""
import asyncio, os, select, signal, socket, subprocess, sys, threading, time
a, b = socket.socketpair()
threading.Thread(target=lambda: (time.sleep(0.05), a.sendall(b"from a thread"))).start()
print(select.select([b], [], [], 5)[0] == [b], b.recv(100))
print(subprocess.run(["sh", "-c", "cat; exit 3"], input=b"piped", capture_output=True))
signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
async def many():
    async def echo(reader, writer):
        writer.write(await reader.read(5)); await writer.drain(); writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async def ask(i):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%05d" % i)
        return int(await reader.read(5))
    print(sum(await asyncio.gather(*(ask(i) for i in range(50)))))
asyncio.run(many())
pid = os.fork()
if pid == 0:
    os.closerange(3, 256)
    os._exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
sys.exit(5)
"""
GIT = r"""
set -e
git init -q -b main here
cd here
for i in 1 2 3; do echo "$i" > "file$i"; git add .; git commit -q -m "Commit $i"; done
git log --format='%H %s'
git clone -q "file://$PWD" ../there
git -C ../there fsck --full 2>&1
git -C ../there gc -q
git -C ../there log --stat | cat
git grep -n 2 || echo none
git show no-such-thing
"""


def told_by_git(built):
    person = {"NAME": "A", "EMAIL": "a@b.invalid", "DATE": "2020-01-01T00:00:00Z"}
    roles = ("AUTHOR", "COMMITTER")
    someone = {f"GIT_{role}_{what}": text for role in roles for what, text in person.items()}
    results = []
    for environment in ({}, built.preloaded()):
        with tempfile.TemporaryDirectory() as folder:
            home = {"HOME": folder, "GIT_CONFIG_NOSYSTEM": "1"}
            status, said, error = ended(("bash", "-c", GIT), someone | home | environment, cwd=folder)
            results.append((status, said, error.replace(folder, "")))
    wrong = [] if results[0][0] == 128 and "Commit 3" in results[0][1] else [f"alone {results[0]}"]
    return wrong + ([] if results[0] == results[1] else [f"alone {results[0]}", f"with it {results[1]}"])


@contextlib.contextmanager
def serving():
    """The address of an HTTP server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"x" * 1_000_000 if self.path == "/large" else self.path.encode()
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def told_by_curl(built):
    with serving() as address:
        curl = ("curl", "-sS", "--noproxy", "*")
        several = (f"{address}/a", f"{address}/large", f"{address}/b")
        return (
            differences(built, (*curl, *several), 0)
            + differences(built, (*curl, "--parallel", "--fail", f"{address}/none"), 22)
            + differences(built, (*curl, "-m", "5", "http://127.0.0.1:1/"), 7)
            + differences(built, (*curl, "-m", "20", "http://nobody.invalid/"), 6)
        )


# --- programs in C ---

ALONE = {"forks": 0, "execs": 5, "daemonizes": 0, "closes_all": 0, "blocks_signals": 0, "is_cancelled": 0,
         "calls_at_exit": 6}  # fmt: skip

WAITS = """poll: 0, others ran
select: 0, others ran
recv: -1, others ran
read: -1, others ran
sleep: 0, others ran
"""
ENTERED = {
    "parks": (0, WAITS),
    "resolves": (0, "0 1 1 1 10\n"),
    "is_killed_resolving": (0, "1 1, freed 0 then 1\n"),
    "resolves_in_handler": (0, "0, beats 0 then 10\n"),
    "forks": (0, "child ended with 4\n30 beats\n"),
    "daemonizes": (0, "1 d, 0\n"),
    "closes_all": (0, "1, 10 beats\n"),
    "locks": (0, "1 0\n"),
    "calls_at_exit": (7, "at exit: 1 1\n"),
    "vforks": (0, "5 1 1\n"),
    "is_interrupted": (0, "1 1 1\n"),
    "blocks_signals": (0, "1 1 1\n"),
    "execs": (1, "0\n"),  # what grep returns that finds none
    "exits_resolving": (6, ""),
}


def wrong_entered(built, act, engine):
    expected = ENTERED[act]
    status, said, error = ended((built.entered, act), {"ANNULET_ENGINE": engine})
    return [] if (status, said, error) == (*expected, "") else [f"{status}: {said!r} {error!r}"]


# What a call returns that waits, and its errno, where what it waits for is done; and killed.
WAITED = dict.fromkeys(NAMES, "1 0") | dict.fromkeys(
    ("sleep", "usleep", "nanosleep", "clock_nanosleep", "connect", "close", "getaddrinfo"), "0 0"
)
KILLED = dict.fromkeys(NAMES, "-1 ECANCELED") | {
    "sleep": "0 ECANCELED",  # seconds that were left
    "clock_nanosleep": f"{errno.ECANCELED} 0",
    "close": "0 0",
}


def wrong_names(built, how, expected, engine):
    status, said, error = ended((built.each_name, how), {"ANNULET_ENGINE": engine})
    lines = set(said.splitlines())
    wanted = {f"{name} parked {result}" for name, result in expected.items()}
    wrong = sorted(f"not expected: {line}" for line in lines - wanted)
    missing = sorted(f"missing: {line}" for line in wanted - lines)
    return wrong + missing + ([] if (status, error) == (0, "") else [f"{status}: {error!r}"])


def wrong_without_descriptors(built, engine):
    status, said, error = ended((built.entered, "closes_behind"), {"ANNULET_ENGINE": engine})
    right = status == -signal.SIGABRT and error.startswith("annulet: ") and "closed" in error
    return [] if right else [f"{status}: {said!r} {error!r}"]


def wrong_in_quiet_child(built, engine):
    ending = ended((built.quiet_fork,), {"ANNULET_ENGINE": engine})
    return [] if ending == (0, "child: 0, parent: 1 1\n", "") else [str(ending)]


# Two fibers, nine things each that are right. That one waits after the other is what the documents say of it.
def wrong_with_static_hub(built, engine):
    chosen = {"ANNULET_ENGINE": engine}
    endings = [ended((program,), chosen | built.preloaded()) for program in built.static_hubs]
    endings += [ended((program,), chosen) for program in built.static_beside]
    right = (0, "18 right, one after the other\n", "")
    return [str(ending) for ending in endings if ending != right]


def main(build):
    cases = Cases("preload")
    with tempfile.TemporaryDirectory(prefix="annulet-preload.") as directory:
        built = Built(build, pathlib.Path(directory))
        cases.add("it exports the standard names, and nothing else", wrong_exports(built))
        cases.add("annulet's own calls do not come round through it", circles(built))
        cases.add("on a thread without a hub a call costs 5 ns more at most", wrong_cost(built))
        cases.add("bash does the same with it", differences(built, ("bash", "-c", BASH), 7))
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        cases.add("python3 does the same with it", differences(built, (python, "-c", PYTHON), 5))
        cases.add("git does the same with it", told_by_git(built))
        cases.add("curl does the same with it", told_by_curl(built))
        for act, status in ALONE.items():
            name = f"a program without a hub does the same with it: {act}"
            cases.add(name, differences(built, (built.alone, act), status))
        for act in ENTERED:
            for engine in ENGINES:
                cases.add(f"a program with a hub: {act}, {engine}", wrong_entered(built, act, engine))
        for engine in ENGINES:
            cases.add(f"each name parks, {engine}", wrong_names(built, "done", WAITED, engine))
            cases.add(f"each name is ended by a kill, {engine}", wrong_names(built, "killed", KILLED, engine))
            name = f"a hub whose descriptors were closed ends the process with a word, {engine}"
            cases.add(name, wrong_without_descriptors(built, engine))
            name = f"in a child that no handler of fork has seen the names are the plain calls, {engine}"
            cases.add(name, wrong_in_quiet_child(built, engine))
            name = f"a hub of the static library beside it makes the plain calls, {engine}"
            cases.add(name, wrong_with_static_hub(built, engine))
    return cases.summary()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    sys.exit(main(sys.argv[1]))
