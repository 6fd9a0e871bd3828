#!/usr/bin/env python3
"""Installs what was built into a temporary directory and uses it from there as a stranger would.

usage: package_test.py BUILD
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from cases import Cases

TESTS = pathlib.Path(__file__).resolve().parent
COMPILER = os.environ.get("CXX", "g++")
EXPECTED_OUTPUT = "1 ready\nhello\n"


class Failed(Exception):
    pass


def output_of(*command, env=None):
    """What a command printed on stdout; an error that shows all of it where it fails or takes a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(command)} did not end within 60 s")
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Installed:
    """A copy of the package under a directory that is not the prefix it was configured for."""

    def __init__(self, build, directory):
        output_of("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", directory)
        self.pc = next(pathlib.Path(directory).rglob("annulet.pc"), None)
        if self.pc is None:
            raise Failed("meson install put no annulet.pc anywhere")
        self.libraries = self.pc.parent.parent
        configured = re.search(r"^prefix=/?(.*)$", self.pc.read_text(), re.MULTILINE)[1]
        self.prefix = pathlib.Path(directory) / configured
        self.headers = sorted((self.prefix / "include/annulet").rglob("*.hpp"))

    def pkg_config(self, *options):
        env = os.environ | {"PKG_CONFIG_PATH": str(self.pc.parent)}
        command = ("pkg-config", f"--define-variable=prefix={self.prefix}", *options, "annulet")
        return shlex.split(output_of(*command, env=env))

    def build_and_run(self, program, *options, compiler_options=()):
        source = TESTS / "consumer/main.cpp"
        flags = self.pkg_config("--cflags", "--libs", *options)
        output_of(COMPILER, "-std=c++20", source, "-o", program, *compiler_options, *flags)
        return output_of(program, env=os.environ | {"LD_LIBRARY_PATH": str(self.libraries)})


def consumer_prints(output):
    return [] if output == EXPECTED_OUTPUT else [f"printed {output!r}, not {EXPECTED_OUTPUT!r}"]


def headers_compile(installed):
    """One program that includes all of them: none may need a file that stayed at home."""
    if not installed.headers:
        return ["no header was installed"]
    top = installed.prefix / "include"
    source = "".join(f"#include <{header.relative_to(top)}>\n" for header in installed.headers)
    program = installed.prefix / "all.cpp"
    program.write_text(source)
    output_of(COMPILER, "-std=c++20", "-fsyntax-only", program, *installed.pkg_config("--cflags"))
    return []


def foreign_symbols(installed):
    """Exported symbols that are neither in namespace annulet nor the typeinfo or tables of its types."""
    ours = re.compile(r"_Z(T[ISVTWH]|GV|T[hv]\w+?_)?N[KOR]*7annulet")
    command = ("nm", "-D", "--defined-only", "--no-sort", "--format=posix")
    library = installed.libraries / "libannulet.so"
    mangled = output_of(*command, library).splitlines()
    readable = output_of(*command, "--demangle", library).splitlines()
    exported = [pair for pair in zip(mangled, readable) if " A " not in pair[0]]  # A is the version itself
    if not exported:
        return ["nothing is exported"]
    return [f"exports {name}" for symbol, name in exported if not ours.match(symbol)]


def main(build):
    cases = Cases("package")
    with tempfile.TemporaryDirectory(prefix="annulet-package.") as directory:
        scratch = pathlib.Path(directory)
        try:
            installed = Installed(build, scratch / "root")
        except Failed as error:
            cases.add("the package installs", [str(error)])
            return cases.summary()
        cases.add("the package installs", [])

        def case(name, check):
            try:
                cases.add(name, check())
            except Failed as error:
                cases.add(name, [str(error)])

        case("every installed header finds what it needs", lambda: headers_compile(installed))
        case(
            "a program runs with the shared library",
            lambda: consumer_prints(installed.build_and_run(scratch / "shared")),
        )
        case(
            "a program runs with everything linked statically",
            lambda: consumer_prints(
                installed.build_and_run(scratch / "static", "--static", compiler_options=["-static"])
            ),
        )
        case("the shared library exports nothing but annulet's own", lambda: foreign_symbols(installed))
    return cases.summary()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    sys.exit(main(sys.argv[1]))
