#!/usr/bin/env python3
"""tools/annulet-gdb.py, as somebody uses it: on live processes, on core files, and where it cannot work.

usage: gdb_test.py BUILD
"""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from cases import Cases

TESTS = pathlib.Path(__file__).resolve().parent
SCRIPT = TESTS.parent / "tools/annulet-gdb.py"
PAGE = TESTS.parent / "docs/debugging.md"
SOURCE = TESTS / "gdb_program.cpp"
COMPILER = os.environ.get("CXX", "g++")
SECONDS_ALLOWED = 120
CROWD = 40000


class Failed(Exception):
    pass


class Impossible(Exception):
    """This machine does not allow it."""


def gdb(*arguments, commands=(), **options):
    """What gdb says to the commands, each of which may fail; an error where Python fails in it."""
    line = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", *map(str, arguments)]
    for command in (f"source {SCRIPT}", "set width 0", *commands):
        line += ["-ex", command]
    try:
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS_ALLOWED,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"gdb did not end within {SECONDS_ALLOWED} s")
    said = done.stdout.decode(errors="replace")
    if "ptrace: Operation not permitted" in said:
        raise Impossible("ptrace is refused")
    if "Traceback" in said or "Python Exception" in said:
        raise Failed(f"Python failed in gdb:\n{said}")
    return said


def await_sleep(pid):
    """Nothing wakes these programs, so they stay as they are then."""
    end = time.monotonic() + SECONDS_ALLOWED
    while time.monotonic() < end:
        tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/stat")
        if all(task.read_text().rpartition(")")[2].split()[0] == "S" for task in tasks):
            return
        time.sleep(0.001)
    raise Failed(f"process {pid} does not go to sleep")


@contextlib.contextmanager
def process(*command, **options):
    """A program that has said its line and whose threads sleep since; it ends with the block."""
    options.setdefault("stdin", subprocess.PIPE)
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, **options) as child:
        try:
            child.stdout.readline()
            await_sleep(child.pid)
            yield child
        finally:
            child.kill()


def ask(program, *commands, arguments=(), environment={}):
    """gdb's answers to the commands on a process of the program."""
    with process(program, *arguments) as child:
        return gdb("-p", child.pid, commands=commands, env=os.environ | environment)


def lacking(said, *expected):
    """Which of the expressions match no line."""
    return [
        f"{pattern!r} is missing in:\n{said}"
        for pattern in expected
        if not re.search(pattern, said, re.MULTILINE)
    ]


def line_of(text):
    lines = [number for number, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line]
    if len(lines) != 1:
        raise Failed(f"{text!r} stands in lines {lines} of {SOURCE.name}")
    return lines[0]


def frame(function, arguments, text):
    return rf"^#\d+ .*{function} \({arguments}\) at .*gdb_program\.cpp:{line_of(text)}$"


# The frames of fiber "parcel", whichever way they are come to.
def frames_of_parcel():
    return (
        r"^#0 .*annulet::detail::jump",
        r"^#\d+ .*annulet::event::wait ",
        frame(r"waits_for_parcel", r"parcel=.*, number=42", "  parcel.wait();"),
        frame(r"opens_the_door", r"parcel=.*, number=41", "waits_for_parcel(parcel, number + 1);"),
        r"^#\d+ .*annulet::detail::scheduler::enter ",
    )


def listing(time, used, used_once):
    """What the program's fibers are listed as."""
    stack = rf"; stack used: {used} of 256 KiB$"
    deep = rf"; stack used: {used_once} of 256 KiB$"
    spawned = {
        name: rf'"{name}" \(spawned at .*gdb_program\.cpp:{line_of(text)}\)'
        for name, text in (
            ("parcel", '"parcel"'),
            ("listener", '"listener"'),
            ("other sleeper", '"other sleeper"'),
            ("unborn", '"unborn"'),
        )
    }
    return (
        r"^thread \d+ \(LWP \d+\): 4 fibers: 0 running, 0 ready, 4 parked$",
        rf'^  fiber 1 "main": parked in read, descriptor 0, for {time}, and the thread waits on its stack$',
        rf"^  fiber 2 {spawned['parcel']}: parked in event::wait for {time}{stack}",
        rf'^  fiber 3 "\\x1b key .*" \(spawned at .*\): parked in mutex::lock for {time}{stack}',
        rf"^  fiber 4 {spawned['listener']}: parked in read, descriptor \d+, for {time}{deep}",
        r"^thread \d+ \(LWP \d+\): 3 fibers: 1 running, 1 ready, 1 parked$",
        r'^  fiber 1 "main": running$',
        rf"^  fiber 2 {spawned['other sleeper']}: parked in this_fiber::sleep_until for {time}{stack}",
        rf"^  fiber 3 {spawned['unborn']}: ready, has not begun{stack}",
    )


# Of a process that lives it is known how long, and how far down ever. A few pages are in use.
NOW = (r"\d+\.\d{3} s", "(4|8|12|16)", r"1[0-2]\d")
THEN = (r"at least \d+\.\d{3} s", "at least (4|8)", "at least (4|8)")


# --- On a live process ---


def lists_wrongly(program):
    said = ask(program, "annulet fibers")
    found = lacking(said, *listing(*NOW))
    if '"ended"' in said:
        found.append(f"a fiber that has ended is listed:\n{said}")
    return found


def tells_time_wrongly(program):
    """A hub that sleeps has not looked at the clock since, and its fibers have waited all the same."""
    with process(program) as child:
        time.sleep(2.5)
        said = gdb("-p", child.pid, commands=["annulet fibers"])
    waited = re.search(r'"parcel".* for (\d+\.\d+) s', said)
    return [] if waited and 2.4 < float(waited[1]) < SECONDS_ALLOWED else [said]


def wrong_frames(program):
    said = ask(program, "annulet bt 2")
    found = lacking(said, r'^fiber 2 "parcel" .*: parked in event::wait', *frames_of_parcel())
    frames = re.findall(r"^#(\S+) (.*)", said, re.MULTILINE)
    if [number for number, _ in frames] != [str(number) for number in range(len(frames))]:
        found.append(f"the frames are not numbered from 0 on:\n{said}")
    if not frames or "scheduler::enter (" not in frames[-1][1]:
        found.append(f"there is something below the fiber's bottom frame:\n{said}")
    return found


def wrong_registers(program):
    """What the innermost frames keep in registers: which fiber and which scheduler they are of."""
    said = ask(program, "python print(hex(read_hubs()[0].scheduler))", "annulet bt 1.2", "annulet bt 1.3")
    scheduler = re.search(r"^0x\w+$", said, re.MULTILINE)
    blocks = re.findall(r"^#0 .*annulet::detail::jump \(word=(0x\w+)", said, re.MULTILINE)
    these = re.findall(r"^#1 .*annulet::detail::scheduler::switch_to \(.*this=(0x\w+)\)", said, re.MULTILINE)
    right = scheduler and these == [scheduler[0]] * 2 and len(set(blocks)) == 2
    return [] if right else [said]


def wrong_frames_by_thread(program):
    """Ids of several hubs; what runs, and what has not begun."""
    said = ask(program, "annulet bt 2.2", "echo ---\\n", "annulet bt 2.3", "echo ---\\n", "annulet bt 2.1")
    parked, unborn, running = said.split("---\n")
    return [
        *lacking(parked, frame("sleeps_long", "", "sleep_for(1h)"), "scheduler::enter "),
        *lacking(unborn, r"^it has not begun$"),
        *lacking(running, frame("keeps_its_thread", r"fd=.*", "(::read(")),
        *([f"one that has not begun has frames:\n{unborn}"] if "#" in unborn else []),
    ]


def wrong_ids(program):
    cases = {
        "annulet bt 99": "there is no fiber 99",
        "annulet bt 2.99": r"there is no fiber 2\.99",
        "annulet bt 77.1": "thread 77 has no hub",
        "annulet bt 5": "there is no fiber 5",  # it has ended
        "thread 2": "read",
        "annulet bt 2 full": '^fiber 2 "other sleeper"',
        "thread 3": "read",
        "annulet bt 2": r"several hubs have a fiber 2; say which: 1\.2 and 2\.2",
        "annulet bt 3.1": "thread 3 has no hub",
        "annulet bt 4": '^fiber 4 "listener"',  # one hub only has it
        "annulet bt parcel": "wants the id of a fiber, .* and not 'parcel'",
        "annulet bt -1": "wants the id of a fiber",
        "annulet bt": "wants the id of a fiber",
        "annulet bt 2 3": "not '3'",
        "annulet fibers all": "takes no arguments",
        "annulet core": "wants the name of the file",
        "annulet core /nowhere/core": "Failed to open '/nowhere/core'",
    }
    said = ask(program, *[line for command in cases for line in ("echo ---\\n", command)])
    answers = said.split("---\n")[1:]
    return [wrong for answer, told in zip(answers, cases.values()) for wrong in lacking(answer, told)]


def left_selection(program):
    """What differs in gdb's own view after a look at a fiber, also after one that failed."""
    look = ("thread", "frame", "bt", "info registers rip rsp rbx")
    breaks = 'python def broken(*_): raise gdb.GdbError("planted")'
    rule = "echo ---\\n"
    works = (rule, "annulet bt 1.2", "annulet bt 2.2", rule, *look)
    fails = (breaks, "python frames_text = broken", *works, rule)
    said = ask(program, "thread 2", "up", rule, *look, *works, *fails)
    _, before, answer, after, failed, after_failure, _ = said.split("---\n")
    found = lacking(answer, "opens_the_door", "sleeps_long") + lacking(failed, "^planted$")
    found += lacking(before, "^#1 ")
    if not before.startswith("[Current thread is 2 ") or after != before or after_failure != before:
        found.append(f"before:\n{before}\nafter:\n{after}\nafter failure:\n{after_failure}")
    return found


def crowd_missed(program):
    begin = time.monotonic()
    said = ask(program, "annulet fibers", f"annulet bt {CROWD}", arguments=[CROWD])
    print(f"note: {CROWD} fibers listed from start to end of gdb in {time.monotonic() - begin:.1f} s")
    nameless = r"^  fiber \d+ \(spawned at .*: parked in this_fiber::sleep_until"
    listed = len(re.findall(nameless, said, re.MULTILINE))
    found = [] if listed == CROWD else [f"{listed} are listed, not {CROWD}"]
    return found + lacking(said[-8000:], frame("sleeps_long", "", "sleep_for(1h)"))


def wrong_page(program, scratch):
    """Each command in the documentation, in turn; where one fails, Python does."""
    page = re.findall(r"^\(gdb\) (.*)$", PAGE.read_text(), re.MULTILINE)
    if not page or not page[0].endswith("/share/annulet/annulet-gdb.py"):
        return [f"the page does not load the script first: {page}"]
    with process(program) as child:
        tried = [f"python gdb.execute({command!r})" for command in page[1:]]
        said = gdb("-p", child.pid, commands=tried, cwd=scratch)
    # The two fibers in read, and what the most of them do.
    found = lacking(said, "^2$", r"^ +1 .*gdb_program.cpp:\d+ parked in event::wait$", *frames_of_parcel())
    return found if (scratch / "server.core").exists() else [*found, "no core file was written"]


# --- On core files ---


def wrong_core(program, core):
    clock = "python print(read_hubs()[0].clock.latest > 0)"
    said = gdb(program, core, commands=["annulet fibers", clock, "thread 1", "annulet bt all"])
    sleeper = frame("sleeps_long", "", "sleep_for(1h)")
    runner = frame("keeps_its_thread", r"fd=.*", "(::read(")
    found = lacking(said, *listing(*THEN), "^True$", *frames_of_parcel(), sleeper, runner)
    waited = re.search(r'"other sleeper".* for at least (\d+\.\d+) s', said)
    if not waited or float(waited[1]) < 0.09:  # the hub has waited for 0.1 s since, and run without a park
        found.append(f"a wait before the end is not counted:\n{said}")
    return found


def wrong_made_core(program, scratch):
    core = scratch / "core.made"
    said = ask(program, f"annulet core ~/{core.name}", environment={"HOME": str(scratch)})
    return lacking(said, "^6 of 6 stacks of fibers are in it$") + wrong_core(program, core)


def own_threads_listed(program, scratch):
    """A FIFO is read by a thread of io_uring's own, which has the thread-locals of its maker."""
    fifo, core = scratch / "fifo", scratch / "core.fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDWR), "rb") as stdin, process(program, stdin=stdin) as child:
        names = [path.read_text() for path in pathlib.Path(f"/proc/{child.pid}/task").glob("*/comm")]
        if not any(name.startswith("iou-wrk") for name in names):
            raise Impossible("io_uring makes no thread for it here")
        said = gdb("-p", child.pid, commands=["annulet fibers", f"annulet core {core}"])
    hubs = len(re.findall(r"^thread \d+ \(LWP", said, re.MULTILINE))
    return wrong_core(program, core) + ([] if hubs == 2 else [said])


def wrong_kernel_core(program, scratch):
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")):
        raise Impossible(f"core files go to {pattern}")
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if limit == 0:
        raise Impossible("core files are forbidden")
    where = scratch / "kernel"
    where.mkdir()
    unlimited = lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    with process(program, cwd=where, preexec_fn=unlimited) as child:
        child.send_signal(6)
        child.wait(SECONDS_ALLOWED)
    return wrong_core(program, next(where.iterdir()))


# --- Where it cannot work ---

NO_INFORMATION = "no debug information of annulet here"


def unsaid_of_stripped(program, scratch):
    stripped = scratch / "stripped"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    return lacking(ask(stripped, "annulet fibers"), f"^{NO_INFORMATION}")


def unsaid_of_strangers(_):
    cat = shutil.which("cat")
    with subprocess.Popen([cat], stdin=subprocess.PIPE) as child:
        try:
            said = gdb("-p", child.pid, commands=["annulet fibers", "annulet bt 1"])
        finally:
            child.kill()
    return [] if said.count(NO_INFORMATION) == 2 else [said]


def unsaid_without_hub(program):
    """Before there is a process, and before it has a hub."""
    commands = ["annulet fibers", "break main", "run", "annulet fibers", "annulet bt 1", "kill"]
    said = gdb(program, commands=commands)
    found = lacking(said, "^no process runs, and there is no core file$")
    return found if said.count("no thread of this process has a hub") == 2 else [*found, said]


def unsaid_of_broken_lists(program):
    """Links that lead nowhere, back, or to no fiber."""
    found = []
    listed_fibers = "fibers = read_hubs()[0].fibers; hook = fibers[0].hub.layout.fiber.offset('next')"
    write = "gdb.selected_inferior().write_memory(fibers[1].address + hook, target.to_bytes(8, 'little'))"
    hub = "hub = fibers[0].hub"
    for place, told in (
        ("fibers[2].address + hub.layout.fiber.offset('owner')", "after fiber 2: at 0x"),
        ("hub.scheduler + hub.layout.scheduler.offset('last')", "after fiber 4: its two ends do not fit"),
    ):
        spoil = (listed_fibers, hub, f"gdb.selected_inferior().write_memory({place}, bytes(8))")
        said = ask(program, *[f"python {line}" for line in spoil], "annulet fibers")
        found += lacking(said, f"^thread 1: the list of fibers is broken {told}")
    for target in ("0", "1", *(f"fibers[{number}].address + hook" for number in (0, 1, 3))):
        spoil = [f"python {line}" for line in (listed_fibers, f"target = {target}", write)]
        said = ask(program, *spoil, "annulet fibers", "echo ---\\n", "annulet bt 4", "annulet bt 2")
        listed, frames = said.split("---\n")
        found += lacking(listed, '"parcel"', r"^thread 1: the list of fibers is broken after fiber 2: ")
        found += lacking(frames, "^there is no fiber 4$", "^thread 1: .* broken", "opens_the_door")
        if "listener" in listed:
            found.append(f"it is listed beyond the broken link to {target}:\n{listed}")
    return found


def unsaid_of_broken_fibers(program):
    """Of one whose waiter and saved place are none."""
    spoil = (
        "python fiber = read_hubs()[0].fibers[1]; offset = fiber.hub.layout.fiber.offset",
        "python write = gdb.selected_inferior().write_memory",
        "python for name in ('parked_on', 'context'): write(fiber.address + offset(name), bytes([1] * 8))",
    )
    said = ask(program, *spoil, "annulet fibers", "annulet bt 2", "annulet bt 3")
    return lacking(
        said,
        r'^  fiber 2 "parcel" .*: parked; stack used: \d+ of 256 KiB$',
        "^fiber 2 is said to stand at 0x101010101010101, which is not on its stack$",
        frame("wants_the_key", "key=.*", "lock_guard lock(key)"),
    )


# A program that has something else by the names of annulet's own.
OTHER_LAYOUT = """
#include <annulet/runtime/control_block.hpp>
#include <cstdio>
namespace annulet::detail {
class scheduler {
 public:
  static thread_local scheduler* current_;
  intrusive_list<control_block, all_fibers_tag> all_;
  control_block* running_ = nullptr;
  MEMBER = 0;
};
thread_local scheduler* scheduler::current_ = nullptr;
std::uint64_t look(control_block& fiber, waiter& w) { return fiber.id + fiber.place.line() + w.fd(); }
}
int main() {
  annulet::detail::scheduler here;
  annulet::detail::scheduler::current_ = POINTER;
  std::puts("stands");
  std::fflush(stdout);
  return std::getchar();
}
"""


def unsaid_of_other_layouts(_, scratch, build):
    found = []
    broken = "^thread 1: the list of fibers is broken from its beginning: {}. Program and symbols do not"
    nowhere = "reinterpret_cast<annulet::detail::scheduler*>(16)"
    for member, pointer, told in (
        ("std::int64_t about_now_", "&here", broken.format("the running fiber is not among them")),
        ("std::int64_t about_now_", nowhere, broken.format("Cannot access memory at address 0x10")),
        ("std::int64_t now_", "&here", "scheduler has no about_now_: this script is for another version"),
    ):
        source = OTHER_LAYOUT.replace("MEMBER", member).replace("POINTER", pointer)
        other = scratch / "other"
        command = [COMPILER, "-std=c++20", "-g", "-O0", "-I", build / "include", "-x", "c++", "-"]
        subprocess.run([*command, "-o", other], input=source, text=True, check=True)
        found += lacking(ask(other, "annulet fibers", "annulet bt 1"), told)
    return found


def main(build):
    cases = Cases("gdb")
    build = pathlib.Path(build).resolve()
    program = build / "tests/gdb_program"

    def check(name, look, *arguments):
        try:
            cases.add(name, look(program, *arguments))
        except Impossible as why:
            cases.add(name, [])
            print(f"note: skipped: {name}: {why}")
        except (Failed, subprocess.CalledProcessError) as error:
            cases.add(name, [str(error)])

    check("the fibers of all hubs are listed, with what each does", lists_wrongly)
    check("a fiber waits for as long as it does, also where its hub sleeps", tells_time_wrongly)
    check("the frames of a parked fiber are the user's, with arguments and lines", wrong_frames)
    check("what its frames keep in registers is right", wrong_registers)
    check("fibers of another thread are found: parked, running, not begun", wrong_frames_by_thread)
    check("what there is not, and what is no id, is said in words", wrong_ids)
    check("gdb stands where it stood before, also where a look fails", left_selection)
    check(f"{CROWD} fibers are listed", crowd_missed)
    with tempfile.TemporaryDirectory(prefix="annulet-gdb.") as directory:
        scratch = pathlib.Path(directory)
        check("every command in the documentation works", wrong_page, scratch)
        check("a core file that annulet core has written has all fibers and frames", wrong_made_core, scratch)
        check("so has the kernel's", wrong_kernel_core, scratch)
        check("a thread of io_uring's own is no hub", own_threads_listed, scratch)
        check("a stripped program is said to be without information", unsaid_of_stripped, scratch)
        check("so is one that has nothing of annulet", unsaid_of_strangers)
        check("what is not the annulet that it seems is told of", unsaid_of_other_layouts, scratch, build)
    check("no process, and a process without a hub, are said to be that", unsaid_without_hub)
    check("a broken list is listed as far as it is whole, and told of", unsaid_of_broken_lists)
    check("a fiber whose saved place is not on its stack is told of", unsaid_of_broken_fibers)
    return cases.summary()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    sys.exit(main(sys.argv[1]))
