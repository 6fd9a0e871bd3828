#!/usr/bin/env python3
"""Uses what was built as strangers would: installed and moved elsewhere, or as a subproject of theirs.

usage: package_test.py BUILD
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

from cases import Cases

TESTS = pathlib.Path(__file__).resolve().parent
COMPILER = os.environ.setdefault("CXX", "g++")  # the consumers' tools ask the environment too
EXPECTED_OUTPUT = "1 ready\nhello\n"
SECONDS_ALLOWED = 300


class Failed(Exception):
    pass


def output_of(*command, **environment):
    """What a command printed on stdout; an error that shows all of it where it fails or takes too long."""
    env = os.environ | environment
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=SECONDS_ALLOWED)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(map(str, command))} did not end within {SECONDS_ALLOWED} s")
    if done.returncode != 0:
        said = done.stdout + done.stderr
        raise Failed(f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done.stdout


# --- The installed copy ---


class Installed:
    """A copy of the package that was staged, and then moved to where nobody configured it to be."""

    def __init__(self, build, scratch):
        staged = scratch / "staged"
        output_of("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", staged)
        pc = next(staged.rglob("annulet.pc"), None)
        if pc is None:
            raise Failed("meson install put no annulet.pc anywhere")
        configured = re.search(r"^prefix=/?(.*)$", pc.read_text(), re.MULTILINE)[1]
        self.version = re.search(r"^Version: (.*)$", pc.read_text(), re.MULTILINE)[1]
        self.prefix = (staged / configured).rename(scratch / "moved")
        self.pc = next(self.prefix.rglob("annulet.pc"))
        self.libraries = self.pc.parent.parent
        self.headers = sorted((self.prefix / "include/annulet").rglob("*.h*"))
        self.pkg_config = ("pkg-config", f"--define-variable=prefix={self.prefix}")


def headers_compile(installed):
    """One program that includes all of them: none may need a file that stayed at home."""
    if not installed.headers:
        return ["no header was installed"]
    top = installed.prefix / "include"
    first = [header for header in installed.headers if header.name == "replace.h"]  # or it refuses
    others = [header for header in installed.headers if header not in first]
    source = "".join(f"#include <{header.relative_to(top)}>\n" for header in first + others)
    program = installed.prefix / "all.cpp"
    program.write_text(source)
    flags = output_of(*installed.pkg_config, "--cflags", "annulet", PKG_CONFIG_PATH=str(installed.pc.parent))
    output_of(COMPILER, "-std=c++20", "-fsyntax-only", program, *shlex.split(flags))
    return []


C_PROGRAM = """
#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>
#include <stdio.h>
static void wait_a_little(void* done) {
  struct timespec some;
  some.tv_sec = 0;
  some.tv_nsec = 1000;
  *(int*)done = annulet_nanosleep(&some, NULL) == 0;
}
int main(void) {
  int done = 0;
  annulet_fiber* fiber = NULL;
  if (annulet_enter() != 0 || annulet_spawn(wait_a_little, &done, &fiber) != 0 || annulet_join(fiber) != 0) {
    return 1;
  }
  puts(done ? "done" : "not done");
  return annulet_leave();
}
"""
# The newest name that a compiler may know a standard by, and the older one.
STANDARDS = {"c": ["c11", "c17", "c23", "c2x"], "cpp": ["c++20", "c++23", "c++2b"]}


def said_by_pkg_config(installed, *asked):
    found = {"PKG_CONFIG_PATH": str(installed.pc.parent)}
    return shlex.split(output_of(*installed.pkg_config, *asked, "annulet", **found))


def knows(compiler, language, standard):
    name = {"c": "c", "cpp": "c++"}[language]
    command = (compiler, f"-x{name}", f"-std={standard}", "-fsyntax-only", "/dev/null")
    return subprocess.run(command, capture_output=True, timeout=SECONDS_ALLOWED).returncode == 0


def strict_consumers(installed, scratch):
    """The C interface under each standard that a compiler knows, as C and as C++, with warnings as errors."""
    wrong = []
    compilers = {"c": ["gcc", "clang-19"], "cpp": ["g++", "clang++-19"]}
    flags = said_by_pkg_config(installed, "--cflags")
    tried = 0
    for language, standards in STANDARDS.items():
        program = scratch / f"strict.{language}"
        program.write_text(C_PROGRAM)
        for compiler in filter(shutil.which, compilers[language]):
            for standard in (standard for standard in standards if knows(compiler, language, standard)):
                strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-std={standard}")
                tried += 1
                try:
                    output_of(compiler, *strict, "-fsyntax-only", program, *flags)
                except Failed as error:
                    wrong.append(str(error))
    return wrong if tried >= 4 else [f"only {tried} compilers and standards were found"]


def build_c(installed, scratch):
    flags = said_by_pkg_config(installed, "--cflags", "--libs")
    program = scratch / "in_c"
    (scratch / "in_c.c").write_text(C_PROGRAM)
    output_of("gcc", "-std=c11", scratch / "in_c.c", "-o", program, *flags)
    return program


def wrong_c(installed, program):
    said = output_of(program, LD_LIBRARY_PATH=str(installed.libraries))
    return [] if said == "done\n" else [said]


def unloaded_script(installed):
    """What gdb says to the script's command, where that is not the script's own answer."""
    script = installed.prefix / "share/annulet/annulet-gdb.py"
    command = ("gdb", "-nx", "-batch", "-ex", f"source {script}", "-ex", "annulet fibers")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED)
    said = done.stdout + done.stderr
    return [] if said == "no process runs, and there is no core file\n" else [said]


def foreign_symbols(installed):
    """Exported symbols that are no names of ours: of namespace annulet, of its types' tables, or of C."""
    ours = re.compile(r"_Z(T[ISVTWH]|GV|T[hv]\w+?_)?N[KOR]*7annulet|annulet_\w+")
    command = ("nm", "-D", "--defined-only", "--no-sort", "--format=posix")
    library = installed.libraries / "libannulet.so"
    mangled = output_of(*command, library).splitlines()
    readable = output_of(*command, "--demangle", library).splitlines()
    exported = [pair for pair in zip(mangled, readable) if " A " not in pair[0]]  # A is the version itself
    if not exported:
        return ["nothing is exported"]
    return [f"exports {name}" for symbol, name in exported if not ours.match(symbol)]


def wrong_versions(installed, scratch):
    """What CMake makes of the version file, for versions and ranges of them that somebody might ask for."""
    major, minor, patch = map(int, installed.version.split("."))
    this, next_minor = f"{major}.{minor}", f"{major}.{minor + 1}"
    accepted = {
        this: True,
        f"{this}.{patch}": True,
        f"{this}.{patch};EXACT": True,
        f"{this};EXACT": patch == 0,
        f"{this}.{patch + 1}": False,
        next_minor: False,
        "0.0": False,
        f"{major + 1}.{minor}": False,
        f"{this}...{next_minor}": True,
        f"{this}...<{next_minor}": True,
        f"0.0...{this}.{patch}": True,
        f"0.0...<{this}": False,
        f"{next_minor}...{major + 1}": False,
    }
    package = scratch / "versions"
    package.mkdir()
    shutil.copy(installed.libraries / "cmake/annulet/annulet-config-version.cmake", package)
    (package / "annulet-config.cmake").touch()  # the true one makes targets, which a script may not
    script = package / "ask.cmake"
    script.write_text(
        "".join(
            f"find_package(annulet {asked} CONFIG QUIET NO_DEFAULT_PATH PATHS ${{CMAKE_CURRENT_LIST_DIR}})\n"
            "file(APPEND ${CMAKE_CURRENT_LIST_DIR}/answers ${annulet_FOUND}\\n)\n"
            for asked in (asked.replace(";", " ") for asked in accepted)
        )
    )
    output_of("cmake", "-P", script)
    answers = [answer == "1" for answer in (package / "answers").read_text().split()]
    return [
        f"{installed.version} is {'' if answer else 'not '}taken for {asked}"
        for (asked, expected), answer in zip(accepted.items(), answers, strict=True)
        if answer != expected
    ]


def build_c_with_cmake(installed, project):
    (project / "in_c.c").write_text(C_PROGRAM)
    return build_with_cmake(installed, project) / "in_c"


def linked_twice(project):
    """What CMake says of a program that would have the shared library and the static one."""
    try:
        output_of("cmake", "-DANNULET_TWICE=ON", project / "build")
    except Failed as error:
        return [] if "ANNULET_LIBRARY" in str(error) else [f"it says: {error}"]
    return ["CMake found nothing amiss"]


def unsaid_without_archive(installed, built):
    """What is left unsaid when a CMake project insists on the static library, and its file is gone."""
    archive = installed.libraries / "libannulet.a"
    archive.unlink()
    try:
        output_of("cmake", built)
    except Failed as error:
        said = " ".join(str(error).split())
        return [] if f"needs {archive}" in said else [f"it says: {error}"]
    return ["CMake found nothing amiss"]


# --- A copy that is built with the address sanitizer, for programs with it ---


def install_sanitized(scratch):
    """Such a library: the option is Meson's own."""
    built = scratch / "build"
    quickly = ("--buildtype=plain", "--unity=on", "--unity-size=1000", "-Dtests=false")
    output_of("meson", "setup", built, TESTS.parent, *quickly, "-Db_sanitize=address", "-Db_lundef=false")
    output_of("ninja", "-C", built)
    return Installed(built, scratch)


def build_sanitized(installed):
    program = installed.prefix / "sanitized"
    ask = (*installed.pkg_config, "--cflags", "--libs", "annulet")
    flags = shlex.split(output_of(*ask, PKG_CONFIG_PATH=str(installed.pc.parent)))
    source = TESTS / "consumer/sanitized.cpp"
    output_of(COMPILER, "-std=c++20", "-g", "-fsanitize=address", source, "-o", program, *flags)
    return program


def run_sanitized(installed, program, *arguments):
    options = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_leaks=1"}
    return output_of(program, *arguments, LD_LIBRARY_PATH=str(installed.libraries), **options)


def wrong_sanitized(installed, program):
    printed = run_sanitized(installed, program)
    return [] if printed == "27 1\n" else [f"printed {printed!r}"]


def unreported_use(installed, program):
    try:
        printed = run_sanitized(installed, program, "planted")
    except Failed as error:
        said = str(error)
        return [] if "stack-use-after-return" in said else [said]
    return [f"it ended well, and printed {printed!r}"]


# --- The consumers: each function builds a project and returns where its programs are ---


def build_with_pkg_config(installed, project):
    command = shlex.join(installed.pkg_config)
    output_of("make", "-j2", "-C", project, f"PKG_CONFIG={command}", PKG_CONFIG_PATH=str(installed.pc.parent))
    return project


def build_with_cmake(installed, project):
    built = project / "build"
    output_of("cmake", "-G", "Ninja", "-S", project, "-B", built, f"-DCMAKE_PREFIX_PATH={installed.prefix}")
    output_of("cmake", "--build", built)
    return built


def build_with_subproject(project):
    built = project / "build"
    (project / "subprojects").mkdir()
    (project / "subprojects/annulet").symlink_to(TESTS.parent)
    # Unoptimised and in one translation unit, which takes a fifth of the time; and never an annulet that
    # happens to be installed.
    quickly = ("--buildtype=plain", "--unity=subprojects", "--unity-size=1000")
    output_of("meson", "setup", built, project, *quickly, "--force-fallback-for=annulet")
    output_of("ninja", "-C", built)
    return built


def wrong_targets(built):
    """What a project with annulet as a subproject builds that it did not ask for."""
    targets = json.loads(output_of("meson", "introspect", "--targets", built))
    expected = {"annulet", "annulet-posix", "with_shared", "with_static", "with_posix"}
    return [target["name"] for target in targets if target["name"] not in expected]


def wrong_program(program, expected_libraries, **environment):
    """What is wrong with a consumer's program, and with the libraries of ours and Boost's that it loads."""
    found = []
    loaded = re.findall(r"\(NEEDED\).*\[(.*)\]", output_of("readelf", "--dynamic", "--wide", program))
    ours = {name for name in loaded if re.match("lib(annulet|boost)", name)}
    posix = "libannulet-posix.so.0"
    if posix in loaded and loaded.index(posix) > loaded.index("libc.so.6"):
        found.append("libannulet-posix comes behind libc, and its names are not asked")
    if ours != expected_libraries:
        found.append(f"loads {ours or 'nothing'}, not {expected_libraries or 'nothing'}")
    output = output_of(program, **environment)
    if output != EXPECTED_OUTPUT:
        found.append(f"printed {output!r}, not {EXPECTED_OUTPUT!r}")
    return found


# --- The cases ---


class Checks:
    """Runs checks, each a case that fails with what the check returns or throws."""

    def __init__(self, cases):
        self.cases = cases

    def __call__(self, name, check, *arguments, **options):
        try:
            self.cases.add(name, check(*arguments, **options))
        except Failed as error:
            self.cases.add(name, [str(error)])

    def building(self, name, build, *arguments):
        """A check that something can be made; returns it, or None."""
        try:
            made = build(*arguments)
        except Failed as error:
            self.cases.add(name, [str(error)])
            return None
        self.cases.add(name, [])
        return made


def main(build):
    cases = Cases("package")
    check = Checks(cases)
    with tempfile.TemporaryDirectory(prefix="annulet-package.") as directory:
        scratch = pathlib.Path(directory)
        projects = shutil.copytree(TESTS / "consumer", scratch / "consumer")
        installed = check.building("the package installs", Installed, build, scratch)
        if installed:
            check_installed(check, installed, scratch, projects)
        check_subproject(check, projects)
        check_sanitized(check, scratch / "sanitized")
    return cases.summary()


SHARED = "a program runs with the shared library, found by {}"
BOTH = {"libannulet.so.0", "libannulet-posix.so.0"}
POSIX = "a program has the standard names, found by {}, though it calls none of them"
STATIC = "a program runs with the static library, found by {}"


def check_installed(check, installed, scratch, projects):
    check("every installed header finds what it needs", headers_compile, installed)
    check("the shared library exports nothing but annulet's own", foreign_symbols, installed)

    check("gdb loads the script that was installed", unloaded_script, installed)

    check("each standard of C and C++ takes the C headers", strict_consumers, installed, scratch)
    program = check.building("a program in C builds", build_c, installed, scratch)
    if program:
        check("a program in C enters, spawns, joins and leaves", wrong_c, installed, program)

    name = "a project with pkg-config builds"
    built = check.building(name, build_with_pkg_config, installed, projects / "pkg_config")
    if built:
        where = {"LD_LIBRARY_PATH": str(installed.libraries)}
        check(SHARED.format("pkg-config"), wrong_program, built / "with_shared", {"libannulet.so.0"}, **where)
        check(STATIC.format("pkg-config"), wrong_program, built / "with_static", set())
        check(POSIX.format("pkg-config"), wrong_program, built / "with_posix", BOTH, **where)

    name = "a project with CMake builds"
    built = check.building(name, build_with_cmake, installed, projects / "cmake")
    if built:
        check(SHARED.format("CMake"), wrong_program, built / "with_shared", {"libannulet.so.0"})
        check(STATIC.format("CMake"), wrong_program, built / "with_static", set())
        check(POSIX.format("CMake"), wrong_program, built / "with_posix", BOTH)
    name = "a project in C with CMake builds"
    program = check.building(name, build_c_with_cmake, installed, projects / "cmake_c")
    if program:
        check("a program in C by CMake enters, spawns, joins and leaves", wrong_c, installed, program)
        check("CMake refuses both libraries in one program", linked_twice, projects / "cmake_c")
    if built:  # the last, for it takes the archive away
        check("CMake says why there is no annulet::static", unsaid_without_archive, installed, built)
    check("CMake takes it for the versions that it can stand for", wrong_versions, installed, scratch)


def check_sanitized(check, scratch):
    scratch.mkdir()
    installed = check.building("a library with the address sanitizer installs", install_sanitized, scratch)
    if installed:
        name = "a program with the address sanitizer builds"
        program = check.building(name, build_sanitized, installed)
        if program:
            check("its fibers park, and make no report", wrong_sanitized, installed, program)
            check("its use of a frame that has ended is reported", unreported_use, installed, program)


def check_subproject(check, projects):
    name = "a project with annulet as a subproject builds"
    built = check.building(name, build_with_subproject, projects / "meson_subproject")
    if built:
        check(SHARED.format("Meson"), wrong_program, built / "with_shared", {"libannulet.so.0"})
        check(STATIC.format("Meson"), wrong_program, built / "with_static", set())
        check(POSIX.format("Meson"), wrong_program, built / "with_posix", BOTH)
        check("a subproject builds neither tests nor examples", wrong_targets, built)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    sys.exit(main(sys.argv[1]))
