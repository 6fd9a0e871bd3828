"""Makes a test program of the snippets in a document.

usage: snippets.py DOCUMENT PROGRAM

What stands in blocks of C++ before the first heading of the third level opens the program; each block after
that is a test case, named after its heading, and runs in a main fiber. The compiler and doctest name lines of
the document.
"""

import pathlib
import re
import sys

# A heading of the third level, or a block of C++.
HEADING_OR_BLOCK = re.compile(
    r"^### +(?P<heading>[^\n]+)\n|^```cpp\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)


def program_of(document, name):
    """The program, and what is wrong with the document."""
    program, wrong, heading, cases = ["#include <doctest/doctest.h>"], [], None, 0
    for found in HEADING_OR_BLOCK.finditer(document):
        if found["heading"]:
            heading = found["heading"].strip()
            continue
        line = document.count("\n", 0, found.start()) + 2  # of its first line
        snippet = f'#line {line} "{name}"\n{found["text"]}'
        if heading is None:
            program.append(snippet)
            continue
        if not re.search(r"^ *CHECK", found["text"], re.MULTILINE):
            wrong.append(f"{name}:{line}: a snippet that checks nothing")
        quoted = re.sub(r'(["\\])', r"\\\1", heading)
        program.append(f'TEST_CASE("{quoted}") {{\n  annulet::hub hub;\n{snippet}}}')
        cases += 1
    if cases == 0:
        wrong.append(f"{name}: no snippet")
    return "\n\n".join(program) + "\n", wrong


def main(document, program):
    name = "/".join(pathlib.Path(document).parts[-2:])
    text, wrong = program_of(pathlib.Path(document).read_text(), name)
    if wrong:
        return "\n".join(wrong)
    pathlib.Path(program).write_text(text)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    sys.exit(main(*sys.argv[1:]))
