#!/usr/bin/env python3
"""The rules that the tree keeps about itself, and the proof that each of them can fail.

usage: tree_test.py BUILD [--self-check]

BUILD is the build directory; programs from the documents link what was built there. With --self-check only
the second half runs: each rule is broken on purpose in a copy of the tree, and must be reported.
"""

import concurrent.futures
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

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPILER = os.environ.get("CXX", "g++")

LIBRARY = ("runtime", "hub", "selector", "net")
FOLDERS = LIBRARY + ("tests", "bench", "examples", "tools")
MAY_SEE = {"runtime": (), "hub": ("runtime",), "selector": ("runtime", "hub"), "net": ("runtime", "hub")}
# Memory, signals and the C++ runtime: all that fibers need to know of the system. (And how a message goes
# past libc's write.)
RUNTIME_SYSTEM_HEADERS = {
    "cxxabi.h",
    "pthread.h",
    "signal.h",
    "sys/auxv.h",
    "sys/mman.h",
    "sys/resource.h",
    "sys/syscall.h",
    "unistd.h",
    "valgrind/memcheck.h",
    "valgrind/valgrind.h",
}
PLANTS = "annulet_plants.hpp"

TOP_LEVEL = FOLDERS + ("docs", "dev", ".ci", "README.md", "meson.build", "meson_options.txt")
TOP_LEVEL += (".clang-format", ".clang-tidy", ".gitignore", ".git")

LINES_IN_A_FILE = 450
LINES_IN_A_FUNCTION = 80
COLUMNS = 110
SECONDS_FOR_A_PROGRAM = 10


class Tree:
    """A checkout, or a copy of one, and the build directory whose libraries its programs link."""

    def __init__(self, root, build, seconds_for_a_program=SECONDS_FOR_A_PROGRAM):
        self.root = root
        self.build = build
        self.seconds_for_a_program = seconds_for_a_program

    def files(self, folders, suffixes):
        for folder in folders:
            for path in sorted((self.root / folder).rglob("*")):
                if path.suffix in suffixes and path.is_file():
                    yield path

    def sources(self, folders=FOLDERS):
        return self.files(folders, (".hpp", ".cpp", ".h", ".c"))

    def documents(self):
        readme = self.root / "README.md"
        return [path for path in (readme, *sorted(self.root.glob("docs/*.md"))) if path.exists()]

    def scripts(self):
        named = [self.root / name for name in ("dev", ".ci/run", "meson.build", "meson_options.txt")]
        inner = [path for folder in FOLDERS for path in sorted(self.root.glob(f"{folder}/**/meson.build"))]
        others = self.files(FOLDERS, (".py", ".sh", ".map"))
        return [path for path in named + inner if path.exists()] + list(others)

    def everything(self):
        return [*self.sources(), *self.documents(), *self.scripts()]

    def where(self, path, line=None):
        name = str(path.relative_to(self.root))
        return name if line is None else f"{name}:{line}"


# --- Reading C++ ---

COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'  # but not the marks in 1'000'000
    """,
    re.DOTALL | re.VERBOSE,
)


def code_of(text):
    """The text with comments and literals blanked; every line stays where it is."""
    return COMMENT_OR_LITERAL.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def includes_of(path):
    """(line, name, whether in angle brackets) of each include."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", line)
        if found:
            yield number, found[2], found[1] == "<"


def is_scope(head):
    """Whether a brace after this text opens a namespace or a type, and not a function or a table."""
    while (shorter := re.sub(r"<[^<>]*>|\([^()]*\)|\[[^\[\]]*\]", " ", head)) != head:
        head = shorter
    return "=" not in head and re.search(r"\b(namespace|class|struct|union|enum|extern)\b", head) is not None


def functions_of(code):
    """(first line, lines) of each outermost block that is no scope: functions, and tables."""
    scopes = []  # of the open braces, whether each is a scope
    head_at = 0
    started = None
    for found in re.finditer(r"[{};]", code):
        at = found.start()
        if found[0] == "{":
            head = code[head_at:at]
            scopes.append(is_scope(head) and all(scopes))
            if not scopes[-1] and all(scopes[:-1]):
                started = head_at + len(head) - len(head.lstrip())
        elif found[0] == "}" and scopes:
            if not scopes.pop() and all(scopes):
                yield code.count("\n", 0, started) + 1, code.count("\n", started, at) + 1
        head_at = at + 1


# --- The rules: each takes a tree and yields what breaks it ---


def wrong_include(tree, path, folder, name, in_brackets):
    """What is wrong with an include in one of the library's folders, or None."""
    if name == PLANTS:
        return None
    if not in_brackets:
        inside = "/" not in name and (tree.root / folder / name).exists()
        return None if inside else f'only files of {folder}/ itself are included as "{name}"'
    if name.startswith("annulet/"):
        layer = name.split("/")[1]
        return None if layer in MAY_SEE[folder] else f"{folder} must not know <{name}>"
    if name.startswith("boost/"):
        return None if folder == "runtime" else f"only runtime knows Boost, not <{name}>"
    if name in ("liburing.h", "linux/io_uring.h") or name.startswith("liburing/"):
        return None if folder == "hub" else f"only hub knows io_uring, not <{name}>"
    standard = "." not in name and "/" not in name
    if folder == "runtime" and not standard and name not in RUNTIME_SYSTEM_HEADERS:
        return f"runtime knows memory and nothing else of the kernel, not <{name}>"
    return None


def layers(tree):
    for folder in LIBRARY:
        for path in tree.sources([folder]):
            for line, name, in_brackets in includes_of(path):
                wrong = wrong_include(tree, path, folder, name, in_brackets)
                if wrong:
                    yield f"{tree.where(path, line)}: {wrong}"


def one_file_each(tree):
    for folder, prefix in (("runtime", "boost/"), ("hub", "liburing")):
        users = [
            tree.where(path)
            for path in tree.sources([folder])
            if any(name.startswith(prefix) for _, name, _ in includes_of(path))
        ]
        if len(users) != 1:
            named = ", ".join(users) or "no file does"
            yield f"exactly one file of {folder}/ includes {prefix}: {named}"
    for folder in LIBRARY:
        for path in tree.sources([folder]):
            for number, line in enumerate(code_of(path.read_text()).splitlines(), 1):
                if folder in ("runtime", "selector", "net") and re.search(r"\bio_uring_", line):
                    yield f"{tree.where(path, number)}: io_uring is named outside hub/"
                if folder != "runtime" and re.search(r"\bboost::", line):
                    yield f"{tree.where(path, number)}: Boost is named outside runtime/"


def strays(tree):
    for path in sorted(tree.root.iterdir()):
        is_build = path.name.startswith("build") and path.is_dir()
        if path.name not in TOP_LEVEL and not is_build:
            yield f"{tree.where(path)}: the top level holds nothing but {', '.join(TOP_LEVEL)}"


def long_files(tree):
    for path in [*tree.sources(), tree.root / "dev", *tree.files(FOLDERS, (".sh",))]:
        lines = path.read_text().count("\n")
        if lines > LINES_IN_A_FILE:
            yield f"{tree.where(path)}: {lines} lines; more than {LINES_IN_A_FILE} hold more than one idea"


def long_functions(tree):
    for path in tree.sources():
        for line, lines in functions_of(code_of(path.read_text())):
            if lines > LINES_IN_A_FUNCTION:
                limit = f"more than {LINES_IN_A_FUNCTION}"
                yield f"{tree.where(path, line)}: a function of {lines} lines, {limit}"


def long_lines(tree):
    for path in [*tree.sources(), *tree.scripts()]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > COLUMNS:
                yield f"{tree.where(path, number)}: {len(line)} columns, more than {COLUMNS}"


# A header that has to stand in for functions of glibc's whose names nobody else may use.
MACROS_OF = {"selector/replace.h": r"ANNULET_\w+|__\w+_alias\("}


def macros(tree):
    for path in tree.sources(LIBRARY):
        its_own = MACROS_OF.get(tree.where(path))
        for number, line in enumerate(code_of(path.read_text()).splitlines(), 1):
            defined = re.match(r"\s*#\s*define\b\s*(.*)", line)
            if defined and not (its_own and re.match(its_own, defined[1])):
                yield f"{tree.where(path, number)}: a macro"
        if path.suffix in (".hpp", ".h") and "#pragma once\n" not in path.read_text():
            yield f"{tree.where(path)}: no #pragma once"


def lists_it(script, path):
    return f"'{path}'" in script or f"'{path.with_suffix('')}'" in script


def unlisted_files(tree):
    lists = {path.parent: path.read_text() for path in tree.scripts() if path.name == "meson.build"}
    for path in [*tree.sources(), *tree.files(["tests"], (".py",))]:
        folder = tree.root / path.relative_to(tree.root).parts[0]
        if folder.name not in LIBRARY and path.suffix != ".cpp" and not path.name.endswith("_test.py"):
            continue  # what only our own programs include needs no list
        places = (folder, path.parent)
        if not any(lists_it(lists.get(place, ""), path.relative_to(place)) for place in places):
            yield f"{tree.where(path)}: no meson.build lists it"


# Spelt so that this file does not break its own rule.
FORBIDDEN = (
    (r"\b(TO[D]O|FIX[M]E|X[X]X)\b", "work left for later"),
    (r"(?i)\bissues?\s*#?\s*[0-9]", "a reason belongs here, not a number to look up"),
    (r"(?i)\bsess[i]ons?\b", "who worked on it, and when, does not belong here"),
)


def forbidden_words(tree):
    for path in tree.everything():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern, why in FORBIDDEN:
                found = re.search(pattern, line)
                if found:
                    yield f"{tree.where(path, number)}: '{found[0]}': {why}"


def complaints(command, wanted=0, **options):
    """What a command that did not end as wanted has to say, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, **options)
    except subprocess.TimeoutExpired as expired:
        return f"did not end within {expired.timeout} s"
    if done.returncode == wanted:
        return None
    return f"status {done.returncode}\n{done.stdout}{done.stderr}".rstrip()


def two_at_a_time(function, items):
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return [result for result in pool.map(function, items) if result]


def has_its_own_source(header):
    """One that includes it before all else: then the build has compiled it alone."""
    source = header.with_suffix(".cpp")
    text = source.read_text() if source.exists() else ""
    first = re.search(r'^#include ["<](.*)[">]', text, re.MULTILINE)
    return first is not None and first[1] == header.name


def headers_that_lack_something(tree):
    headers = [path for path in tree.files(LIBRARY, (".hpp", ".h")) if path.name != PLANTS]
    headers = [path for path in headers if not has_its_own_source(path)]
    with tempfile.TemporaryDirectory(prefix="annulet-headers.") as directory:
        include = pathlib.Path(directory) / "annulet"
        include.mkdir()
        for folder in LIBRARY:
            (include / folder).symlink_to(tree.root / folder)
        command = [COMPILER, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-I", directory]
        command += ["-I", tree.root / "runtime/plants_off", "-x", "c++", "-"]

        def compile_alone(header):
            source = f"#include <annulet/{header.relative_to(tree.root)}>\n"
            wrong = complaints(command, input=source)
            return wrong and f"{tree.where(header)} does not compile alone: {wrong}"

        yield from two_at_a_time(compile_alone, headers)


def programs_in(document):
    """(line, text, output) of each fenced block of C++ that has a main function and is not called a fragment.
    The output is a block of text right below it, or None."""
    fence = r"^```cpp *(?P<kind>\w*) *\n(?P<text>.*?)^```\n(?:\n*```text\n(?P<output>.*?)^```)?"
    text = document.read_text()
    for found in re.finditer(fence, text, re.DOTALL | re.MULTILINE):
        if found["kind"] != "fragment" and re.search(r"\bint main\b", found["text"]):
            yield text.count("\n", 0, found.start()) + 1, found["text"], found["output"]


SEGMENTATION_FAULT = "Segmentation fault\n"  # the shell's word, below all that the program says


def status_after(output):
    return -signal.SIGSEGV if output is not None and output.endswith(SEGMENTATION_FAULT) else 0


def misprint(program, expected, **options):
    """What a program prints other than expected; how long things took, and how much of a stack, is free."""
    done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)

    def compared(output):
        timeless = re.sub(r"\d+\.\d+ s\b", "... s", output)
        return re.sub(r"\b\d+ of (\d+ KiB)", r"... of \1", timeless).rstrip()

    if compared(done.stdout) == compared(expected.removesuffix(SEGMENTATION_FAULT)):
        return None
    return f"does not print what stands below it, but\n{done.stdout}"


def documented_programs(tree):
    env = os.environ | {"PKG_CONFIG_PATH": str(tree.build / "meson-uninstalled")}
    ask = ["pkg-config", "--cflags", "--libs", "annulet"]
    flags = shlex.split(subprocess.run(ask, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)
    with tempfile.TemporaryDirectory(prefix="annulet-documents.") as directory:

        def try_out(numbered):
            number, (where, text, output) = numbered
            program = pathlib.Path(directory) / str(number)
            command = [COMPILER, "-std=c++20", "-Wall", "-x", "c++", "-", "-o", program]
            source = f'#line 1 "main.cpp"\n{text}'
            wrong = complaints([*command, *flags, f"-Wl,-rpath,{tree.build}"], input=source)
            if wrong:
                return f"{where}: does not compile: {wrong}"
            run = {"stdin": subprocess.DEVNULL, "cwd": directory}  # a core file goes with it
            wrong = complaints([program], status_after(output), timeout=tree.seconds_for_a_program, **run)
            if not wrong and output is not None:
                wrong = misprint(program, output, **run)
            return wrong and f"{where}: {wrong}"

        found = [
            (tree.where(document, line), text, output)
            for document in tree.documents()
            for line, text, output in programs_in(document)
        ]
        yield from two_at_a_time(try_out, enumerate(found))


RULES = {
    "each layer knows only the layers below it": layers,
    "one file names Boost and one includes liburing": one_file_each,
    "the top level holds nothing but the named folders and files": strays,
    "no file is too long to read at once": long_files,
    "no function is too long to see at once": long_functions,
    "no line is too long": long_lines,
    "the library has no macro, but for replace.h": macros,
    "no file is left out of the build": unlisted_files,
    "nothing is said that only a few would understand": forbidden_words,
    "every header compiles alone": headers_that_lack_something,
    "every program in the documents runs": documented_programs,
}


# --- The proof ---

PRAGMA = "#pragma once\n"


def document(*lines):
    return "\n".join(["```cpp", *lines, "```", ""])


OUTPUT = "\n```text\nDone after 0.1 s.\n```\n"
FAULT = "\n```text\nSegmentation fault\n```\n"
LONG_FUNCTION = "namespace a {\nstruct b {\n  b() : n{1} {\n" + "    n++;\n" * 79 + "  }\n};\n}\n"

# (rule, file, its text, what the report must say)
PLANTED = (
    (layers, "runtime/planted.hpp", PRAGMA + "#include <sys/socket.h>\n", "memory and nothing else"),
    (layers, "runtime/planted.hpp", PRAGMA + "#include <annulet/hub/hub.hpp>\n", "must not know"),
    (layers, "runtime/planted.hpp", PRAGMA + '#include "../hub/hub.hpp"\n', "only files of runtime/"),
    (layers, "hub/planted.cpp", "#include <annulet/selector/selector.hpp>\n", "must not know"),
    (layers, "hub/planted.cpp", "#include <boost/context/fiber.hpp>\n", "only runtime knows Boost"),
    (layers, "selector/planted.cpp", "  #  include <liburing.h>\n", "only hub knows io_uring"),
    (layers, "net/planted.cpp", "#include <annulet/selector/selector.hpp>\n", "must not know"),
    (one_file_each, "runtime/planted.cpp", "#include <boost/config.hpp>\n", "of runtime/"),
    (one_file_each, "hub/planted.cpp", "#include <liburing.h>\n", "of hub/"),
    (one_file_each, "net/planted.cpp", "int n = io_uring_enter();\n", "outside hub/"),
    (strays, "planted.md", "Left over.\n", "top level"),
    (strays, "build.log", "No directory.\n", "top level"),
    (long_files, "hub/planted.cpp", "\n" * (LINES_IN_A_FILE + 1), "more than one idea"),
    (long_files, "tools/planted.sh", "\n" * (LINES_IN_A_FILE + 1), "more than one idea"),
    (long_lines, "tools/planted.sh", "#" * (COLUMNS + 1) + "\n", "columns"),
    (long_functions, "hub/planted.cpp", LONG_FUNCTION, "a function of 81 lines"),
    (long_lines, "tests/planted.cpp", "//" + "-" * (COLUMNS - 1) + "\n", "columns"),
    (macros, "selector/planted.cpp", "#define PLANTED 1\n", "a macro"),
    (macros, "selector/replace.h", PRAGMA + "#define read annulet_read\n", "a macro"),
    (macros, "selector/planted.hpp", "int planted();\n", "no #pragma once"),
    (unlisted_files, "runtime/planted.hpp", PRAGMA, "no meson.build lists it"),
    (unlisted_files, "tests/nobodys_test.cpp", "", "no meson.build lists it"),
    (forbidden_words, "bench/planted.cpp", "// TO" + "DO: faster\n", "work left for later"),
    (forbidden_words, "docs/planted.md", "See issue" + " #12.\n", "a reason belongs here"),
    (forbidden_words, "docs/planted.md", "In an earlier sess" + "ion.\n", "does not belong here"),
    (headers_that_lack_something, "hub/planted.hpp", PRAGMA + "std::string planted();\n", "compile alone"),
    (documented_programs, "docs/planted.md", document("int main() { return 0 }"), "does not compile"),
    (documented_programs, "docs/planted.md", document("int main() { return 3; }"), "status 3"),
    (documented_programs, "docs/planted.md", document("int main() {}") + OUTPUT, "does not print"),
    (documented_programs, "docs/planted.md", document("int main() {}") + FAULT, "status 0"),
    (documented_programs, "docs/planted.md", document("int main() {", "  while (1);", "}"), "did not end"),
)


def missed(rule, tree, planted, text, expected):
    """Plants one violation in the tree; says what is wrong with the report, and takes it out again."""
    path = tree.root / planted
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    reports = [report for report in rule(tree) if planted in report]
    path.unlink()
    if not any(expected in report for report in reports):
        yield f"{planted} breaks the rule, and was not reported as '{expected}' but as {reports or 'nothing'}"


def copy_for_planting(root, target, rule):
    """The tree, without what a slow rule would only look at again."""
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(".git", "build*", "__pycache__"))
    if rule is documented_programs:
        for path in [target / "README.md", *target.glob("docs/*.md")]:
            path.unlink(missing_ok=True)
    if rule is headers_that_lack_something:
        for folder in LIBRARY:
            for path in (target / folder).rglob("*.hpp"):
                path.unlink()


def self_check(cases, build):
    with tempfile.TemporaryDirectory(prefix="annulet-tree.") as directory:
        for number, (rule, planted, text, expected) in enumerate(PLANTED):
            target = pathlib.Path(directory) / str(number)
            copy_for_planting(ROOT, target, rule)
            tree = Tree(target, build, seconds_for_a_program=0.5)
            name = f"{rule.__name__} reports {planted}: {expected}"
            cases.add(name, list(missed(rule, tree, planted, text, expected)))


def main(build, *options):
    cases = Cases("tree")
    build = pathlib.Path(build).resolve()
    if "--self-check" not in options:
        for name, rule in RULES.items():
            cases.add(name, list(rule(Tree(ROOT, build))))
    self_check(cases, build)
    return cases.summary()


if __name__ == "__main__":
    if not (len(sys.argv) == 2 or sys.argv[2:] == ["--self-check"]):
        sys.exit(__doc__.strip())
    sys.exit(main(*sys.argv[1:]))
