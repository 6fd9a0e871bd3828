#!/usr/bin/env python3
"""Code that knows nothing of annulet, compiled with `-include annulet/selector/replace.h`: what its objects
call, what it sees of the system, and that its waits let other fibers run.

usage: replace_test.py BUILD
"""

import concurrent.futures
import difflib
import itertools
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

from cases import Cases

SOURCES = pathlib.Path(__file__).resolve().parent / "replaced"
REPLACE = ("-include", "annulet/selector/replace.h")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
SECONDS_ALLOWED = 120

CHECKED = {"poll", "ppoll", "read", "recv", "recvfrom"}  # by _FORTIFY_SOURCE
NAMES = CHECKED | set(
    """select pselect epoll_wait epoll_pwait epoll_pwait2 sleep usleep nanosleep clock_nanosleep write readv
    writev recvmsg send sendto sendmsg accept accept4 connect close getaddrinfo""".split()
)
# Of them, what the system's headers show after such a first line.
SHOWN = {
    "#define _GNU_SOURCE\n": NAMES,
    "#define _POSIX_C_SOURCE 200809L\n": NAMES - {"usleep", "ppoll", "accept4"},
    "#define _DEFAULT_SOURCE\n#define _FILE_OFFSET_BITS 64\n": NAMES - {"ppoll", "accept4"},
}
GNU = "#define _GNU_SOURCE\n"

SIZES = ((), ("-D_FILE_OFFSET_BITS=64",), ("-D_FILE_OFFSET_BITS=64", "-D_TIME_BITS=64"))
CHECKS = (("-O0",), ("-O0", "-D_FORTIFY_SOURCE=2"))
CHECKS += tuple(("-O2", f"-D_FORTIFY_SOURCE={level}") for level in (0, 2, 3))
FORTIFIED = CHECKS[-1]
# The newest name that a compiler may know a standard by, and the older one; the last is that of old code.
STANDARDS = {"c": ("c11", "gnu17", "c23", "c2x", "gnu89"), "c++": ("c++20", "gnu++23", "gnu++2b", "c++98")}
COMPILERS = {"c": ("gcc", "clang", "clang-19"), "c++": ("g++", "clang++", "clang++-19")}


class Failed(Exception):
    pass


def run(*command, **options):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(map(str, command))} did not end within {SECONDS_ALLOWED} s")
    if done.returncode != 0:
        said = done.stdout + done.stderr
        raise Failed(f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done.stdout


def symbols_of(made):
    """The names that an object file needs of others, and those that it has itself."""
    fields = [line.split() for line in run("nm", "--format=posix", made).splitlines()]
    every = {name for name, *_ in fields}
    needed = {name for name, kind, *_ in fields if kind == "U"}
    return needed - {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}, every - needed


class Compiler:
    def __init__(self, command, language, include):
        self.command = command
        self.language = language
        self.flags = ("-x", language, "-I", include)
        self.standards = tuple(filter(self.knows, STANDARDS[language]))

    def knows(self, standard):
        command = (self.command, *self.flags, f"-std={standard}", "-fsyntax-only", "/dev/null")
        return subprocess.run(command, capture_output=True, timeout=SECONDS_ALLOWED).returncode == 0

    @property
    def is_clang(self):
        return "clang" in self.command

    def symbols(self, source, *flags, replace=REPLACE):
        """What the object needs of others, and what it has."""
        with tempfile.TemporaryDirectory(prefix="annulet-replace.") as directory:
            made = pathlib.Path(directory) / "made.o"
            run(self.command, *self.flags, *flags, *replace, "-c", "-", "-o", made, input=source)
            return symbols_of(made)

    def wanted(self, source, *flags):
        return self.symbols(source, *flags)[0]


def drop_ins(names, checked=()):
    return {f"annulet_{name}" for name in names} | {f"annulet_{name}_chk" for name in checked}


def at_once(function, items):
    """What is wrong with each of the items, with two of them under way at a time."""

    def try_one(item):
        try:
            return list(function(*item))
        except Failed as error:
            return [str(error)]

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return [wrong for found in pool.map(try_one, items) for wrong in found]


def difference(expected, found, *of):
    if found != expected:
        what = f"{' '.join(sorted(found - expected))}, and not {' '.join(sorted(expected - found))}"
        yield f"{shlex.join(map(str, of))}: calls {what}"


# --- What is compiled ---


def texts(suffix, *names):
    return [(SOURCES / f"{name}{suffix}").read_text() for name in names]


def fully_replaced(compiler, standard, checks, sizes, first_line):
    """calls.c, strictly."""
    [source] = texts(".c", "calls")
    if compiler.language == "c++":
        first_line = GNU  # which these compilers have defined by then
    shown = SHOWN[first_line]
    checked = CHECKED & shown if "-O2" in checks and checks[-1][-1] in "23" else set()
    flags = (*STRICT, f"-std={standard}", *checks, *sizes)
    beginning = "" if compiler.language == "c++" else first_line
    found = compiler.wanted(beginning + source, *flags)
    if compiler.is_clang:  # which knows the size of an array only with the headers of a newer glibc
        found -= drop_ins((), checked)
        checked = set()
    yield from difference(drop_ins(shown, checked), found, compiler.command, *flags, first_line.strip())


def combinations(compiler):
    """Each of the checks, with standards, sizes and first lines in turn."""
    rounds = 1 if compiler.is_clang else 2
    for turn, (checks, standard) in enumerate(zip(CHECKS * rounds, itertools.cycle(compiler.standards))):
        yield compiler, standard, checks, SIZES[turn % 3], list(SHOWN)[(turn + turn // 3) % 3]


def checked_by_source(compiler):
    """_FORTIFY_SOURCE is decided by the source's own first line, too."""
    [source] = texts(".c", "calls")
    found = compiler.wanted(GNU + "#define _FORTIFY_SOURCE 3\n" + source, *STRICT, "-O2")
    yield from difference(drop_ins(NAMES, CHECKED), found, compiler.command)


def link_time(compiler, directory):
    """What is left to call when all is optimised at once."""
    [source] = texts(".c", "calls")
    made, whole = pathlib.Path(directory) / "lto.o", pathlib.Path(directory) / "whole.o"
    flags = (*STRICT, "-O2", "-D_FORTIFY_SOURCE=3", "-flto")
    run(compiler.command, *compiler.flags, *flags, *REPLACE, "-c", "-", "-o", made, input=GNU + source)
    run(compiler.command, "-O2", "-flto", "-r", "-flinker-output=nolto-rel", made, "-o", whole)
    yield from difference(drop_ins(NAMES, CHECKED), symbols_of(whole)[0], compiler.command, *flags)


def kept(compiler, bit):
    """Some names are left alone: they alone are plain then. The names are numbered from 1, and those are kept
    that have this bit, so that no two of them fare the same with all bits."""
    [source] = texts(".c", "calls")
    keep = {name for number, name in enumerate(sorted(NAMES), 1) if number & bit}
    flags = ("-O2", "-D_FORTIFY_SOURCE=2", *(f"-DANNULET_KEEP_{name}" for name in sorted(keep)))
    plain = keep | {f"__{name}_chk" for name in keep & CHECKED}
    expected = drop_ins(NAMES - keep, CHECKED - keep) | plain
    yield from difference(expected, compiler.wanted(GNU + source, *flags), compiler.command, *flags)


def left_alone(compiler, standard, source, expected):
    needed, its_own = compiler.symbols(source, *STRICT, f"-std={standard}")
    yield from difference(drop_ins(expected), needed, compiler.command, standard, *source.splitlines()[:1])
    yield from (f"{compiler.command} made {name}" for name in its_own if "annulet" in name)


def named_otherwise(compilers):
    [names, declared], [names_in_cpp] = texts(".c", "names", "declared"), texts(".cpp", "names")
    for compiler in compilers:
        if compiler.language == "c":
            yield compiler, "c11", names, {"read", "poll"}
            yield compiler, "gnu17", declared, {"close", "read", "sleep"}
        else:
            yield compiler, "c++20", names_in_cpp, {"read", "close"}


def functions_of_its_own(compiler, standard):
    """A program's own close, which becomes annulet_close unless the name is kept: the header says so."""
    source = "int close(int);\nint close(int fd) { return fd; }\nint use(int fd) { return close(fd); }\n"
    flags = (*STRICT, f"-std={standard}")
    named = "close" if compiler.language == "c" else "_Z5closei"  # no C function: not to be replaced at all
    use = "use" if compiler.language == "c" else "_Z3usei"
    for keep, expected in (((), "annulet_close"), (("-DANNULET_KEEP_close",), "close")):
        own = {use, expected if compiler.language == "c" else named}
        needed, its_own = compiler.symbols(source, *flags, *keep)
        yield from difference(own, its_own, compiler.command, *keep)
        yield from difference(set(), needed, compiler.command, *keep)


def seen_the_same(compiler, first_line):
    """The macros and the declarations of the system are those without our header, but for our own."""
    [source] = texts(".c", "calls")
    text = first_line + "".join(re.findall(r"#include.*\n", source))
    ours = r"\s*$|#pragma (once|redefine_extname|clang diag|GCC system)|#define (ANNULET_\w+|__\w+_alias)\b"

    def seen(*replace):
        printed = run(compiler.command, *compiler.flags, *replace, "-E", "-P", "-dD", "-", input=text)
        return [line for line in printed.splitlines() if not re.match(ours, line)]

    for line in difflib.unified_diff(seen(), seen(*REPLACE), lineterm="", n=0):
        yield f"after {first_line.strip()}: {line}"


def taken_too_late(compiler):
    try:
        compiler.symbols("#include <unistd.h>\n#include <annulet/selector/replace.h>\n", replace=())
    except Failed as error:
        if "goes before all other headers" in str(error):
            return []
        return [str(error)]
    return ["it was taken after other headers"]


# --- What is run ---


class Programs:
    """Made of what was built, in a directory where what they leave behind goes away."""

    def __init__(self, build, directory):
        self.build = build
        self.directory = directory
        env = os.environ | {"PKG_CONFIG_PATH": str(build / "meson-uninstalled")}
        flags = run("pkg-config", "--cflags", "--libs", "annulet", env=env)
        self.flags = (*shlex.split(flags), f"-Wl,-rpath,{build}")

    def made(self, compiler, suffix, *flags):
        program = self.directory / "".join((compiler.command, suffix, *flags))
        if program.exists():
            return program
        source = SOURCES / f"program{suffix}"
        standard = "-std=c++20" if suffix == ".cpp" else "-std=c11"
        run(compiler.command, standard, *STRICT, *flags, *REPLACE, source, "-o", program, *self.flags)
        return program

    def wrong(self, *how):
        """What a program says but that all is well."""
        said = run(self.made(*how), cwd=self.directory)
        return [] if said == "ok\n" else [f"{how[0].command}: {said}"]

    def not_ended(self, *how):
        program = self.made(*how)
        for call in sorted(CHECKED):
            command = (program, call, "9")
            options = {"capture_output": True, "text": True, "cwd": self.directory}
            done = subprocess.run(command, timeout=SECONDS_ALLOWED, **options)
            expected = "*** buffer overflow detected ***: terminated\n"
            if (done.returncode, done.stderr) != (-signal.SIGABRT, expected):
                yield f"{call} ended with {done.returncode}: {done.stderr}"


def check_runs(cases, programs, compilers):
    for compiler in compilers:
        suffix = {"c": ".c", "c++": ".cpp"}[compiler.language]
        ways = [FORTIFIED] if compiler.is_clang else [FORTIFIED, ("-O2", "-flto")]
        wrong = at_once(programs.wrong, [(compiler, suffix, *flags) for flags in ways])
        cases.add(f"plain code of {compiler.command} waits in fibers", wrong)
    overruns = at_once(programs.not_ended, [(compilers[0], ".c", *FORTIFIED)])
    cases.add("a call that would overrun its array ends the process", overruns)


def main(build):
    build = pathlib.Path(build).resolve()
    cases = Cases("replace")
    compilers = [
        Compiler(command, language, build / "include")
        for language, commands in COMPILERS.items()
        for command in filter(shutil.which, commands)
    ]
    first = {compiler.language: compiler for compiler in reversed(compilers)}
    gcc = first["c"]
    every = [combination for compiler in compilers for combination in combinations(compiler)]
    cases.add("every call and every address is the drop-in", at_once(fully_replaced, every))
    cases.add("a source may ask for checks itself", at_once(checked_by_source, [(gcc,)]))
    bits = [(gcc, 1 << bit) for bit in range(5)]
    cases.add("a name that is to be kept is kept, and no other", at_once(kept, bits))
    cases.add("what else has one of the names is left alone", at_once(left_alone, named_otherwise(compilers)))
    newest = {"c": "c11", "c++": "c++20"}
    owners = [(compiler, newest[compiler.language]) for compiler in compilers]
    named = "a function of the program's own is what the header says"
    cases.add(named, at_once(functions_of_its_own, owners))
    sights = [(gcc, ""), (first["c++"], ""), *((gcc, line) for line in SHOWN)]
    cases.add("a source sees what it sees without the header", at_once(seen_the_same, sights))
    cases.add("other headers may not come first", taken_too_late(gcc))
    with tempfile.TemporaryDirectory(prefix="annulet-replace.") as directory:
        cases.add("link-time optimisation finds the drop-ins, too", at_once(link_time, [(gcc, directory)]))
        check_runs(cases, Programs(build, pathlib.Path(directory)), compilers)
    return cases.summary()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    sys.exit(main(sys.argv[1]))
